"""mma-bench streaming: what --streaming saves, and what it costs."""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path

from rich.console import Console

from mma_benchmarks.commands.support import add_output, finish, results_folder, step_lines, unique
from mma_edge.errors import BackendError, UsageError

HELP = "measure what --streaming saves, and how near its answers are to those of the whole graph"
EXAMPLES = """\
examples:
  mma-bench streaming
  mma-bench streaming bundles/dfew --source talk.mp4 interview.mp4 --repeat 5
  mma-bench streaming bundles/nano --backend cpu openvino --precision fp32 int8
  mma-bench streaming --model vit-b --image-size 224 --backend openvino --precision int8 --hop 0.5 --repeat 1

The bundle needs the graphs of mma-export --streaming. Clips need a face for longer than a window of 4 s.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", nargs="?", metavar="BUNDLE", help="folder of a bundle (default: the embedded model)")
    backends = "auto, tensorrt, cuda, openvino, cpu; one or more"
    parser.add_argument("--backend", nargs="+", default=["auto"], metavar="B", help=backends)
    parser.add_argument(
        "--precision", nargs="+", default=[], metavar="P", help="one or more (default: the best that has the graphs)"
    )
    parser.add_argument("--model", metavar="vit-b|nano", help="random weights, exported for this run")
    parser.add_argument("--image-size", type=int, metavar="S", help="of --model, pixels (default: its own)")
    parser.add_argument("--source", nargs="+", default=["sample"], metavar="FILE", help="clips, or sample")
    hops = "seconds between two windows, multiples of 0.25; one or more (default: 0.25 0.5 1)"
    parser.add_argument("--hop", nargs="+", type=float, default=[], metavar="S", help=hops)
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="passes over each clip")
    add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    from mma_benchmarks.grid.subjects import subject_of_model
    from mma_benchmarks.streaming.measure import HOPS_S, StreamingOptions, measure_streaming

    engines = tuple(itertools.product(unique(args.backend), unique(args.precision) or (None,)))
    options = StreamingOptions(tuple(args.source), args.repeat, engines, unique(args.hop) or HOPS_S)
    if args.bundle and args.model:
        raise UsageError("a bundle and --model", "one of them")
    if args.image_size and not args.model:
        raise UsageError("--image-size without --model", hint="a bundle has its own")
    folder, advance = results_folder(args.output), step_lines(console)
    with tempfile.TemporaryDirectory() as work:
        bundle = args.bundle
        if args.model:
            precisions = ("fp32", *(name for name in unique(args.precision) if name != "fp32"))
            size = args.image_size
            made = subject_of_model(args.model, size, precisions, Path(work), advance, 0, "--streaming")
            if made.missing:
                raise BackendError(next(iter(made.missing.values())))
            bundle = made.any_bundle
        result = measure_streaming(bundle, options, args.typed, advance)
    return finish(result, folder, console)
