"""mma-train --fold all: every fold in its own folder, none of them twice, and what they give together."""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from mma_edge.errors import CheckpointError, DataError, UsageError
from mma_edge.files import to_json, write_text
from mma_trainer.data.lists import scan_list
from mma_trainer.data.protocols import PROTOCOLS, describe, find_fold
from mma_trainer.evaluation.metrics import Metrics, finite
from mma_trainer.evaluation.predict import answers_of
from mma_trainer.evaluation.sets import list_set
from mma_trainer.report.folds import FoldSummary, print_summary, write_summary
from mma_trainer.training.loop import LAST
from mma_trainer.training.processes import Processes
from mma_trainer.weights.predictor import checkpoint_predictor

FINISHED = "fold.json"
MODEL = "model.pt"
SCHEMA = 1
# Options that change where or how fast a fold is trained, but not what comes out of it.
INCIDENTAL = frozenset(
    {"run", "resume", "fold", "device", "workers", "cache", "cache_gb", "save_every", "tensorboard", "deterministic"}
    | {"micro_batch", "activation_checkpointing", "model_given"}
)

TrainFold = Callable[[argparse.Namespace, Console], Metrics]
TwoClips = Callable[[argparse.Namespace, Path], Metrics]


@dataclass(frozen=True, eq=False)
class FoldResult:
    """A finished fold: metrics of one clip per video, and of the mean of two (None: not measured yet)."""

    fold: int
    labels: tuple[str, ...]
    one_clip: Metrics
    two_clips: Metrics | None
    options: dict

    def to_dict(self) -> dict:
        metrics = {"one_clip": self.one_clip, "two_clips": self.two_clips}
        plain = {key: m and {"confusion": m.confusion.tolist(), "loss": finite(m.loss)} for key, m in metrics.items()}
        return {"schema": SCHEMA, "fold": self.fold, "labels": list(self.labels), **plain, "options": self.options}


