"""mma-train --fold all: every fold in its own folder, each trained once, and what they give together."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from rich.console import Console

from mma_edge.commands.support import say
from mma_edge.errors import CheckpointError, DataError
from mma_trainer.commands.data_options import num_folds
from mma_trainer.commands.run_options import INCIDENTAL, job_args, open_device
from mma_trainer.data.lists import scan_list
from mma_trainer.data.protocols import find_fold
from mma_trainer.evaluation.metrics import Metrics, finite
from mma_trainer.evaluation.predict import answers_of
from mma_trainer.evaluation.sets.lists import list_set
from mma_trainer.report.folds import FoldSummary, print_summary, write_summary
from mma_trainer.training.processes import Processes
from mma_trainer.training.state import MODEL
from mma_trainer.training.sweeps.sweep import Job, Sweep
from mma_trainer.weights.checkpoint import read_checkpoint
from mma_trainer.weights.predictor import checkpoint_predictor

SCHEMA = 1

TrainFold = Callable[[argparse.Namespace, Console], Metrics]
TwoClips = Callable[[argparse.Namespace, Path], Metrics]


@dataclass(frozen=True, eq=False)
class FoldResult:
    """A finished fold: metrics of one clip per video, and of the mean of two (None: not measured yet)."""

    FILE: ClassVar[str] = "fold.json"
    fold: int
    labels: tuple[str, ...]
    one_clip: Metrics
    two_clips: Metrics | None
    options: dict

    def to_dict(self) -> dict:
        metrics = {"one_clip": self.one_clip, "two_clips": self.two_clips}
        plain = {key: m and {"confusion": m.confusion.tolist(), "loss": finite(m.loss)} for key, m in metrics.items()}
        return {"schema": SCHEMA, "fold": self.fold, "labels": list(self.labels), **plain, "options": self.options}

    @classmethod
    def read(cls, path: Path) -> FoldResult:
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
            return cls(int(found["fold"]), labels, one, two, dict(found["options"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            what = f"{path} cannot be used ({error})"
            raise DataError(what, "what --fold all wrote", "delete it to repeat the fold") from error

    @staticmethod
    def refusal(folder: Path, changed: dict) -> CheckpointError:
        return CheckpointError(
            f"{folder} was trained with another {', '.join(changed)}",
            "the same options as before",
            "repeat the first command with --resume, or start in another --run folder",
        )


def run_folds(
    args: argparse.Namespace, console: Console, train_fold: TrainFold, two_clips: TwoClips | None = None
) -> int:
    """Train every fold that is not finished in RUN/fold1, RUN/fold2 ..., then write the summary into RUN; exit code 0.

    Args:
        train_fold: trains one fold, leaves `model.pt` in its folder, returns the metrics of the last epoch. Under
            torchrun all processes call it; the first alone writes.
        two_clips: metrics of a fold's model with the mean of two clips per video (default: measured here).

    Raises:
        UsageError: the data set has no folds.
        CheckpointError: there are folds already and no --resume, or they were trained with other options.
    """
    # What a fold's result depends on, as plain values.
    values = {key: value for key, value in sorted(vars(args).items()) if key not in INCIDENTAL and not callable(value)}
    options = {k: v if isinstance(v, (int, float, bool, type(None))) else str(v) for k, v in values.items()}
    is_writer = Processes.from_environment().is_writer
    jobs = {fold: Job(args.run / f"fold{fold}", options) for fold in range(1, num_folds(args) + 1)}
    sweep = Sweep(FoldResult, jobs.values(), args.resume, is_writer)
    for fold, job in jobs.items():
        if sweep.is_finished(job):
            say(console, f"fold {fold}: finished before, in {job.folder}")
            continue
        console.rule(f"fold {fold} of {len(jobs)}")
        metrics, result = train_fold(job_args(args, job, fold), console), None
        if is_writer:
            labels = read_checkpoint(job.folder / MODEL).config.labels
            result = FoldResult(fold, labels, metrics, None, options)
        sweep.keep(job, result)
    if not is_writer:
        return 0
    for fold, job in jobs.items():
        if sweep.results[job.folder].two_clips is None:
            say(console, f"fold {fold}: two clips per video")
            measured = (two_clips or measure_two_clips)(job_args(args, job, fold), job.folder / MODEL)
            sweep.keep(job, replace(sweep.results[job.folder], two_clips=measured))
    results = [sweep.results[job.folder] for job in jobs.values()]
    if any(result.labels != results[0].labels for result in results):
        raise DataError(f"the folds in {args.run} have different classes", "the same in all", "train them again")
    metrics = [r.one_clip for r in results], [r.two_clips for r in results]
    summary = FoldSummary(args.dataset, results[0].labels, *metrics, options)
    print_summary(summary, console)
    say(console, f"summary in {', '.join(map(str, write_summary(summary, args.run)))}")
    return 0


def measure_two_clips(args: argparse.Namespace, model: Path) -> Metrics:
    """Mean probabilities of two uniformly sampled clips of every test video of a fold."""
    predictor = checkpoint_predictor(model, str(open_device(args.device)))
    fold = find_fold(args.dataset, args.fold, args.data, args.frames_root, args.audio_root)
    # What is bad was named, and left out or refused, before training.
    entries, _ = scan_list(fold.val_list, fold.frames_root, fold.audio_root, fold.labels)
    clips = list_set(fold.val_list.stem, fold.val_list.name, entries, predictor.image_size, views=2)
    return answers_of(predictor.predict, clips, len(predictor.labels)).metrics
