"""The one loop that runs labelled clips through a model; a checkpoint and a bundle get the same inputs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

import mma_edge
from mma_edge.bundle.manifest import MODALITIES
from mma_edge.errors import DataError
from mma_edge.predictor import modalities
from mma_trainer.evaluation.metrics import Metrics, metrics_of
from mma_trainer.evaluation.sets.clips import BATCH, EvalSet

Predict = Callable[[np.ndarray | None, np.ndarray | None], np.ndarray]
"""(frames uint8 (N, 16, S, S, 3) or None, mel float32 (N, 512, 128) or None) -> probabilities (N, C)."""


class Predictor(NamedTuple):
    """A model ready to be evaluated; `temperatures` of MODALITIES are already in its probabilities."""

    predict: Predict
    labels: tuple[str, ...]
    image_size: int
    temperatures: dict[str, float]


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model said about every clip of a set."""

    labels: np.ndarray  # int64 (N,), true classes
    probabilities: np.ndarray  # float32 (N, C)
    available: np.ndarray  # int (N,), which modalities each clip had: an index into MODALITIES
    predict_s: float  # time spent inside the model

    @property
    def log_probabilities(self) -> np.ndarray:
        """float64 (N, C); a rounded-off zero may cost much, but not infinitely much."""
        return np.log(np.maximum(self.probabilities.astype(np.float64), np.finfo(np.float32).tiny))

    @property
    def metrics(self) -> Metrics:
        return metrics_of(self.labels, self.log_probabilities)


def answers_of(
    predict: Predict,
    clips: EvalSet,
    num_classes: int,
    batch: int = BATCH,
    progress: Callable[[int], None] = lambda done: None,
) -> Answers:
    """Run all clips of a set; `progress` is told the number of clips done, at the start and after each batch.

    DataError where a clip has a class that the model lacks.
    """
    if (last := int(clips.labels.max(initial=0))) >= num_classes:
        raise DataError(f"set {clips.name} has class {last}", f"classes below the model's {num_classes}")
    found, available, predict_s, done = [], [], 0.0, 0
    progress(0)
    for frames, mel, labels in clips.batches(batch):
        start = time.perf_counter()
        probabilities = predict(frames, mel)
        predict_s += time.perf_counter() - start
        found.append(probabilities.reshape(len(labels), clips.views, -1).mean(axis=1))
        available.append(_available(frames, mel)[:: clips.views])
        done += len(labels)
        progress(done)
    return Answers(clips.labels, np.concatenate(found), np.concatenate(available), predict_s)


def _available(frames: np.ndarray | None, mel: np.ndarray | None) -> np.ndarray:
    if frames is None or mel is None:
        return np.full(len(mel if frames is None else frames), MODALITIES.index("audio" if frames is None else "video"))
    return modalities(frames, mel)


def bundle_predictor(folder: Path | None, backend: str = "auto", precision: str | None = None) -> Predictor:
    """A bundle on the runtime's own `Recognizer.predict`; None is the embedded one."""
    recognizer = mma_edge.load(folder, backend, precision)
    return Predictor(recognizer.predict, recognizer.labels, recognizer.image_size, dict(recognizer.bundle.temperatures))
