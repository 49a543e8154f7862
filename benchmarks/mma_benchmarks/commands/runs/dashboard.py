"""mma-bench dashboard: what the page of a run costs it."""

from __future__ import annotations

import argparse

from rich.console import Console

from mma_benchmarks.commands.support import add_bundle, add_output, finish, results_folder, step_lines

HELP = "what the page of a live run costs, how old its pictures are, and whether viewers leave anything behind"
EXAMPLES = """\
examples:
  mma-bench dashboard
  mma-bench dashboard --minutes 30 --backend cpu

Chromium is the first viewer where it is installed (sudo apt-get install chromium); only then are flashes timed.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    add_bundle(parser)
    parser.add_argument("--seconds", type=float, default=30.0, metavar="S", help="without, and then with one viewer")
    parser.add_argument("--minutes", type=float, default=3.0, metavar="N", help="while viewers come and go")
    add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    from mma_benchmarks.dashboard.measure import DashboardOptions, measure_dashboard

    options = DashboardOptions(args.seconds, args.minutes, args.backend, args.precision)
    folder = results_folder(args.output)
    return finish(measure_dashboard(args.bundle, options, args.typed, step_lines(console)), folder, console)
