"""How often a bundle is right, on the labelled public sets, with both modalities and with one of them gone."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

import mma_edge
from mma_benchmarks.latency.measure import bundle_facts
from mma_benchmarks.machine.facts import describe_machine
from mma_benchmarks.result import Result, utc_now
from mma_edge.errors import DataError, UsageError
from mma_edge.recognizer import Recognizer
from mma_trainer.evaluation.calibration import expected_calibration_error
from mma_trainer.evaluation.metrics import Metrics
from mma_trainer.evaluation.predict import collect
from mma_trainer.evaluation.sets import SETS, EvalSet, open_set
from mma_trainer.labels import DFEW_LABELS

Advance = Callable[[str, int, int], None]
"""Takes the name of the condition, clips done and clips in all."""


@dataclass(frozen=True)
class AccuracyOptions:
    """What to measure.

    Attributes:
        data: folder of the public data: fer2013_val.npz, ravdess_speech/.
        sets: some of SETS.
        limit: clips per set, evenly spread over it; None takes all.
        batch: clips per call of predict.
        backend, precision: as `mma_edge.load` takes them.
    """

    data: Path
    sets: tuple[str, ...] = SETS
    limit: int | None = None
    batch: int = 32
    backend: str = "auto"
    precision: str | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit {self.limit}", "at least 1", "leave it out to take every clip")
        if self.batch < 1:
            raise UsageError(f"--batch {self.batch}", "at least 1")
        if unknown := [name for name in self.sets if name not in SETS]:
            raise UsageError(f"set {unknown[0]!r}", f"one of {', '.join(SETS)}")
        if not self.data.is_dir():
            raise DataError(
                f"{self.data} is no folder", "a folder with fer2013_val.npz and ravdess_speech/", "give it with --data"
            )


def measure_accuracy(
    bundle: str | os.PathLike | None, options: AccuracyOptions, command: str, advance: Advance = lambda *step: None
) -> Result:
    """Run the benchmark.

    Args:
        bundle: folder of a bundle, None for the embedded default model.
        options: see `AccuracyOptions`.
        command: the command line, for the record.
        advance: told of every batch.

    Raises:
        MMAEdgeError: as `mma_edge.load` and the sets raise it; DataError where labels do not fit the bundle.
    """
    machine = describe_machine()
    recognizer = mma_edge.load(bundle, options.backend, options.precision)
    if recognizer.labels[: len(DFEW_LABELS)] != DFEW_LABELS:
        raise DataError(
            f"the bundle's classes are {', '.join(recognizer.labels)}",
            f"those of the sets first: {', '.join(DFEW_LABELS)}",
            "measure a bundle with DFEW's classes",
        )
    entries = []
    for name in dict.fromkeys(options.sets):
        whole = open_set(name, options.data, recognizer.image_size)
        chosen = whole if options.limit is None else whole.first(options.limit)
        for condition, clips in conditions_of(name, chosen):
            step = partial(_advance_clips, advance, clips.name, len(clips.labels))
            figures = evaluate(recognizer, clips, options.batch, step)
            description = clips.description
            if len(clips.labels) < len(whole.labels):
                description += f" ({len(clips.labels)} of {len(whole.labels)} clips, evenly spread)"
            entries.append({"set": name, "condition": condition, "description": description, **figures})
    settings = {"sets": list(dict.fromkeys(options.sets)), "limit": options.limit, "batch": options.batch}
    results = {"settings": settings, "conditions": entries}
    return Result("accuracy", utc_now(), command, machine, bundle_facts(recognizer), results)


def conditions_of(name: str, clips: EvalSet) -> list[tuple[str, EvalSet]]:
    """What the model gets to see and hear of a set: the modalities' names and the clips with these alone."""
    if name != "pseudo":
        return [("video only" if name == "faces" else "audio only", clips)]
    return [
        ("video and audio", clips),
        ("video only", clips.without("audio")),
        ("audio only", clips.without("video")),
    ]


def evaluate(
    recognizer: Recognizer, clips: EvalSet, batch: int, advance: Callable[[int], None] = lambda done: None
) -> dict:
    """The figures of one condition: an entry of `conditions`, less its names."""
    answers = collect(recognizer.predict, clips, len(recognizer.labels), batch, advance)
    metrics = answers.metrics
    return {
        "num_clips": metrics.num_clips,
        **_figures(metrics),
        "ece": expected_calibration_error(answers.probabilities, clips.labels),
        "confusion": metrics.confusion.tolist(),
        "predict_s": answers.predict_s,
    }


def _advance_clips(advance: Advance, name: str, total: int, done: int) -> None:
    advance(name, done, total)


def _figures(metrics: Metrics) -> dict:
    """NaN, the recall of a class without clips, has no place in JSON and becomes None."""
    single = {"uar": metrics.uar, "war": metrics.war, "loss": metrics.loss}
    figures = {key: None if np.isnan(value) else float(value) for key, value in single.items()}
    return {**figures, "recall": [None if np.isnan(value) else float(value) for value in metrics.recall]}
