"""Commands of mma-bench: latency and accuracy, one combination in depth or a grid of them, and streaming; and how
every command ends: files written, tables shown, names told.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from mma_edge.errors import BackendError, UsageError

if TYPE_CHECKING:
    from mma_benchmarks.result import Result

WHERE = "folder of the results (default: benchmarks/results if there, else results)"
LATENCY_EXAMPLES = """\
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
ACCURACY_EXAMPLES = """\
examples:
  mma-bench accuracy --data data
  mma-bench accuracy bundles/dfew --data data --set pseudo --limit 500
  mma-bench accuracy bundles/dfew --data data --backend cpu openvino --precision fp32 int8

--data holds fer2013_val.npz and ravdess_speech/Actor_17 ... Actor_20. The set "pseudo" pairs faces with
voices of the same label; it is measured three times, the second and third time without sound and without faces.
More than one bundle, backend or precision makes a grid.
"""
PIPELINE_OPTIONS = {"source": "sample", "repeat": 5, "warmup": 1, "iterations": 100}
GRID_OPTIONS = {"rounds": 7, "turn": 1.0, "no_eager": False}


def add_latency(parser: argparse.ArgumentParser) -> None:
    _add_bundles(parser)
    one = parser.add_argument_group("one combination")
    one.add_argument("--source", metavar="sample|FILE", help="the clip")
    one.add_argument("--repeat", type=int, metavar="N", help="counted runs over the clip")
    one.add_argument("--warmup", type=int, metavar="N", help="runs before them that do not count")
    one.add_argument("--iterations", type=int, metavar="N", help="calls of predict alone")
    grid = parser.add_argument_group("a grid")
    grid.add_argument("--grid", action="store_true", help="measure as a grid even one combination")
    grid.add_argument("--batch", type=int, nargs="+", default=[1], metavar="N", help="clips per call")
    grid.add_argument("--model", metavar="vit-b|nano", help="random weights, exported for the occasion")
    grid.add_argument("--image-size", type=int, nargs="+", default=[], metavar="S", help="of --model, pixels")
    grid.add_argument("--checkpoint", type=Path, metavar="FILE", help="of the bundle, for PyTorch; or to be exported")
    grid.add_argument("--rounds", type=int, metavar="N", help="turns of each cell")
    grid.add_argument("--turn", type=float, metavar="SECONDS", help="how long a turn aims to take")
    grid.add_argument("--no-eager", action="store_true", help="leave out PyTorch; there are no ratios then")
    parser.add_argument("--output", type=Path, metavar="DIR", help=WHERE)
    parser.set_defaults(command=latency, **PIPELINE_OPTIONS, **GRID_OPTIONS)


def add_accuracy(parser: argparse.ArgumentParser) -> None:
    _add_bundles(parser)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the public data")
    parser.add_argument("--set", nargs="+", metavar="SET", help="some of faces, voices, pseudo (default: all three)")
    parser.add_argument("--limit", type=int, metavar="N", help="clips per set, evenly spread (default: all)")
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="clips per call of the engine")
    parser.add_argument("--output", type=Path, metavar="DIR", help=WHERE)
    parser.set_defaults(command=accuracy)


def _add_bundles(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "bundle", nargs="*", type=Path, metavar="BUNDLE", help="folders of bundles (default: the embedded model)"
    )
    parser.add_argument(
        "--backend", nargs="+", default=["auto"], metavar="B", help="auto, tensorrt, cuda, openvino, cpu; one or more"
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        default=[],
        metavar="P",
        help="of the bundle, one or more (default: its best; a grid: all)",
    )


def latency(args: argparse.Namespace, console: Console) -> int:
    from mma_benchmarks.result import default_folder, make_folder

    need_matplotlib()
    measure = _measure_grid if _is_latency_grid(args) else _measure_pipeline
    options = measure(args)  # wrong options should not have to wait
    folder = args.output or default_folder()
    make_folder(folder)

    def advance(step: str) -> None:
        # A line, no spinner: its thread would take time from what is being measured.
        if console.is_terminal:
            console.print(f"[dim]{step}[/dim]")

    result, tables = options(advance)
    return _finish_grid(result, folder, tables, console)


def _measure_pipeline(args: argparse.Namespace):
    from mma_benchmarks.latency.measure import LatencyOptions, measure_latency
    from mma_benchmarks.latency.page import console_tables

    _refuse_others(args, GRID_OPTIONS, "a grid", "add --grid")
    (backend,), precision = args.backend, next(iter(args.precision), None)
    options = LatencyOptions(args.source, backend, precision, args.repeat, args.warmup, args.iterations)

    def run(advance):
        result = measure_latency(next(iter(args.bundle), None), options, args.typed, advance)
        return result, console_tables(result)

    return run