def read_fold(path: Path) -> FoldResult:
    """A `fold.json`; DataError for anything else."""
    try:
        found = json.loads(path.read_text())
        if found["schema"] != SCHEMA:
            raise ValueError(f"schema {found['schema']!r}")
        one, two = (
            found[key] and Metrics(np.array(found[key]["confusion"], int), found[key]["loss"] or float("nan"))
            for key in ("one_clip", "two_clips")
        )
        labels = tuple(found["labels"])
        if any(m is not None and m.confusion.shape != (len(labels),) * 2 for m in (one, two)) or one is None:
            raise ValueError("confusion and labels do not fit")
        return FoldResult(int(found["fold"]), labels, one, two, dict(found["options"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be used ({error})", "what --fold all wrote", "delete it to repeat the fold"
        ) from error


def run_folds(
    args: argparse.Namespace, console: Console, train_fold: TrainFold, two_clips: TwoClips | None = None
) -> int:
    """Train every fold that is not finished in RUN/fold1, RUN/fold2 ..., then write the summary into RUN.

    Args:
        args: of mma-train, `fold` being "all"; each fold gets a copy with its own number and folder.
        train_fold: trains one fold, leaves `model.pt` in its folder, returns the metrics of the last epoch. Under
            torchrun all processes call it; the first alone writes.
        two_clips: metrics of a fold's model with the mean of two clips per video (default: measured here).

    Returns:
        Exit code 0.

    Raises:
        UsageError: the data set has no folds. CheckpointError: there are folds already and no --resume, or they
        were trained with other options.
    """
    folds, options, is_first = range(1, num_folds(args) + 1), _options(args), Processes.from_environment().is_writer
    # Decided before any training, so that all processes of torchrun decide alike.
    pending = [fold for fold in folds if not _is_finished(args, fold, options)]
    for fold in folds:
        if fold not in pending:
            console.print(f"fold {fold}: finished before, in {_folder(args, fold)}", highlight=False, soft_wrap=True)
            continue
        console.rule(f"fold {fold} of {len(folds)}")
        fold_args = _fold_args(args, fold)
        metrics = train_fold(fold_args, console)
        if is_first:
            _write(_folder(args, fold), FoldResult(fold, _labels(fold_args), metrics, None, options))
    if not is_first:
        return 0
    results = []
    for fold in folds:
        result = read_fold(_folder(args, fold) / FINISHED)
        if result.two_clips is None:
            console.print(f"fold {fold}: two clips per video", highlight=False)
            measured = (two_clips or measure_two_clips)(_fold_args(args, fold), _folder(args, fold) / MODEL)
            result = FoldResult(fold, result.labels, result.one_clip, measured, options)
            _write(_folder(args, fold), result)
        results.append(result)
    if any(result.labels != results[0].labels for result in results):
        raise DataError(f"the folds in {args.run} have different classes", "the same in all", "train them again")
    summary = FoldSummary(
        args.dataset, results[0].labels, [r.one_clip for r in results], [r.two_clips for r in results], options
    )
    print_summary(summary, console)
    written = write_summary(summary, args.run)
    console.print(f"summary in {', '.join(str(path) for path in written)}", highlight=False, soft_wrap=True)
    return 0


def num_folds(args: argparse.Namespace) -> int:
    """Folds of the data set that was asked for."""
    if args.dataset in PROTOCOLS:
        return PROTOCOLS[args.dataset].folds
    if args.dataset == "prepared":
        if args.data is None:
            raise UsageError("--fold all with --dataset prepared and no --data", "--data DIR", "see mma-train --help")
        return describe(args.data)["folds"]
    raise UsageError(
        f"--fold all with --dataset {args.dataset}", f"{', '.join(PROTOCOLS)} or prepared", "name one fold"
    )


def measure_two_clips(args: argparse.Namespace, model: Path) -> Metrics:
    """Mean probabilities of two uniformly sampled clips of every test video of a fold."""
    from mma_trainer.commands.run_options import open_device

    predictor = checkpoint_predictor(model, str(open_device(args.device)))
    fold = find_fold(args.dataset, args.fold, args.data, args.frames_root, args.audio_root)
    # What is bad was named, and left out or refused, before training.
    entries, _ = scan_list(fold.val_list, fold.frames_root, fold.audio_root, fold.labels)
    clips = list_set(fold.val_list.stem, fold.val_list.name, entries, predictor.image_size, views=2)
    return answers_of(predictor.predict, clips, len(predictor.labels)).metrics


def _folder(args: argparse.Namespace, fold: int) -> Path:
    return args.run / f"fold{fold}"


def _fold_args(args: argparse.Namespace, fold: int) -> argparse.Namespace:
    own = copy.copy(args)
    own.fold, own.run = fold, _folder(args, fold)
    own.resume = (own.run / LAST).exists()
    return own


def _options(args: argparse.Namespace) -> dict:
    """What a fold's result depends on, as plain values."""
    values = {key: value for key, value in vars(args).items() if key not in INCIDENTAL and not callable(value)}
    return {key: v if isinstance(v, (int, float, bool, type(None))) else str(v) for key, v in sorted(values.items())}


def _is_finished(args: argparse.Namespace, fold: int, options: dict) -> bool:
    folder = _folder(args, fold)
    finished = (folder / FINISHED).exists()
    if not args.resume and (finished or (folder / LAST).exists()):
        raise CheckpointError(
            f"{folder} holds a run already", "an empty folder", "add --resume to go on, or choose another --run"
        )
    if finished and (before := read_fold(folder / FINISHED).options) != options:
        changed = sorted(key for key in {*before, *options} if before.get(key) != options.get(key))
        raise CheckpointError(
            f"{folder} was trained with another {', '.join(changed)}",
            "the same options as before",
            "repeat the first command with --resume, or start in another --run folder",
        )
    return finished


def _labels(args: argparse.Namespace) -> tuple[str, ...]:
    """Class names of a trained fold, as its model has them."""
    from mma_trainer.weights.checkpoint import read_checkpoint

    return read_checkpoint(args.run / MODEL).config.labels


def _write(folder: Path, result: FoldResult) -> None:
    write_text(folder / FINISHED, to_json(result.to_dict()))
