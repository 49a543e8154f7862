"""mma-edge: emotions of a camera with its microphone, or of a video file."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from functools import partial
from pathlib import Path

from rich.console import Console

from mma_edge import __version__
from mma_edge.commands.build import add_build_command
from mma_edge.commands.sources import SOURCE_EXAMPLES, add_source_options, capture_options
from mma_edge.commands.support import HelpFormatter, Parser, end_process, run_cli, say
from mma_edge.commands.sync import DOCTOR, add_sync_options, run_sync
from mma_edge.errors import UsageError

EXAMPLES = """\
examples:
  mma-edge run sample                          the clip that comes with the package
  mma-edge run camera                          first camera and the microphone, until Ctrl-C
  mma-edge run talk.mp4 --output talk.jsonl    one record per face and half second
  mma-edge run clip.mp4 --whole                one answer for the whole clip, as the paper tests
  mma-edge doctor                              what this machine can run, and how to get the rest to run
  mma-edge info                                what is in the default bundle
  mma-edge build bundles/dfew                  a TensorRT engine of a bundle, on the device that will run it
"""
RUN_EXAMPLES = f"""\
examples:
{SOURCE_EXAMPLES}  mma-edge run camera:1 --window 3 --hop 0.25
  mma-edge run talk.mp4 --bundle bundles/dfew --backend cpu --output talk.csv
  mma-edge run camera --quiet --output out.jsonl --health 8080    as a service: docs/service.md
  mma-edge run camera --streaming exact --hop 0.25
  mma-edge run camera --streaming auto --backend openvino
  mma-edge run camera --abstain-below 0.5      "uncertain" where no class is that probable
  mma-edge run camera --smooth 2               calmer answers, which come about 2 s later
  mma-edge run clip.mp4 --whole --voice-gate off  all sound for a voice, as the paper has it

A record holds: start and end in seconds of the source's own clock (PTS), number and box of the face, the modalities
that the clip has, the share of speech in its sound, the label, a probability per class, and the age in ms of the newest
frame or sound that was used, and the name of the source. Sound without speech is not used: such a clip is "video"
alone, and without a face too there is no record. With several faces it also holds how well the face's mouth moves with
the voice (speaking, 0 to 1): one that clearly speaks has the sound alone. With --smooth it holds the S.

exit codes: 0 done, 2 usage, 3 file or stream, 4 camera or microphone, 5 bundle, 6 backend, 7 output,
11 missing package, 130 interrupted; of several sources that of the first that failed
"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser("mma-edge", description=__doc__, epilog=EXAMPLES, formatter_class=HelpFormatter)
    parser.add_argument("--version", action="version", version=f"mma-edge {__version__}")
    subparser = partial(Parser, formatter_class=HelpFormatter)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=subparser)
    run = commands.add_parser("run", help="recognise emotions", description="Emotions of SOURCE.", epilog=RUN_EXAMPLES)
    run.set_defaults(command=run_command)
    add = run.add_argument
    add_source_options(add)
    add("--bundle", type=Path, metavar="DIR", help="model to run (default: the embedded one)")
    add("--backend", default="auto", metavar="B", help="auto, tensorrt, cuda, openvino or cpu")
    add("--precision", metavar="P", help="one of the bundle's (default: the backend's best)")
    add("--output", type=Path, metavar="FILE", help="write records to FILE.jsonl or FILE.csv")
    stats = "write every second what a live run does and how old its answers are to FILE (JSON Lines)"
    add("--stats", type=Path, metavar="FILE", help=stats)
    health = "answer GET /healthz there: 200 while a source delivers, else 503 (default address: 127.0.0.1)"
    add("--health", metavar="[ADDRESS:]PORT", help=health)
    add("--overwrite", action="store_true", help="replace FILE if it exists")
    add("--whole", action="store_true", help="one clip for the whole file and each face (the paper's protocol)")
    add("--window", type=float, default=4.0, metavar="S", help="length of a clip in seconds")
    add("--hop", type=float, default=0.5, metavar="S", help="seconds between two answers")
    streaming = "do the work that overlapping clips share only once: exactly, or with the old results of old frames"
    add("--streaming", metavar="exact|rolling|auto", help=f"{streaming}; auto: the best that the bundle offers")
    gate = "share of speech below which a clip has no sound, from 0 to 1; off takes all sound for a voice"
    add("--voice-gate", default="0.1", metavar="SHARE|off", help=gate)
    abstain = 'label an answer "uncertain" where the most probable class is less probable than P'
    add("--abstain-below", metavar="P", help=abstain)
    smooth = "average each face's probabilities over S seconds; they come S seconds later (default: not at all)"
    add("--smooth", metavar="S", help=smooth)
    add("--no-audio", action="store_true", help="do not use the sound or the microphone")
    centre = "where no face is found, use the centre of the picture, as the MMA-DFER authors do"
    add("--centre-fallback", action="store_true", help=centre)
    nvdec = "decode a file's pictures on an NVIDIA GPU (not tried on one yet); without one the processor does it"
    add("--nvdec", action="store_true", help=nvdec)
    add("--quiet", action="store_true", help="print notices and errors only")
    info = commands.add_parser("info", help="show what a bundle holds")
    info.set_defaults(command=info_command)
    info.add_argument("bundle", nargs="?", type=Path, metavar="BUNDLE", help="its folder (default: the embedded one)")
    add_build_command(commands)
    doctor = commands.add_parser("doctor", help="check what this machine can run", description=DOCTOR)
    doctor.set_defaults(command=doctor_command)
    add_sync_options(doctor.add_argument)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = build_parser()
    if not (sys.argv[1:] if argv is None else argv):
        parser.print_help()
        return 2
    code = run_cli(parser, run_command, argv, extra="cpu")
    return end_process(code) if argv is None else code


