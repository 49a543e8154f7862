"""mma-bench faces: which faces are found, and what a file costs."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from mma_benchmarks.commands.support import add_bundle, add_output, finish, results_folder, step_lines

HELP = "count faces found and missed beside a full detection of every picture, and time whole files"
EXAMPLES = """\
examples:
  mma-bench faces
  mma-bench faces --source sample talk.mp4 clips/ --every 3 --repeat 5
  mma-bench faces --people anna.mp4 ben.mp4 carla.mp4

Each file or folder of files gets one row. --people counts how often people change their number when they pass each
other and hide each other, and times eight faces at 720p.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    add_bundle(parser)
    parser.add_argument("--source", nargs="+", default=["sample"], metavar="FILE", help="clips, folders, or sample")
    people = "clips of one person each: their heads are composed into scenes in which they pass each other"
    parser.add_argument("--people", nargs="+", type=Path, default=[], metavar="FILE", help=people)
    parser.add_argument("--every", type=int, default=5, metavar="N", help="the reference is every N-th picture")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="timed passes over each clip")
    add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    from mma_benchmarks.faces.measure import FacesOptions, measure_faces

    options = FacesOptions(
        tuple(args.source), args.backend, args.precision, args.every, args.repeat, tuple(args.people)
    )
    folder = results_folder(args.output)
    return finish(measure_faces(args.bundle, options, args.typed, step_lines(console)), folder, console)
