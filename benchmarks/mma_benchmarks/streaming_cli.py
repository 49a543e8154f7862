"""mma-bench streaming."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from mma_benchmarks.cli_output import finish, need_matplotlib
from mma_benchmarks.grid_cli import WHERE

STREAMING_HELP = "measure what --streaming saves, and how near its answers are to those of the whole graph"
STREAMING_EXAMPLES = """\
examples:
  mma-bench streaming
  mma-bench streaming bundles/dfew --source talk.mp4 interview.mp4 --repeat 5

The bundle needs the graphs of mma-export --streaming. Clips need a face for longer than a window of 4 s.
"""


def add_streaming(parser: argparse.ArgumentParser) -> None:
    """The options of `mma-bench streaming`, and what it calls."""
    parser.add_argument("bundle", nargs="?", metavar="BUNDLE", help="folder of a bundle (default: the embedded model)")
    parser.add_argument("--source", nargs="+", default=["sample"], metavar="FILE", help="clips, or sample")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="passes over each clip")
    parser.add_argument("--output", type=Path, metavar="DIR", help=WHERE)
    parser.set_defaults(command=streaming)


def streaming(args: argparse.Namespace, console: Console) -> int:
    from mma_benchmarks.result import default_folder, make_folder
    from mma_benchmarks.streaming import StreamingOptions, measure_streaming
    from mma_benchmarks.streaming_page import console_tables

    need_matplotlib()
    options = StreamingOptions(tuple(args.source), args.repeat)
    folder = args.output or default_folder()
    make_folder(folder)

    def advance(step: str) -> None:
        if console.is_terminal:
            console.print(f"[dim]{step}[/dim]")

    result = measure_streaming(args.bundle, options, args.typed, advance)
    return finish(result, folder, console_tables(result), console)
