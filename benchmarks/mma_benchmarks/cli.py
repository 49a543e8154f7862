"""mma-bench: how fast and how right a bundle is on this machine, and how fast a model is trained on it."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from rich.console import Console

from mma_benchmarks.options import (
    ACCURACY_EXAMPLES,
    LATENCY_EXAMPLES,
    STREAMING_EXAMPLES,
    STREAMING_HELP,
    WHERE,
    add_accuracy,
    add_latency,
    add_streaming,
    finish,
    need_matplotlib,
    print_paths,
)
from mma_edge.commands.support import HelpFormatter, run_cli
from mma_edge.errors import UsageError

EXAMPLES = """\
examples:
  how fast the default model is here, on the sample clip:
    mma-bench latency
  a bundle of yours on a clip of yours:
    mma-bench latency bundles/dfew --source clip.mp4 --repeat 10
  several engines side by side, against eager PyTorch:
    mma-bench latency --backend cpu openvino --precision fp32 int8 --batch 1 4
  how often it is right, on FER2013 and RAVDESS:
    mma-bench accuracy --data data
  how fast the training loop is, and how much memory it takes:
    mma-bench training
  what a stream saves that does not do everything again, and what it costs:
    mma-bench streaming
  one page out of several results:
    mma-bench report results/*.json --output report.html
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


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("mma-bench", description=__doc__, epilog=EXAMPLES, formatter_class=HelpFormatter)
    parser.set_defaults(command=no_command)
    commands = parser.add_subparsers(metavar="COMMAND")

    def add(name: str, help_: str, epilog: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=help_, description=help_, epilog=epilog, formatter_class=HelpFormatter)

    add_latency(add("latency", "time every stage of the pipeline on a clip, or a grid of engines", LATENCY_EXAMPLES))
    add_accuracy(add("accuracy", "measure recall, calibration and confusion on labelled clips", ACCURACY_EXAMPLES))

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

    add_streaming(add("streaming", STREAMING_HELP, STREAMING_EXAMPLES))

    report_ = add("report", "join result files into one page", REPORT_EXAMPLES)
    report_.add_argument("results", nargs="+", type=Path, metavar="FILE.json", help="written by the other commands")
    report_.add_argument("--output", type=Path, required=True, metavar="PAGE", help="the page, .html and .md")
    report_.add_argument("--overwrite", action="store_true", help="replace an existing page")
    report_.set_defaults(command=report)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    typed = sys.argv[1:] if argv is None else argv
    parser = build_parser()
    parser.set_defaults(typed=shlex.join(["mma-bench", *typed]))
    return run_cli(parser, no_command, typed, extra="bench")


def no_command(args: argparse.Namespace, console: Console) -> int:
    console.print(build_parser().format_help(), markup=False, highlight=False)
    expected = "latency, accuracy, training, streaming or report"
    raise UsageError("no command was given", expected, "try: mma-bench latency")


def training(args: argparse.Namespace, console: Console) -> int:
    from mma_benchmarks.result import default_folder, make_folder
    from mma_benchmarks.training.measure import TrainingOptions, measure_training
    from mma_benchmarks.training.page import console_tables

    need_matplotlib()
    names = ("model", "image_size", "batch_size", "steps", "warmup", "rounds", "device", "threads")
    options = TrainingOptions(**{name: getattr(args, name) for name in names}, settings=tuple(args.settings))
    folder = args.output or default_folder()
    make_folder(folder)

    def advance(step: str) -> None:
        if console.is_terminal:
            console.print(f"[dim]{step}[/dim]")

    result = measure_training(options, args.typed, advance)
    return finish(result, folder, console_tables(result), console)


def report(args: argparse.Namespace, console: Console) -> int:
    from mma_benchmarks.report import KEY_TABLE, save_page
    from mma_benchmarks.result import make_folder, read_result
    from mma_trainer.report.page import to_rich

    need_matplotlib()
    results = [read_result(path) for path in args.results]
    make_folder(args.output.parent)
    paths = save_page(results, args.output, args.overwrite)
    for kind, table in KEY_TABLE.items():
        if group := [result for result in results if result.kind == kind]:
            console.print(to_rich(table(group)))
    print_paths(paths, console)
    return 0
