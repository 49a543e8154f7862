"""Shared by every command of the project: help layout, output, one-line errors, exit codes."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn

from mma_edge.errors import EXIT_INTERRUPTED, DependencyError, MMAEdgeError
from mma_edge.manual.parser import HelpFormatter, Parser

__all__ = ["EXIT_INTERRUPTED", "HelpFormatter", "Parser", "end_process", "missing_package", "report", "run_cli", "say"]


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print a line unchanged: without markup, coloured numbers, or breaks at the terminal's width."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def end_process(code: int) -> int:
    """The exit code, unless a thread is still inside a driver or a library: such a one may crash while the interpreter
    is taken down, so the process ends at once.
    """
    if any(thread.daemon for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def progress(console: Console, *columns: ProgressColumn | str) -> Progress:
    """A progress display with description, bar, count, `columns` and time; it disappears when its `with` block ends."""
    first = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    return Progress(*first, *columns, TimeElapsedColumn(), console=console, transient=True)


def report(error: MMAEdgeError) -> int:
    """Print the one line; returns the exit code."""
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def missing_package(error: ModuleNotFoundError, extra: str) -> DependencyError:
    """The error that says what to install; a missing module of our own is a bug and is raised again."""
    package = (error.name or "").partition(".")[0]
    if not package or package.startswith("mma_"):
        raise error
    return DependencyError(f"{package} is not installed", hint=f'pip install "mma-edge[{extra}]"')


def run_cli(
    parser: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace, Console], int],
    argv: list[str] | None,
    extra: str,
) -> int:
    """Parse, run, and turn every foreseen failure into one line on stderr and its exit code.

    `extra` is the distribution's extra that installs what this command needs.
    """
    args = parser.parse_args(argv)
    console = Console()
    try:
        return getattr(args, "command", command)(args, console)
    except MMAEdgeError as error:
        return report(error)
    except ModuleNotFoundError as error:
        return report(missing_package(error, extra))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has ended. Python would report it again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
