"""mma-bench speaking: of two faces, which one has the voice."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from mma_benchmarks.commands.support import add_output, finish, results_folder, step_lines

HELP = "measure how often the right one of two faces has the voice, on clips composed of yours"
EXAMPLES = """\
examples:
  mma-bench speaking --source data/av/javanese

--source takes clips in which one person is seen and heard, or folders of such clips, of at least two people. The part
of a file's name before the first dash or underscore says who it is. Each folder or file gets its own rows.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source", nargs="+", type=Path, required=True, metavar="FILE", help="clips, or folders of clips"
    )
    limit = "pieces of clips of each source that speak, evenly spread (default: all)"
    parser.add_argument("--limit", type=int, metavar="N", help=limit)
    add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    from mma_benchmarks.speaking.measure import SpeakingOptions, measure_speaking

    options, folder = SpeakingOptions(tuple(args.source), args.limit), results_folder(args.output)
    return finish(measure_speaking(options, args.typed, step_lines(console)), folder, console)