def _measure_grid(args: argparse.Namespace):
    from mma_benchmarks.grid.options import GridOptions
    from mma_benchmarks.grid.page import console_tables

    _refuse_others(args, PIPELINE_OPTIONS, "one combination", "a grid has --rounds and --turn")
    options = GridOptions(
        bundles=tuple(args.bundle),
        model=args.model,
        image_sizes=tuple(args.image_size),
        checkpoint=args.checkpoint,
        backends=tuple(dict.fromkeys(args.backend)),
        precisions=tuple(dict.fromkeys(args.precision)),
        batches=tuple(dict.fromkeys(args.batch)),
        rounds=args.rounds,
        turn_s=args.turn,
        eager=not args.no_eager,
    )

    def run(advance):
        from mma_benchmarks.grid.measure import measure_grid

        result = measure_grid(options, args.typed, advance)
        return result, console_tables(result)

    return run


def _is_latency_grid(args: argparse.Namespace) -> bool:
    from mma_benchmarks.grid.runners import TORCH_RUNNERS

    several = any(len(values) > 1 for values in (args.bundle, args.backend, args.precision, args.batch))
    asked = args.grid or args.model or args.checkpoint or args.image_size or args.batch != [1]
    return bool(several or asked or args.backend[0] in TORCH_RUNNERS)


def _refuse_others(args: argparse.Namespace, defaults: dict, what: str, hint: str) -> None:
    """An option that does nothing is a misunderstanding."""
    for name, default in defaults.items():
        if getattr(args, name) != default:
            raise UsageError(f"--{name.replace('_', '-')} is for {what}", hint=hint)


def accuracy(args: argparse.Namespace, console: Console) -> int:
    need_matplotlib()
    from mma_benchmarks.accuracy.measure import SETS, AccuracyOptions
    from mma_benchmarks.result import default_folder, make_folder

    backend, precision = args.backend[0], next(iter(args.precision), None)
    options = AccuracyOptions(args.data, tuple(args.set or SETS), args.limit, args.batch, backend, precision)
    folder = args.output or default_folder()
    make_folder(folder)
    if any(len(values) > 1 for values in (args.bundle, args.backend, args.precision)):
        return _accuracy_grid(args, options, folder, console)
    return _accuracy_of_one(args, options, folder, console)


def _accuracy_grid(args: argparse.Namespace, options, folder: Path, console: Console) -> int:
    from mma_benchmarks.accuracy.grid import measure_accuracy_grid
    from mma_benchmarks.accuracy.grid_page import console_tables

    with console.status("") as status:
        result = measure_accuracy_grid(
            args.bundle or [None],
            list(dict.fromkeys(args.backend)),
            list(dict.fromkeys(args.precision)),
            options,
            args.typed,
            status.update,
        )
    return _finish_grid(result, folder, console_tables(result), console)


def _accuracy_of_one(args: argparse.Namespace, options, folder: Path, console: Console) -> int:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from mma_benchmarks.accuracy.measure import measure_accuracy
    from mma_benchmarks.accuracy.page import caveats, console_tables

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks: dict[str, int] = {}

        def advance(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total)
            progress.update(tasks[name], completed=done)

        result = measure_accuracy(next(iter(args.bundle), None), options, args.typed, advance)
    for caveat in caveats(result):
        console.print(caveat.text, style="yellow" if caveat.note else "dim", markup=False, highlight=False)
    return finish(result, folder, console_tables(result), console)


def _finish_grid(result, folder: Path, tables: list, console: Console) -> int:
    code = finish(result, folder, tables, console)
    refused = result.results.get("refused", ())
    if refused and not result.results["cells"]:
        # The rows are written all the same: they say what this machine lacks.
        raise BackendError(f"none of {len(refused)} combinations could run here ({refused[0]['why'][:200]})")
    return code


def finish(result: Result, folder: Path, tables: list, console: Console) -> int:
    """Write the result and its pages, show `tables`; the exit code."""
    from mma_benchmarks.report import save
    from mma_trainer.report.page import to_rich

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
    from mma_benchmarks.streaming.measure import StreamingOptions, measure_streaming
    from mma_benchmarks.streaming.page import console_tables

    need_matplotlib()
    options = StreamingOptions(tuple(args.source), args.repeat)
    folder = args.output or default_folder()
    make_folder(folder)

    def advance(step: str) -> None:
        if console.is_terminal:
            console.print(f"[dim]{step}[/dim]")

    result = measure_streaming(args.bundle, options, args.typed, advance)
    return finish(result, folder, console_tables(result), console)
