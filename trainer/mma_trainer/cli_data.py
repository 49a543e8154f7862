"""Options of mma-train that say what to train on, and the task they make."""

from __future__ import annotations

import argparse
from pathlib import Path

from mma_edge.errors import UsageError
from mma_trainer.data.public import load_faces, load_voices
from mma_trainer.data.tasks import FaceTask, PseudoPairTask, VoiceTask
from mma_trainer.labels import DFEW_LABELS
from mma_trainer.model import MMADFERConfig
from mma_trainer.recipe import Recipe
from mma_trainer.task import Task

# What each dataset is trained with unless told otherwise. "lists" is the paper's protocol.
RECIPES = {
    "lists": Recipe(),
    "faces": Recipe(12, 64, 1e-3, 5e-2, warmup_epochs=1, clip_grad=1.0),
    "voices": Recipe(40, 16, 7e-4, 5e-2, warmup_epochs=2, clip_grad=1.0),
    "pseudo": Recipe(6, 32, 1e-3, 1e-2, clip_grad=1.0, modality_dropout=0.25),
}
PSEUDO_CLIPS_PER_EPOCH = 2048


def add_data_options(parser: argparse.ArgumentParser) -> None:
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


def make_task(args: argparse.Namespace, config: MMADFERConfig, recipe: Recipe) -> Task:
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
