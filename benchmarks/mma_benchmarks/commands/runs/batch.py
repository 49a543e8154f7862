"""mma-bench batch: how fast a corpus of files is done."""

from __future__ import annotations

import argparse

from rich.console import Console

from mma_benchmarks.commands.support import add_bundle, add_output, finish, results_folder, step_lines, unique

HELP = "time mma-edge batch on many files, with one worker and with several"
EXAMPLES = """\
examples:
  mma-bench batch
  mma-bench batch --files 100 --workers 1 2 4 8
  mma-bench batch bundles/dfew --source a.mp4 b.mp4 --backend cpu --precision int8

On a quiet machine: two workers are compared with one, and other work takes from the two first.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    add_bundle(parser)
    parser.add_argument("--source", nargs="+", default=["sample"], metavar="FILE", help="clips, or sample")
    parser.add_argument("--files", type=int, default=24, metavar="N", help="how many copies of them make the corpus")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2], metavar="N", help="numbers of workers")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="turns of each number of workers")
    add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    from mma_benchmarks.batch.measure import BatchBenchOptions, measure_batch

    own = (tuple(args.source), args.files, unique(args.workers), args.repeat, args.backend, args.precision)
    options, folder = BatchBenchOptions(*own), results_folder(args.output)
    return finish(measure_batch(args.bundle, options, args.typed, step_lines(console)), folder, console)
