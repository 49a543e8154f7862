"""mma-bench latency: one combination in depth, or a grid of them."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from mma_benchmarks.commands.support import add_bundles, add_output, finish, results_folder, step_lines, unique
from mma_edge.errors import UsageError

HELP = "time every stage of the pipeline on a clip, or a grid of engines"
EXAMPLES = """\
examples:
  one combination, every stage of the pipeline on a clip:
    mma-bench latency
    mma-bench latency bundles/dfew --source clip.mp4 --repeat 10 --warmup 2
  a grid, interleaved, against eager PyTorch and the machine's matrix product:
    mma-bench latency bundles/dfew --backend cpu openvino --precision fp32 bf16 int8 --batch 1 4
    mma-bench latency --model vit-b --image-size 112 160 224 --backend cpu openvino --precision fp32 int8
    mma-bench latency --checkpoint runs/dfew1/model.pt --backend auto eager-cuda compiled-cuda --precision fp32 fp16

More than one bundle, backend, precision or batch, or --model, --checkpoint or --grid, makes a grid. Backends of a
grid are those of mma-edge, and eager, eager-cuda, compiled and compiled-cuda: PyTorch on the processor or the GPU.
"""
PIPELINE_OPTIONS = {"source": "sample", "repeat": 5, "warmup": 1, "iterations": 100}
GRID_OPTIONS = {"rounds": 7, "turn": 1.0, "no_eager": False}


def add_options(parser: argparse.ArgumentParser) -> None:
    add_bundles(parser)
    one = parser.add_argument_group("one combination")
    one.add_argument("--source", metavar="sample|FILE", help="the clip")
    one.add_argument("--repeat", type=int, metavar="N", help="counted runs over the clip")
    one.add_argument("--warmup", type=int, metavar="N", help="runs before them that do not count")
    one.add_argument("--iterations", type=int, metavar="N", help="calls of predict alone")
    grid = parser.add_argument_group("a grid")
    grid.add_argument("--grid", action="store_true", help="measure as a grid even one combination")
    grid.add_argument("--batch", type=int, nargs="+", default=[1], metavar="N", help="clips per call")
    grid.add_argument("--model", metavar="vit-b|nano", help="random weights, exported for this run")
    grid.add_argument("--image-size", type=int, nargs="+", default=[], metavar="S", help="of --model, pixels")
    grid.add_argument("--checkpoint", type=Path, metavar="FILE", help="of the bundle, for PyTorch; or to be exported")
    grid.add_argument("--rounds", type=int, metavar="N", help="turns of each cell")
    grid.add_argument("--turn", type=float, metavar="SECONDS", help="how long a turn aims to take")
    grid.add_argument("--no-eager", action="store_true", help="leave out PyTorch; there are no ratios then")
    add_output(parser)
    parser.set_defaults(**PIPELINE_OPTIONS, **GRID_OPTIONS)


def run(args: argparse.Namespace, console: Console) -> int:
    return _run_grid(args, console) if is_grid(args) else _run_pipeline(args, console)


def is_grid(args: argparse.Namespace) -> bool:
    from mma_benchmarks.grid.runners import TORCH_RUNNERS

    several = any(len(values) > 1 for values in (args.bundle, args.backend, args.precision, args.batch))
    asked = args.grid or args.model or args.checkpoint or args.image_size or args.batch != [1]
    return bool(several or asked or args.backend[0] in TORCH_RUNNERS)


def _run_pipeline(args: argparse.Namespace, console: Console) -> int:
    from mma_benchmarks.latency.measure import LatencyOptions, measure_latency

    _refuse_others(args, GRID_OPTIONS, "a grid", "add --grid")
    (backend,), precision = args.backend, next(iter(args.precision), None)
    options = LatencyOptions(args.source, backend, precision, args.repeat, args.warmup, args.iterations)
    folder = results_folder(args.output)
    result = measure_latency(next(iter(args.bundle), None), options, args.typed, step_lines(console))
    return finish(result, folder, console)


def _run_grid(args: argparse.Namespace, console: Console) -> int:
    from mma_benchmarks.grid.measure import measure_grid
    from mma_benchmarks.grid.options import GridOptions

    _refuse_others(args, PIPELINE_OPTIONS, "one combination", "a grid has --rounds and --turn")
    options = GridOptions(
        bundles=tuple(args.bundle),
        model=args.model,
        image_sizes=tuple(args.image_size),
        checkpoint=args.checkpoint,
        backends=unique(args.backend),
        precisions=unique(args.precision),
        batches=unique(args.batch),
        rounds=args.rounds,
        turn_s=args.turn,
        eager=not args.no_eager,
    )
    folder = results_folder(args.output)
    return finish(measure_grid(options, args.typed, step_lines(console)), folder, console)


def _refuse_others(args: argparse.Namespace, defaults: dict, what: str, hint: str) -> None:
    """An option without effect is a misunderstanding."""
    for name, default in defaults.items():
        if getattr(args, name) != default:
            raise UsageError(f"--{name.replace('_', '-')} is for {what}", hint=hint)
