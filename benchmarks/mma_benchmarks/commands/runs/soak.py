"""mma-bench soak: a live run for an hour, whose stream fails all the time."""

from __future__ import annotations

import argparse

from rich.console import Console

from mma_benchmarks.commands.support import add_bundle, add_output, finish, results_folder, step_lines

HELP = "run live at real pace while the stream fails once a minute; memory, threads, descriptors and age over time"
EXAMPLES = """\
examples:
  mma-bench soak --minutes 30
  mma-bench soak --minutes 60 --backend cpu

The stream is the sample clip in a loop, from GStreamer's RTSP server on 127.0.0.1. In turns its link is cut, its server
restarts with another picture size, its link is silent for 6 s, and its server is away for 6 s.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    add_bundle(parser)
    parser.add_argument("--minutes", type=float, default=30.0, metavar="N", help="how long")
    parser.add_argument("--every", type=float, default=60.0, metavar="S", help="seconds from one failure to the next")
    add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    from mma_benchmarks.soak.measure import SoakOptions, measure_soak

    options = SoakOptions(args.minutes, args.every, args.backend, args.precision)
    folder = results_folder(args.output)
    return finish(measure_soak(args.bundle, options, args.typed, step_lines(console)), folder, console)
