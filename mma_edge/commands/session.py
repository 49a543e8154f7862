"""What is kept to be looked at: the options of `mma-edge run --session DIR`, and `mma-edge annotate`."""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import TimeRemainingColumn

from mma_edge.commands.recognition import (
    add_clip_options,
    add_model_options,
    add_neutral_option,
    notes_to,
    open_recognizer,
    stream_options,
)
from mma_edge.commands.support import progress, say
from mma_edge.errors import UsageError

if TYPE_CHECKING:
    from mma_edge.pipeline import StreamOptions
    from mma_edge.recognizer import Recognizer
    from mma_edge.session.recorder import SessionRecorder

ANNOTATE_EXAMPLES = """\
examples:
  mma-edge annotate sample                         the clip that comes with the package
  mma-edge annotate talk.mp4                       talk.annotated.mp4, with the sound as it was
  mma-edge annotate talk.mp4 -o out.webm           VP9 and Opus
  mma-edge annotate talk.mp4 --records talk.jsonl  draw what mma-edge run --output talk.jsonl has found
  mma-edge annotate talk.mp4 --blur-faces          faces made unrecognisable: docs/sessions.md says how far

A frame shows the answer that stands for its time, as in report and convert: around the middle of the answer's window.
"""
_OPTIONS = ("no_video", "blur_faces", "sound", "session_name")


def add_session_options(add: Callable[..., object]) -> None:
    """Declare the options; `add` is the parser's `add_argument`."""
    session = "keep records, annotated video, events and a manifest in DIR, a new folder: docs/sessions.md"
    add("--session", type=Path, metavar="DIR", help=session)
    add("--session-name", metavar="NAME", help="with --session: its name (default: that of DIR)")
    add("--no-video", action="store_true", help="with --session: keep numbers only, no picture")
    blur = "with --session: make the faces that are found unrecognisable in the video"
    add("--blur-faces", action="store_true", help=blur)
    add("--sound", action="store_true", help="with --session: keep the sound, too, in the video")


def check_session_options(args: argparse.Namespace) -> None:
    """Before the model is loaded: UsageError for options that do not fit, OutputError for a folder that is taken."""
    given = [f"--{name.replace('_', '-')}" for name in _OPTIONS if getattr(args, name)]
    if args.session is None:
        if given:
            raise UsageError(f"{given[0]} without --session", "both", "add --session DIR")
        return
    if args.no_video and (args.sound or args.blur_faces):
        wrong = "--sound" if args.sound else "--blur-faces"
        raise UsageError(f"{wrong} with --no-video", "one of them", "sound and faces are kept in the video only")
    if args.sound and args.no_audio:
        raise UsageError("--sound with --no-audio", "one of them")
    from mma_edge.session.recorder import check_folder
    from mma_edge.session.video.movie import check_codec

    check_folder(args.session)
    if not args.no_video:
        check_codec("mp4", None)


def session_followers(
    args: argparse.Namespace, recognizer: Recognizer, options: StreamOptions
) -> list[SessionRecorder]:
    """The recorder that a command line asks for, or none."""
    if args.session is None:
        return []
    from mma_edge.session.recorder import SessionOptions, SessionRecorder

    chosen = SessionOptions(not args.no_video, args.blur_faces, args.sound, args.session_name or "")
    return [SessionRecorder(args.session, chosen, recognizer, options)]


def add_annotate_command(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    describe = "FILE with boxes, labels and bars drawn on its picture, and its sound."
    annotate = commands.add_parser(
        "annotate", help="draw the emotions on a video file", description=describe, epilog=ANNOTATE_EXAMPLES
    )
    annotate.set_defaults(command=annotate_command)
    add = annotate.add_argument
    add("file", type=Path, metavar="FILE", help="a video; sample: the clip that comes with the package")
    output = "what to write, .mp4 or .webm (default: FILE's name, .annotated.mp4)"
    add("-o", "--output", type=Path, metavar="OUT", help=output)
    add("--webm", action="store_true", help="write VP9 and Opus (default: H.264 and the file's own sound, or AAC)")
    codec = "another encoder of the picture, by FFmpeg's name: h264_nvenc, libsvtav1"
    add("--video-codec", metavar="NAME", help=codec)
    records = "draw these records (.jsonl or .csv) and run no model; boxes are then on the way from one to the next"
    add("--records", type=Path, metavar="FILE", help=records)
    add("--blur-faces", action="store_true", help="make the faces that are found unrecognisable")
    add("--overwrite", action="store_true", help="replace OUT if it exists")
    add_model_options(add)
    add_clip_options(add)
    add_neutral_option(add)


def annotate_command(args: argparse.Namespace, console: Console) -> int:
    from mma_edge.session.video.annotate import DRAWING, AnnotateOptions, draw, open_film, recognise, remember
    from mma_edge.sources.file import sample_path

    suffix = ".webm" if args.webm else ".mp4"
    path = sample_path() if str(args.file) == "sample" else args.file
    output = args.output or args.file.with_suffix(f".annotated{suffix}")
    if args.webm and output.suffix.lower() != ".webm":
        raise UsageError(f"--webm with -o {output}", "a name that ends in .webm")
    if args.records and (wrong := _given_of_model(args)):
        raise UsageError(f"--{wrong.replace('_', '-')} with --records", "one of them", "with records no model runs")
    options = AnnotateOptions(output, args.video_codec, args.blur_faces, args.overwrite)
    stream = stream_options(args, None, notes_to(Console(stderr=True)))
    film = open_film(path)
    options.check(film.path)
    # SIGTERM leaves nothing half behind, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start_s = time.monotonic()
    timeline, labels, passes = None, (), 2
    if args.records:
        timeline, passes = remember(film, args.records, stream.notify), 1
        labels = timeline.labels
    else:
        recognizer, stream = open_recognizer(args, stream)
        labels = recognizer.labels
    with progress(Console(stderr=True), TimeRemainingColumn()) as bar:
        task = bar.add_task("", total=film.duration_s and round(passes * film.duration_s))

        def told(doing: str, done_s: float) -> None:
            before_s = (passes - 1) * (film.duration_s or 0) if doing == DRAWING else 0
            bar.update(task, description=doing, completed=round(before_s + done_s))

        timeline = timeline or recognise(film, recognizer, stream, told)
        draw(film, timeline, labels, options, told)
    took_s = time.monotonic() - start_s
    pace = f", {film.duration_s / took_s:.1f} times as fast as it plays" if film.duration_s else ""
    say(console, f"{output}: {timeline.count} answers drawn in {took_s:.1f} s{pace}")
    return 0


def _given_of_model(args: argparse.Namespace) -> str | None:
    """The first option of the model and its clips that is not as it is by default."""
    parser = argparse.ArgumentParser()
    add_model_options(parser.add_argument)
    add_clip_options(parser.add_argument)
    add_neutral_option(parser.add_argument)
    defaults = vars(parser.parse_args([]))
    return next((name for name, value in defaults.items() if getattr(args, name) != value), None)
