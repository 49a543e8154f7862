"""mma-bench training: speed and memory of the training loop, setting by setting."""

from __future__ import annotations

import argparse
from dataclasses import fields

from rich.console import Console

from mma_benchmarks.commands.support import add_output, finish, results_folder, step_lines

HELP = "measure speed and memory of training against a plain loop"
EXAMPLES = """\
examples:
  mma-bench training
  mma-bench training --settings plain bf16 bf16+checkpoint fp16+micro2 --device cuda
  mma-bench training --model nano --batch-size 32 --settings plain int8+micro4

A setting is "plain" (a loop without anything of mma-train's, in float32), or a precision of mma-train
(fp32, bf16, fp16, int8), optionally with +microN (--micro-batch N) and +checkpoint (--activation-checkpointing).
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="vit-b", metavar="vit-b|nano", help="architecture")
    parser.add_argument("--image-size", type=int, metavar="S", help="side of a face, pixels (default: vit-b 112)")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N", help="clips per step of the optimiser")
    parser.add_argument("--steps", type=int, default=3, metavar="N", help="counted steps per setting and round")
    parser.add_argument("--warmup", type=int, default=1, metavar="N", help="steps before them that do not count")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="fresh processes per setting, in turns")
    parser.add_argument("--settings", nargs="+", default=[], metavar="SETTING", help="default: what suits the device")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda ...")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of the processor (0: PyTorch's choice)")
    add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    from mma_benchmarks.training.measure import TrainingOptions, measure_training

    chosen = {field.name: getattr(args, field.name) for field in fields(TrainingOptions)}
    options = TrainingOptions(**{**chosen, "settings": tuple(args.settings)})
    folder = results_folder(args.output)
    return finish(measure_training(options, args.typed, step_lines(console)), folder, console)
