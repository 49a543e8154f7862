"""Options of mma-train that say how to train and where the run lies."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch

from mma_edge.errors import UsageError
from mma_trainer.recipe import Recipe


def add_run_options(parser: argparse.ArgumentParser) -> None:
    recipe = parser.add_argument_group("recipe (defaults: the paper's for lists, the default model's elsewhere)")
    for field in dataclasses.fields(Recipe):
        option = "--" + field.name.replace("_", "-")
        choices = ("fp32", "bf16") if field.name == "precision" else None
        kind = {"int": int, "float": float, "str": str}[field.type]
        recipe.add_argument(
            option,
            type=kind,
            choices=choices,
            metavar=None if choices else "X",
            help=argparse.SUPPRESS
            if field.name in ("clip_grad", "label_smoothing", "warmup_epochs")
            else f"paper: {field.default}",
        )
    run = parser.add_argument_group("run")
    run.add_argument("--run", type=Path, default=Path("runs/train"), metavar="DIR", help="folder of this run")
    run.add_argument("--resume", action="store_true", help="go on from DIR/last.pt")
    run.add_argument("--half", action="store_true", help="store the finished model.pt in float16")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")


def make_recipe(args: argparse.Namespace, default: Recipe) -> Recipe:
    """The default recipe of the dataset with what the command line changes."""
    given = {f.name: getattr(args, f.name) for f in dataclasses.fields(Recipe) if getattr(args, f.name) is not None}
    return dataclasses.replace(default, **given)


def open_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name} cannot be used", "auto, cpu or a CUDA device of this machine") from error
    return device
