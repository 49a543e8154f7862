"""How every command of mma-bench ends: files written, tables shown, names told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from mma_benchmarks.result import Result


def finish(result: Result, folder: Path, tables: list, console: Console) -> int:
    """Write the result and its pages, show `tables`; the exit code."""
    from mma_benchmarks.report import save
    from mma_trainer.page import to_rich

    paths = save(result, folder)
    for table in tables:
        console.print(to_rich(table))
    print_paths(paths, console)
    return 0


def print_paths(paths: list[Path], console: Console) -> None:
    console.print("written: " + "\n         ".join(map(str, paths)), soft_wrap=True, markup=False, highlight=False)


def need_matplotlib() -> None:
    """Before the measurement: nobody wants to wait minutes and then hear that the page cannot be drawn."""
    import matplotlib  # noqa: F401
