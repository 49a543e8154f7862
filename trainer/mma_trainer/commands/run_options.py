"""Options of mma-train that say how to train, on which device and in which folder."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch

from mma_edge.errors import UsageError
from mma_trainer.training.execution import Execution
from mma_trainer.training.precision import PRECISIONS, has_bf16
from mma_trainer.training.processes import Processes
from mma_trainer.training.recipe import OPTIMIZERS, Recipe
from mma_trainer.training.sweeps.sweep import Job

EXECUTION = tuple(field.name for field in dataclasses.fields(Execution))
INCIDENTAL = {"run", "resume", "fold", "device", "workers", "cache", "cache_gb", "model_given", *EXECUTION}
"""Options that change where or how fast a run is trained, but not its result."""
CHOICES = {"precision": PRECISIONS, "schedule": ("epoch", "step"), "optimizer": OPTIMIZERS}


def add_run_options(parser: argparse.ArgumentParser) -> None:
    recipe = parser.add_argument_group("recipe (defaults: the paper's for lists, the default model's elsewhere)")
    for field in dataclasses.fields(Recipe):
        option, choices = "--" + field.name.replace("_", "-"), CHOICES.get(field.name)
        kind = {"int": int, "float": float, "str": str}[field.type]
        hidden = field.name in ("clip_grad", "label_smoothing", "warmup_epochs")
        text = argparse.SUPPRESS if hidden else f"paper: {field.default}"
        recipe.add_argument(option, type=kind, choices=choices, metavar=None if choices else "X", help=text)
    run = parser.add_argument_group(
        "run",
        "in several processes, one per GPU, that share each batch: torchrun --nproc-per-node N -m -- mma_trainer ...",
    )
    run.add_argument("--run", type=Path, default=Path("runs/train"), metavar="DIR", help="folder of this run")
    run.add_argument("--resume", action="store_true", help="go on from DIR/last.pt")
    run.add_argument("--half", action="store_true", help="store the finished model.pt in float16, without batch norms")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    own = {"dest": "save_every_minutes", "help": "how often last.pt is written within an epoch"}
    run.add_argument("--save-every", type=float, default=10.0, metavar="MINUTES", **own)
    run.add_argument("--tensorboard", action="store_true", help="write event files to DIR/events")
    speed = parser.add_argument_group("speed and memory (the result stays the same)")
    speed.add_argument("--micro-batch", type=int, default=0, metavar="N", help="clips per forward pass; 0: the batch")
    speed.add_argument("--activation-checkpointing", action="store_true", help="less memory, more computing")
    speed.add_argument("--deterministic", action="store_true", help="only algorithms whose result is repeatable")


def make_recipe(args: argparse.Namespace, default: Recipe, device: torch.device) -> Recipe:
    """The default recipe of the dataset with what the command line changes; fp32 in place of a default bf16 that the
    device does not compute by itself."""
    given = {f.name: getattr(args, f.name) for f in dataclasses.fields(Recipe) if getattr(args, f.name) is not None}
    epochs = given.get("epochs", default.epochs)
    if "warmup_epochs" not in given and 0 < epochs <= default.warmup_epochs:
        given["warmup_epochs"] = epochs - 1  # the default warm-up is longer than this run
    if default.precision == "bf16" and not has_bf16(device):
        given.setdefault("precision", "fp32")
    return dataclasses.replace(default, **given)


def job_args(args: argparse.Namespace, job: Job, fold: int | str, **changes: object) -> argparse.Namespace:
    """The options of one run of a sweep; a run that was begun goes on."""
    return argparse.Namespace(**vars(args) | {"run": job.folder, "resume": job.is_begun, "fold": fold} | changes)


def open_device(name: str) -> torch.device:
    """The device of this process; under torchrun "auto" and "cuda" give each process of a machine its own GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    processes = Processes.from_environment()
    if name == "cuda" and processes.world > 1:
        name = f"cuda:{processes.local_rank}"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name} cannot be used", "auto, cpu or a CUDA device of this machine") from error
    return device
