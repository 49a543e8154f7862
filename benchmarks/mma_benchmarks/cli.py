"""mma-bench: how fast and how right a bundle is on this machine, and how fast a model is trained on it."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from rich.console import Console

from mma_edge.cli_support import HelpFormatter, run_cli
from mma_edge.errors import UsageError

EXAMPLES = """\
examples:
  how fast the default model is here, on the sample clip:
    mma-bench latency
  a bundle of yours on a clip of yours:
    mma-bench latency bundles/dfew --source clip.mp4 --repeat 10
  how often it is right, on FER2013 and RAVDESS:
    mma-bench accuracy --data data
  how fast the training loop is, and how much memory it takes:
    mma-bench training
  one page out of several results:
    mma-bench report results/*.json --output report.html
"""
LATENCY_EXAMPLES = """\
examples:
  mma-bench latency
  mma-bench latency bundles/dfew --source clip.mp4 --repeat 10 --warmup 2
  mma-bench latency bundles/dfew --backend cpu --precision fp32 --output results
"""
ACCURACY_EXAMPLES = """\
examples:
  mma-bench accuracy --data data
  mma-bench accuracy bundles/dfew --data data --set pseudo --limit 500

--data holds fer2013_val.npz and ravdess_speech/Actor_17 ... Actor_20. The set "pseudo" pairs faces with
voices of the same label; it is measured three times, the second and third time without sound and without faces.
"""
TRAINING_EXAMPLES = """\
examples:
  mma-bench training
  mma-bench training --settings plain bf16 bf16+checkpoint fp16+micro2 --device cuda
  mma-bench training --model nano --batch-size 32 --settings plain int8+micro4

A setting is "plain" (a loop without anything of mma-train's, in float32), or a precision of mma-train
(fp32, bf16, fp16, int8), optionally with +microN (--micro-batch N) and +checkpoint (--activation-checkpointing).
"""
REPORT_EXAMPLES = """\
examples:
  mma-bench report results/*.json --output report.html
  mma-bench report cpu.json jetson.json --output compare --overwrite

Writes the page twice, as .html and as .md, whichever of the two --output names.
"""
WHERE = "folder of the results (default: benchmarks/results if there, else results)"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("mma-bench", description=__doc__, epilog=EXAMPLES, formatter_class=HelpFormatter)
    parser.set_defaults(command=no_command)
    commands = parser.add_subparsers(metavar="COMMAND")

    def add(name: str, help_: str, epilog: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=help_, description=help_, epilog=epilog, formatter_class=HelpFormatter)

    latency_ = add("latency", "time every stage of the pipeline on a clip", LATENCY_EXAMPLES)
    _add_bundle(latency_)
    latency_.add_argument("--source", default="sample", metavar="sample|FILE", help="the clip")
    latency_.add_argument("--repeat", type=int, default=5, metavar="N", help="counted runs over the clip")
    latency_.add_argument("--warmup", type=int, default=1, metavar="N", help="runs before them that do not count")
    latency_.add_argument("--iterations", type=int, default=100, metavar="N", help="calls of predict alone")
    latency_.add_argument("--output", type=Path, metavar="DIR", help=WHERE)
    latency_.set_defaults(command=latency)

    accuracy_ = add("accuracy", "measure recall, calibration and confusion on labelled clips", ACCURACY_EXAMPLES)
    _add_bundle(accuracy_)
    accuracy_.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the public data")
    accuracy_.add_argument("--set", nargs="+", metavar="SET", help="some of faces, voices, pseudo (default: all three)")
    accuracy_.add_argument("--limit", type=int, metavar="N", help="clips per set, evenly spread (default: all)")
    accuracy_.add_argument("--batch", type=int, default=32, metavar="N", help="clips per call of the engine")
    accuracy_.add_argument("--output", type=Path, metavar="DIR", help=WHERE)
    accuracy_.set_defaults(command=accuracy)

    training_ = add("training", "measure speed and memory of training against a plain loop", TRAINING_EXAMPLES)
    training_.add_argument("--model", default="vit-b", metavar="vit-b|nano", help="architecture")
    training_.add_argument("--image-size", type=int, metavar="S", help="side of a face, pixels (default: vit-b 112)")
    training_.add_argument("--batch-size", type=int, default=8, metavar="N", help="clips per step of the optimiser")
    training_.add_argument("--steps", type=int, default=3, metavar="N", help="counted steps per setting and round")
    training_.add_argument("--warmup", type=int, default=1, metavar="N", help="steps before them that do not count")
    training_.add_argument("--rounds", type=int, default=2, metavar="N", help="fresh processes per setting, in turns")
    training_.add_argument(
        "--settings", nargs="+", default=[], metavar="SETTING", help="default: what suits the device"
    )
    training_.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    training_.add_argument("--threads", type=int, default=0, metavar="N", help="of the processor (0: PyTorch's choice)")
    training_.add_argument("--output", type=Path, metavar="DIR", help=WHERE)
    training_.set_defaults(command=training)

    report_ = add("report", "join result files into one page", REPORT_EXAMPLES)
    report_.add_argument("results", nargs="+", type=Path, metavar="FILE.json", help="written by the other commands")
    report_.add_argument("--output", type=Path, required=True, metavar="PAGE", help="the page, .html and .md")
    report_.add_argument("--overwrite", action="store_true", help="replace an existing page")
    report_.set_defaults(command=report)
    return parser


def _add_bundle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", nargs="?", metavar="BUNDLE", help="folder of a bundle (default: the embedded model)")
    parser.add_argument("--backend", default="auto", metavar="B", help="auto, tensorrt, cuda, openvino or cpu")
    parser.add_argument("--precision", metavar="P", help="one of the bundle's (default: the backend's best)")


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    typed = sys.argv[1:] if argv is None else argv
    parser = build_parser()
    parser.set_defaults(typed=shlex.join(["mma-bench", *typed]))
    return run_cli(parser, no_command, typed, extra="bench")


def no_command(args: argparse.Namespace, console: Console) -> int:
    console.print(build_parser().format_help(), markup=False, highlight=False)
    raise UsageError("no command was given", "latency, accuracy, training or report", "try: mma-bench latency")


def latency(args: argparse.Namespace, console: Console) -> int:
    from mma_benchmarks.latency import LatencyOptions, measure_latency
    from mma_benchmarks.latency_page import console_tables
    from mma_benchmarks.result import default_folder, make_folder

    _need_matplotlib()
    options = LatencyOptions(args.source, args.backend, args.precision, args.repeat, args.warmup, args.iterations)
    folder = args.output or default_folder()
    make_folder(folder)

    def advance(step: str) -> None:
        # A line, no spinner: its thread would take time from what is being measured.
        if console.is_terminal:
            console.print(f"[dim]{step}[/dim]")

    result = measure_latency(args.bundle, options, args.typed, advance)
    return _finish(result, folder, console_tables(result), console)


def accuracy(args: argparse.Namespace, console: Console) -> int:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    _need_matplotlib()
    from mma_benchmarks.accuracy import SETS, AccuracyOptions, measure_accuracy
    from mma_benchmarks.accuracy_page import caveats, console_tables
    from mma_benchmarks.result import default_folder, make_folder

    options = AccuracyOptions(args.data, tuple(args.set or SETS), args.limit, args.batch, args.backend, args.precision)
    folder = args.output or default_folder()
    make_folder(folder)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks: dict[str, int] = {}

        def advance(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total)
            progress.update(tasks[name], completed=done)

        result = measure_accuracy(args.bundle, options, args.typed, advance)
    for caveat in caveats(result):
        console.print(caveat.text, style="yellow" if caveat.note else "dim", markup=False, highlight=False)
    return _finish(result, folder, console_tables(result), console)


def training(args: argparse.Namespace, console: Console) -> int:
    from mma_benchmarks.result import default_folder, make_folder
    from mma_benchmarks.training import TrainingOptions, measure_training
    from mma_benchmarks.training_page import console_tables

    _need_matplotlib()
    names = ("model", "image_size", "batch_size", "steps", "warmup", "rounds", "device", "threads")
    options = TrainingOptions(**{name: getattr(args, name) for name in names}, settings=tuple(args.settings))
    folder = args.output or default_folder()
    make_folder(folder)

    def advance(step: str) -> None:
        if console.is_terminal:
            console.print(f"[dim]{step}[/dim]")

    result = measure_training(options, args.typed, advance)
    return _finish(result, folder, console_tables(result), console)


def report(args: argparse.Namespace, console: Console) -> int:
    from mma_benchmarks.report import KEY_TABLE, save_page
    from mma_benchmarks.result import make_folder, read_result
    from mma_trainer.page import to_rich

    _need_matplotlib()
    results = [read_result(path) for path in args.results]
    make_folder(args.output.parent)
    paths = save_page(results, args.output, args.overwrite)
    for kind, table in KEY_TABLE.items():
        if group := [result for result in results if result.kind == kind]:
            console.print(to_rich(table(group)))
    _print_paths(paths, console)
    return 0


def _finish(result, folder: Path, tables: list, console: Console) -> int:
    from mma_benchmarks.report import save
    from mma_trainer.page import to_rich

    paths = save(result, folder)
    for table in tables:
        console.print(to_rich(table))
    _print_paths(paths, console)
    return 0


def _print_paths(paths: list[Path], console: Console) -> None:
    console.print("written: " + "\n         ".join(map(str, paths)), soft_wrap=True, markup=False, highlight=False)


def _need_matplotlib() -> None:
    """Before the measurement: nobody wants to wait minutes and then hear that the page cannot be drawn."""
    import matplotlib  # noqa: F401
