"""mma-train: train MMA-DFER, or pre-train one of its encoders."""

from __future__ import annotations

import argparse
import dataclasses
import sys

import torch
from rich.console import Console

from mma_edge.cli_support import HelpFormatter, run_cli
from mma_trainer.checkpoint import Checkpoint, build_model, save_checkpoint
from mma_trainer.cli_data import RECIPES, add_data_options, make_task
from mma_trainer.cli_model import add_model_options, make_config, make_model
from mma_trainer.cli_run import add_run_options, make_recipe, open_device
from mma_trainer.metrics import Metrics
from mma_trainer.model.inputs import ContractModel
from mma_trainer.plots import plot_confusion
from mma_trainer.train import Run

EXAMPLES = """\
examples:
  the paper's protocol on annotation lists "<folder of frames> <number of frames> <class>":
    mma-train --train-list DFEW_set_1_train.txt --val-list DFEW_set_1_test.txt \\
        --frames-root DFEW/clip_224x224 --audio-root DFEW/raw_wav --run runs/dfew1
  the default model "nano", in three steps:
    mma-train --dataset faces  --model nano --data DATA --run runs/faces
    mma-train --dataset voices --model nano --data DATA --run runs/voices
    mma-train --dataset pseudo --model nano --data DATA --run runs/nano \\
        --image-encoder runs/faces/last.pt --audio-encoder runs/voices/last.pt
  go on after an interruption:
    repeat the command with --resume
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("mma-train", description=__doc__, epilog=EXAMPLES, formatter_class=HelpFormatter)
    add_data_options(parser)
    add_model_options(parser)
    add_run_options(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_cli(build_parser(), train, argv, extra="train")


def train(args: argparse.Namespace, console: Console) -> int:
    recipe = make_recipe(args, RECIPES[args.dataset])
    config = make_config(args)
    torch.manual_seed(recipe.seed)
    model, config, origin = make_model(args, config)
    task = make_task(args, config, recipe)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    device = open_device(args.device)
    console.print(
        f"{args.dataset}: {trainable:,} trainable of {sum(p.numel() for p in model.parameters()):,} parameters, "
        f"{task.num_batches} batches of {recipe.batch_size} per epoch, {device}, {recipe.precision}"
    )
    provenance = {
        "command": "mma-train " + " ".join(sys.argv[1:]),
        "dataset": args.dataset,
        "recipe": dataclasses.asdict(recipe),
        **origin,
        "torch": str(torch.__version__),  # its own class would make the file unreadable by our safe loader
    }
    run = Run(model, config, recipe, task, args.run, provenance, console, device)
    metrics = run.fit(args.resume)
    _finish(run, metrics, args)
    return 0


def _finish(run: Run, metrics: Metrics, args: argparse.Namespace) -> None:
    """Write the result: a model without optimiser state, and the confusion matrix."""
    run.provenance["val"] = {"uar": metrics.uar, "war": metrics.war, "clips": metrics.num_clips}
    plot_confusion(metrics, run.config.labels, run.folder / "confusion.png")
    if isinstance(run.model, ContractModel):
        released = Checkpoint(run.config, run.model.model.state_dict(), run.provenance)
        build_model(released, run.folder)  # what is written can be read
        save_checkpoint(run.folder / "model.pt", released, half=args.half)
    run.console.print(
        f"UAR {metrics.uar:.4f}  WAR {metrics.war:.4f}  on {metrics.num_clips} clips; results in {run.folder}"
    )
