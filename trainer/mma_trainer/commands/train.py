"""mma-train: train MMA-DFER, or pre-train one of its encoders."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from importlib import import_module

import torch
from rich.console import Console

from mma_edge.commands.support import Parser, run_cli, say
from mma_edge.manual.completion import add_completion
from mma_trainer.commands import COMMANDS
from mma_trainer.commands.data_options import (
    ALL_FOLDS,
    RECIPES,
    add_data_options,
    make_task,
    people_on_sides,
    set_labels,
)
from mma_trainer.commands.folds import run_folds
from mma_trainer.commands.model_options import add_model_options, make_config, make_model
from mma_trainer.commands.run_options import EXECUTION, add_run_options, make_recipe, open_device
from mma_trainer.evaluation.metrics import Metrics
from mma_trainer.model.inputs import ContractModel
from mma_trainer.report.figures import plot_confusion
from mma_trainer.report.run import write_run_report
from mma_trainer.training.execution import Execution
from mma_trainer.training.loop import Run
from mma_trainer.training.precision import has_bf16
from mma_trainer.training.processes import Processes
from mma_trainer.training.recipe import Recipe
from mma_trainer.training.state import MODEL
from mma_trainer.weights.checkpoint import Checkpoint, build_model, save_checkpoint
from mma_trainer.weights.folding import fold_stems

EXAMPLES = """\
examples:
  the paper's protocol on one fold of DFEW, or on all five with their summary:
    mma-train --dataset dfew --fold 1   --data DFEW --run runs/dfew1 \\
        --image-encoder mae_face_pretrain_vit_base.pth --audio-encoder audiomae_pretrained.pth
    mma-train --dataset dfew --fold all --data DFEW --run runs/dfew ...
  annotation lists "<folder of frames> <number of frames> <class>" of your own:
    mma-train --train-list train.txt --val-list test.txt --frames-root FRAMES --audio-root WAVS ...
  your own videos, one folder per class, to a bundle in one command:
    mma-train tune VIDEOS --output bundles/mine
  or step by step: cut the faces, then train from a model that is there:
    mma-train prepare --classes VIDEOS --output PREPARED
    mma-train --dataset prepared --data PREPARED --init default --modality-dropout 0.25 --run runs/mine
  a row of the paper's tables, or a whole table:
    mma-train --set fusion=mult --set num_prompts=12 ...
    mma-train ablate --table fusion ...
  a small model "nano", in three steps (docs/training.md has more), and how it does on a corpus it never heard:
    mma-train --dataset faces  --model nano --data DATA --run runs/faces
    mma-train --dataset voices --model nano --data DATA --run runs/voices
    mma-train --dataset pseudo --model nano --data DATA --run runs/nano --half \\
        --image-encoder runs/faces/last.pt --audio-encoder runs/voices/last.pt
    mma-train leave-out --data DATA --run runs/leave-out
  two GPUs:
    torchrun --nproc-per-node 2 -m -- mma_trainer --dataset dfew --fold 1 ...
  go on after an interruption:
    repeat the command with --resume
"""


def run_parser() -> argparse.ArgumentParser:
    """The options of one run, which ablate and leave-out have as well."""
    parser = Parser("mma-train", description=__doc__, epilog=EXAMPLES)
    add_data_options(parser)
    add_model_options(parser)
    add_run_options(parser)
    return parser


def build_parser() -> argparse.ArgumentParser:
    parser = run_parser()
    add_completion(parser, lambda: {name: import_module(module).build_parser() for name, module in COMMANDS.items()})
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_cli(build_parser(), train, argv, extra="train")


def train(args: argparse.Namespace, console: Console) -> int:
    """One run, or one per fold; under torchrun this is one of several processes that share it."""
    if args.fold == ALL_FOLDS:
        return run_folds(args, console, train_one)
    train_one(args, console)
    return 0


def train_one(args: argparse.Namespace, console: Console) -> Metrics:
    """One run in its folder: `model.pt`, `report.html` and what `Run` writes."""
    processes = Processes.from_environment()
    console = processes.console(console)
    set_labels(args)
    device = open_device(args.device)
    recipe = make_recipe(args, RECIPES[args.dataset], device)
    config = make_config(args)
    torch.manual_seed(recipe.seed)
    model, config, origin = make_model(args, config)
    task = make_task(args, config, recipe)
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    batches = f"{task.num_batches} batches of {recipe.batch_size} per epoch"
    parameters = f"{trainable:,} trainable of {total:,} parameters"
    say(console, f"{args.dataset}: {parameters}, {batches}, {device}, {recipe.precision}")
    if note := bf16_note(args, recipe, device):
        say(console, note)
    people = people_on_sides(args, task)
    if people:
        say(console, ", ".join(f"{key}: {value}" for key, value in people.items()))
    if new := origin.get("new_classes"):
        say(console, f"learnt anew, because --init has no class of this name: {', '.join(new)}")
    provenance = {
        "command": "mma-train " + " ".join(sys.argv[1:]),
        "dataset": args.dataset,
        "recipe": dataclasses.asdict(recipe),
        **origin,
        "torch": str(torch.__version__),  # its own class would make the file unreadable by our safe loader
    }
    execution = Execution(**{name: getattr(args, name) for name in EXECUTION})
    run = Run(model, config, recipe, task, args.run, provenance, console, device, execution)
    metrics = run.fit(args.resume)
    if processes.is_writer:
        _finish(run, metrics, args.half, people)
    return metrics


def bf16_note(args: argparse.Namespace, recipe: Recipe, device: torch.device) -> str:
    """What a user should know of a device that does not compute bfloat16 by itself; "" where it does not matter."""
    if has_bf16(device):
        return ""
    if recipe.precision == "bf16":
        return f"bf16 on this {device.type} is computed in software, ten times slower than fp32: --precision fp32"
    if args.precision is None and RECIPES[args.dataset].precision == "bf16":
        return f"fp32 takes the place of the recipe's bf16, which this {device.type} computes in software only"
    return ""


def _finish(run: Run, metrics: Metrics, half: bool, people: Mapping[str, int | str]) -> None:
    """Write the result: a model without optimiser state, its confusion matrix and the page of the run."""
    run.provenance["val"] = {"uar": metrics.uar, "war": metrics.war, "clips": metrics.num_clips}
    plot_confusion(metrics, run.config.labels, run.folder / "confusion.png")
    if isinstance(run.model, ContractModel):
        released = Checkpoint(run.config, run.model.model.state_dict(), run.provenance)
        if half:
            released = fold_stems(released, str(run.folder))
        build_model(released, run.folder)  # what is written can be read
        save_checkpoint(run.folder / MODEL, released, half=half)
    clips = {
        "training clips per epoch": run.task.num_batches * run.recipe.batch_size,
        "validation clips": metrics.num_clips,
        **people,
    }
    page = write_run_report(run.folder, metrics, run.config.to_dict(), run.provenance, clips)
    figures = f"UAR {metrics.uar:.4f}  WAR {metrics.war:.4f}"
    say(run.console, f"{figures}  on {metrics.num_clips} clips; report in {page}")
