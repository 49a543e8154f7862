"""mma-train: train MMA-DFER, or pre-train one of its encoders."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import torch
from rich.console import Console

from mma_edge.cli_support import HelpFormatter, run_cli
from mma_edge.errors import UsageError
from mma_trainer.checkpoint import Checkpoint, build_model, read_checkpoint, save_checkpoint
from mma_trainer.data.public import load_faces, load_voices
from mma_trainer.data.tasks import FaceTask, PseudoPairTask, VoiceTask
from mma_trainer.labels import DFEW_LABELS
from mma_trainer.metrics import Metrics
from mma_trainer.model import NANO, MMADFERConfig
from mma_trainer.model.inputs import ContractModel
from mma_trainer.plots import plot_confusion
from mma_trainer.pretrain import EncoderClassifier, model_from_encoders
from mma_trainer.recipe import Recipe
from mma_trainer.train import Run, Task

MODELS = {"vit-b": MMADFERConfig(), "nano": NANO}

# What each dataset is trained with unless told otherwise. "lists" is the paper's protocol.
RECIPES = {
    "lists": Recipe(),
    "faces": Recipe(12, 64, 1e-3, 5e-2, warmup_epochs=1, clip_grad=1.0),
    "voices": Recipe(40, 16, 7e-4, 5e-2, warmup_epochs=2, clip_grad=1.0),
    "pseudo": Recipe(6, 32, 1e-3, 1e-2, clip_grad=1.0, modality_dropout=0.25),
}
PSEUDO_CLIPS_PER_EPOCH = 2048
VOICE_PATCH_DROPOUT = 0.5

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
    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset", choices=RECIPES, default="lists", help="lists: annotation lists in the authors' format"
    )
    data.add_argument("--data", type=Path, metavar="DIR", help="folder of fer2013_*.npz and ravdess_speech/")
    data.add_argument("--train-list", type=Path, metavar="FILE", help="annotation list to train on")
    data.add_argument("--val-list", type=Path, metavar="FILE", help="annotation list to report on")
    data.add_argument("--frames-root", type=Path, metavar="DIR", help="where the lists' frame folders lie")
    data.add_argument("--audio-root", type=Path, metavar="DIR", help="parallel tree of .wav files (none: all silent)")
    data.add_argument("--workers", type=int, default=2, metavar="N", help="loader processes for lists")
    model = parser.add_argument_group("model")
    model.add_argument("--model", choices=MODELS, default="vit-b", help="architecture")
    model.add_argument("--image-size", type=int, metavar="S", help="side of a face crop, e.g. 112, 160, 224")
    model.add_argument("--labels", metavar="A,B,...", help="class names in order (default: DFEW's seven)")
    model.add_argument("--init", type=Path, metavar="FILE", help="start from a checkpoint, ours or the authors'")
    model.add_argument("--image-encoder", type=Path, metavar="FILE", help="pre-trained with --dataset faces")
    model.add_argument("--audio-encoder", type=Path, metavar="FILE", help="pre-trained with --dataset voices")
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
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_cli(build_parser(), train, argv, extra="train")


def train(args: argparse.Namespace, console: Console) -> int:
    changes = {f.name: getattr(args, f.name) for f in dataclasses.fields(Recipe) if getattr(args, f.name) is not None}
    recipe = dataclasses.replace(RECIPES[args.dataset], **changes)
    config = _config(args)
    torch.manual_seed(recipe.seed)
    model, config, origin = _model(args, config)
    task = _task(args, config, recipe)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    device = _device(args.device)
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


def _config(args: argparse.Namespace) -> MMADFERConfig:
    config = MODELS[args.model]
    if args.image_size:
        config = config.replace(image_size=args.image_size)
    if args.labels:
        config = config.replace(labels=tuple(name.strip() for name in args.labels.split(",")))
    return config


def _model(args: argparse.Namespace, config: MMADFERConfig) -> tuple[torch.nn.Module, MMADFERConfig, dict]:
    """The model to train, its config, and where its first weights come from (for the provenance)."""
    if args.dataset in ("faces", "voices"):
        is_face = args.dataset == "faces"
        dropout = 0.0 if is_face else VOICE_PATCH_DROPOUT
        return EncoderClassifier(config, "image" if is_face else "audio", dropout), config, {}
    if args.init:
        start = read_checkpoint(args.init)
        return ContractModel(build_model(start, args.init)), start.config, {"init": start.provenance}
    if not (args.image_encoder and args.audio_encoder):
        raise UsageError(
            "no weights to start from",
            "--image-encoder and --audio-encoder, or --init",
            "MMA-DFER adapts two frozen pre-trained encoders; pre-train them with --dataset faces and --dataset voices",
        )
    encoders = [read_checkpoint(path) for path in (args.image_encoder, args.audio_encoder)]
    for path, encoder in zip((args.image_encoder, args.audio_encoder), encoders, strict=True):
        if encoder.config.replace(image_size=config.image_size, labels=config.labels) != config:
            raise UsageError(f"{path} was trained with another architecture", f"--model {args.model} as here")
    origin = {"image_encoder": encoders[0].provenance, "audio_encoder": encoders[1].provenance}
    return ContractModel(model_from_encoders(config, *encoders)), config, origin


def _task(args: argparse.Namespace, config: MMADFERConfig, recipe: Recipe) -> Task:
    if args.dataset == "lists":
        from mma_trainer.data.lists import ListTask

        if not (args.train_list and args.val_list):
            raise UsageError("no lists", "--train-list and --val-list", "see mma-train --help for the format")
        return ListTask(args.train_list, args.val_list, args.frames_root, args.audio_root, config, recipe, args.workers)
    if args.data is None:
        raise UsageError(f"--dataset {args.dataset} without --data", "--data DIR", "see mma-train --help")
    if config.labels[: len(DFEW_LABELS)] != DFEW_LABELS:
        raise UsageError(
            f"--labels {','.join(config.labels)} with --dataset {args.dataset}", f"{','.join(DFEW_LABELS)} first"
        )
    if args.dataset == "faces":
        faces = [load_faces(args.data, split) for split in ("train", "val")]
        return FaceTask(*faces, config.image_size, recipe.batch_size, recipe.seed, balance=0.75)
    voices = [load_voices(args.data, split) for split in ("train", "val")]
    if args.dataset == "voices":
        return VoiceTask(*voices, recipe.batch_size, recipe.seed, repeats=1)
    pairs = [(load_faces(args.data, split), part) for split, part in zip(("train", "val"), voices, strict=True)]
    return PseudoPairTask(
        *pairs, config.image_size, recipe.batch_size, recipe.seed, PSEUDO_CLIPS_PER_EPOCH, recipe.modality_dropout
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {name} cannot be used", "auto, cpu or a CUDA device of this machine") from error
    return device


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
