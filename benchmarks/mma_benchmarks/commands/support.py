"""What the commands of mma-bench share: options, and how each begins and ends.

What measures and what draws is imported when a command runs: a missing package is then one line, not a traceback.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from mma_benchmarks.result import Result, default_folder, make_folder
from mma_benchmarks.schema import AccuracyGrid, Grid
from mma_edge.commands.support import say
from mma_edge.errors import BackendError
from mma_trainer.report.page import to_rich


def add_bundles(parser: argparse.ArgumentParser) -> None:
    """The options that more than one of each makes a grid of."""
    bundles = "folders of bundles (default: the embedded model)"
    parser.add_argument("bundle", nargs="*", type=Path, metavar="BUNDLE", help=bundles)
    backends = "auto, tensorrt, cuda, openvino, cpu; one or more"
    parser.add_argument("--backend", nargs="+", default=["auto"], metavar="B", help=backends)
    precisions = "of the bundle, one or more (default: its best; a grid: all)"
    parser.add_argument("--precision", nargs="+", default=[], metavar="P", help=precisions)


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """The one bundle that runs, and what it runs on."""
    bundle = "folder of the bundle that runs (default: the embedded model)"
    parser.add_argument("bundle", nargs="?", type=Path, metavar="BUNDLE", help=bundle)
    parser.add_argument("--backend", default="auto", metavar="B", help="auto, tensorrt, cuda, openvino or cpu")
    parser.add_argument("--precision", metavar="P", help="of the bundle (default: the backend's best)")


def add_output(parser: argparse.ArgumentParser) -> None:
    where = "folder of the results (default: benchmarks/results if there, else results)"
    parser.add_argument("--output", type=Path, metavar="DIR", help=where)


def unique(values: Sequence) -> tuple:
    return tuple(dict.fromkeys(values))


def results_folder(output: Path | None) -> Path:
    """Where the results go; refuses, before anything is measured, what would fail only when the page is written."""
    import matplotlib  # noqa: F401 - the page needs it

    folder = output or default_folder()
    make_folder(folder)
    return folder


def step_lines(console: Console) -> Callable[[str], None]:
    """Shows each step, where someone watches; as a line: a spinner's thread would take time from what is measured."""
    return lambda step: say(console, step, "dim") if console.is_terminal else None


def finish(result: Result, folder: Path, console: Console) -> int:
    """Write the result and its pages, show its tables; the exit code.

    Raises:
        BackendError: no cell of a grid could run. The rows are written all the same: they say what is missing here.
    """
    # Not before the measurement: matplotlib's figures would take memory of the process that is measured.
    from mma_benchmarks.report import KINDS, save

    paths = save(result, folder)
    for table in KINDS[result.kind].page.console_tables(result):
        console.print(to_rich(table))
    say_written(paths, console)
    if isinstance(found := result.results, (Grid, AccuracyGrid)) and found.refused and not found.cells:
        why = found.refused[0].why[:200]
        raise BackendError(f"none of {len(found.refused)} combinations could run here ({why})")
    return 0


def say_written(paths: list[Path], console: Console) -> None:
    say(console, "written: " + "\n         ".join(map(str, paths)))
