"""What every command of the project shares: help layout, one-line errors, exit codes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from rich.console import Console

from mma_edge.errors import MMAEdgeError

EXIT_INTERRUPTED = 130
"""Shell convention for a program ended by Ctrl-C."""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the examples' line breaks; shows defaults unless they are None."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False):
            return action.help
        return super()._get_help_string(action)


def run_cli(
    parser: argparse.ArgumentParser,
    command: Callable[[argparse.Namespace, Console], int],
    argv: list[str] | None,
) -> int:
    """Parse, run, and turn every foreseen failure into one line on stderr and its exit code."""
    args = parser.parse_args(argv)
    console = Console()
    try:
        return getattr(args, "command", command)(args, console)
    except MMAEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) went away. Python would complain again while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