def run_command(args: argparse.Namespace, console: Console) -> int:
    from mma_edge.commands.run import Outputs, run_sources
    from mma_edge.live import check_together
    from mma_edge.pipeline import StreamOptions
    from mma_edge.recognizer import Recognizer
    from mma_edge.service import allow_stack_dumps, health_address
    from mma_edge.sinks import record_sink_of
    from mma_edge.sources import named_sources
    from mma_edge.streaming import check_mode, choose_mode

    notices = Console(stderr=True)
    if args.streaming:
        check_mode(args.streaming, auto=True)
    options = StreamOptions(
        window_s=args.window,
        hop_s=args.hop,
        whole=args.whole,
        centre_fallback=args.centre_fallback,
        audio=not args.no_audio,
        streaming="rolling" if args.streaming == "auto" else args.streaming,
        voice_gate=None if args.voice_gate == "off" else _number(args.voice_gate),
        abstain_below=_number(args.abstain_below),
        smooth_s=_number(args.smooth),
        nvdec=args.nvdec,
        capture=capture_options(args),
        notify=lambda line: say(notices, f"note: {line}"),
    )
    # Check the names first: a wrong one should not have to wait for the model.
    if args.output:
        record_sink_of(args.output)
    sources = named_sources(args.sources)
    live = check_together(sources, options.capture)
    if args.stats and args.stats == args.output:
        raise UsageError(f"--stats and --output are both {args.stats}", "two files")
    for option in ("stats", "health"):
        if getattr(args, option) and not live:
            what = f"--{option} with the file {next(iter(sources))}"
            raise UsageError(what, "a live source", "--realtime plays a file as one")
    health = health_address(args.health) if args.health else None
    allow_stack_dumps()
    recognizer = Recognizer.open(args.bundle, args.backend, args.precision, args.streaming)
    options = dataclasses.replace(options, streaming=choose_mode(recognizer, args.streaming, options.notify))
    for note in recognizer.notes:
        options.notify(note)
    title = f"{', '.join(sources)}  {recognizer.bundle.name} {recognizer.precision}  {recognizer.engine.details}"
    if options.streaming:
        title += f"  streaming {options.streaming}"
    outputs = Outputs(args.output, args.stats, health, args.overwrite, args.quiet)
    return run_sources(recognizer, sources, options, outputs, title, console)


def _number(text: str | None) -> float | str | None:
    """The number that a text says; any other text as it is, for `StreamOptions` to say what was expected."""
    try:
        return text and float(text)
    except ValueError:
        return text


def info_command(args: argparse.Namespace, console: Console) -> int:
    from mma_edge.bundle import read_bundle
    from mma_edge.commands.info import show_bundle

    show_bundle(read_bundle(args.bundle), console)
    return 0


def doctor_command(args: argparse.Namespace, console: Console) -> int:
    if run_sync(args, console):
        return 0
    from mma_edge.commands.doctor import examine

    return examine(console)


if __name__ == "__main__":
    sys.exit(main())
