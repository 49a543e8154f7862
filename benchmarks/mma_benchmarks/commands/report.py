"""mma-bench report: several results in one page."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from mma_benchmarks.commands.support import say_written
from mma_benchmarks.result import make_folder, read_result
from mma_trainer.report.page import to_rich

HELP = "join result files into one page"
EXAMPLES = """\
examples:
  mma-bench report results/*.json --output report.html
  mma-bench report cpu.json jetson.json --output compare --overwrite

Writes the page twice, as .html and as .md, whichever of the two --output names.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="+", type=Path, metavar="FILE.json", help="written by the other commands")
    parser.add_argument("--output", type=Path, required=True, metavar="PAGE", help="the page, .html and .md")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing page")


def run(args: argparse.Namespace, console: Console) -> int:
    from mma_benchmarks.report import key_tables, save_page

    results = [read_result(path) for path in args.results]
    make_folder(args.output.parent)
    paths = save_page(results, args.output, args.overwrite)
    for _, _, table in key_tables(results):
        console.print(to_rich(table))
    say_written(paths, console)
    return 0
