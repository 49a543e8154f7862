"""mma-bench streaming: what --streaming saves, and what it costs."""

from __future__ import annotations

import argparse
import itertools

from rich.console import Console

from mma_benchmarks.commands.support import add_output, finish, results_folder, step_lines, unique

HELP = "measure what --streaming saves, and how near its answers are to those of the whole graph"
EXAMPLES = """\
examples:
  mma-bench streaming
  mma-bench streaming bundles/dfew --source talk.mp4 interview.mp4 --repeat 5
  mma-bench streaming bundles/nano --backend cpu openvino --precision fp32 int8

The bundle needs the graphs of mma-export --streaming. Clips need a face for longer than a window of 4 s.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", nargs="?", metavar="BUNDLE", help="folder of a bundle (default: the embedded model)")
    backends = "auto, tensorrt, cuda, openvino, cpu; one or more"
    parser.add_argument("--backend", nargs="+", default=["auto"], metavar="B", help=backends)
    parser.add_argument(
        "--precision", nargs="+", default=[], metavar="P", help="one or more (default: the best that has the graphs)"
    )
    parser.add_argument("--source", nargs="+", default=["sample"], metavar="FILE", help="clips, or sample")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="passes over each clip")
    add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    from mma_benchmarks.streaming.measure import StreamingOptions, measure_streaming

    engines = tuple(itertools.product(unique(args.backend), unique(args.precision) or (None,)))
    options = StreamingOptions(tuple(args.source), args.repeat, engines)
    folder = results_folder(args.output)
    return finish(measure_streaming(args.bundle, options, args.typed, step_lines(console)), folder, console)
