"""mma-bench faces: which faces are found, and what a file costs."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from mma_benchmarks.commands.support import add_output, finish, results_folder, step_lines

HELP = "count faces found and missed beside a full detection of every picture, and time whole files"
EXAMPLES = """\
examples:
  mma-bench faces
  mma-bench faces --source sample talk.mp4 clips/ --every 3 --repeat 5

Each file or folder of files gets one row.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    bundle = "folder of the bundle whose engine runs beside (default: the embedded model)"
    parser.add_argument("bundle", nargs="?", type=Path, metavar="BUNDLE", help=bundle)
    parser.add_argument("--source", nargs="+", default=["sample"], metavar="FILE", help="clips, folders, or sample")
    parser.add_argument("--backend", default="auto", metavar="B", help="auto, tensorrt, cuda, openvino or cpu")
    parser.add_argument("--precision", metavar="P", help="of the bundle (default: the backend's best)")
    parser.add_argument("--every", type=int, default=5, metavar="N", help="the reference is every N-th picture")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="timed passes over each clip")
    add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    from mma_benchmarks.faces.measure import FacesOptions, measure_faces

    options = FacesOptions(tuple(args.source), args.backend, args.precision, args.every, args.repeat)
    folder = results_folder(args.output)
    return finish(measure_faces(args.bundle, options, args.typed, step_lines(console)), folder, console)
