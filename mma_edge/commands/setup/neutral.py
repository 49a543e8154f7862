"""`mma-edge neutral`: a reference of a person at rest, for `mma-edge run --neutral FILE`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from mma_edge.commands.recognition import add_model_options, notes_to
from mma_edge.commands.sources import add_source_options, capture_options
from mma_edge.commands.support import say
from mma_edge.errors import UsageError, exit_codes
from mma_edge.files import check_new_file
from mma_edge.manual.parser import group

if TYPE_CHECKING:
    from mma_edge.pipeline.neutral import NeutralMeter, NeutralReference

NEUTRAL_EXAMPLES = f"""\
examples:
  mma-edge neutral camera --output ada.json       ten seconds of Ada, who looks and speaks as if nothing moved her
  mma-edge run camera --neutral ada.json          her emotions, relative to that
  mma-edge neutral ada_reading.mp4 --output ada.json
  mma-edge neutral camera --seconds 20 --bundle bundles/mine --output ada.json

A model that never met a person takes their features and their voice for feelings. The reference holds what it says
when there are none; later answers have half of it or more taken out. Let the person be alone in the picture, look at
the camera and say a few plain sentences: without speech the reference is of the face alone. It is of one model and
one person; a light or a microphone that is quite different wants a new one.

{exit_codes(3, 4, 5, 6, 7, 11)}
"""


def add_neutral_command(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    description = "A reference of the one person in SOURCE, who is neutral, for mma-edge run --neutral."
    brief = "note what a person is like at rest"
    neutral = commands.add_parser("neutral", help=brief, description=description, epilog=NEUTRAL_EXAMPLES)
    neutral.set_defaults(command=neutral_command)
    add = neutral.add_argument
    source = group(add, "source")
    source("source", metavar="SOURCE", help="a camera, a file or an address, as mma-edge run takes it")
    seconds = "how long to watch, from the first answer, 3 to 600 (default: 10 of a live source, all of a file)"
    source("--seconds", type=float, metavar="S", help=seconds)
    add_source_options(add)
    group(add, "clips")("--no-audio", action="store_true", help="do not use the sound or the microphone")
    add_model_options(add)
    output = group(add, "output")
    output("--output", type=Path, required=True, metavar="FILE", help="the reference (JSON)")
    output("--overwrite", action="store_true", help="replace FILE if it exists")


def neutral_command(args: argparse.Namespace, console: Console) -> int:
    """Watch, and write the reference; exit code 0."""
    from mma_edge.live.neutral import check_seconds, measure_neutral
    from mma_edge.pipeline import StreamOptions
    from mma_edge.recognizer import Recognizer
    from mma_edge.sources import is_live
    from mma_edge.sources.file import checked_path

    check_seconds(args.seconds)
    if args.output.suffix.lower() != ".json":
        raise UsageError(f"--output {args.output}", "a name that ends in .json")
    check_new_file(args.output, args.overwrite)  # before anybody has to look neutral in vain
    notify = notes_to(Console(stderr=True))
    options = StreamOptions(audio=not args.no_audio, capture=capture_options(args), notify=notify)
    if args.source != "sample" and not is_live(args.source, options.capture):
        checked_path(args.source)
    recognizer = Recognizer.open(args.bundle, args.backend, args.precision)
    for note in recognizer.notes:
        notify(note)
    with Console(stderr=True).status("look neutral, and speak") as status:

        def follow(meter: NeutralMeter) -> None:
            seen, heard = meter.clips["video"], meter.clips["audio"]
            status.update(f"look neutral, and speak: {seen} clips with the face, {heard} with the voice")

        reference = measure_neutral(recognizer, args.source, args.seconds, options, follow)
    reference.write(args.output, args.overwrite)
    say(console, summary(reference, args.output))
    return 0


def summary(reference: NeutralReference, path: Path) -> str:
    """What was noted, and what each kind of clip looked like to the model."""
    counts, told = [], []
    for kind, name, seems in (("video", "face", "looks"), ("audio", "voice", "sounds")):
        counts.append(f"{reference.clips.get(kind, 0)} clips with the {name}")
        if kind in reference.neutral:
            most = reference.labels[int(reference.neutral[kind].argmax())]
            told.append(f"the {name} alone {seems} {most} to the model")
    return f"{path}: {reference.about['seconds']:g} s, {' and '.join(counts)}; {', '.join(told)}"
