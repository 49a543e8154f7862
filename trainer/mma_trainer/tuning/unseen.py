"""What tuning gives on clips that it was not trained on: cross-validation, before and after, and the temperatures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mma_edge.bundle.manifest import MODALITIES
from mma_trainer.evaluation.calibration import Calibration, calibrate, cross_fitted, expected_calibration_error
from mma_trainer.evaluation.figures import metric_figures
from mma_trainer.evaluation.metrics import Metrics, confusion_matrix, finite, metrics_of
from mma_trainer.training.recipe import Recipe
from mma_trainer.tuning.clips import TuningClips
from mma_trainer.tuning.features import Features
from mma_trainer.tuning.head import Head, answers, train_head
from mma_trainer.weights.start import known_rows

MIN_TEMPERATURE = 0.5
"""A few clips that were all answered rightly would make the model sure of everything."""


@dataclass(frozen=True, eq=False)
class Unseen:
    """Answers of models to the clips that each was not trained on. Logits are (N, C), by what the model got."""

    labels: np.ndarray  # int64 (N,)
    people: tuple[str | None, ...]  # of each clip
    has_sound: np.ndarray  # bool (N,)
    tested: np.ndarray  # bool (N,): the clips that some fold tests
    before: Mapping[str, np.ndarray]  # of the model that was started from; -inf where it does not know a class
    after: Mapping[str, np.ndarray]

    def rows(self, modality: str) -> np.ndarray:
        """bool (N,): the tested clips that have what is asked for."""
        return self.tested & (self.has_sound if modality != "video" else True)

    @property
    def groups(self) -> np.ndarray:
        """(N,) people; a clip of an unknown one is a group of its own."""
        return np.array([f"person {p}" if p else f"clip {index}" for index, p in enumerate(self.people)])


def answers_as(before: Sequence[str], now: Sequence[str], logits: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Logits of the classes `before` as those of the classes `now`: -inf for one that is new."""
    rows, found = known_rows(before, now), {}
    for name, old in logits.items():
        found[name] = np.full((len(old), len(now)), -np.inf, np.float32)
        found[name][:, list(rows)] = old[:, list(rows.values())]
    return found


def cross_validate(
    clips: TuningClips,
    features: Features,
    start: Head,
    recipe: Recipe,
    before: Mapping[str, np.ndarray],
    progress: Callable[[int], None] = lambda done: None,
) -> Unseen:
    """Train one head per fold and keep its answers to the clips that it has not seen; `progress` is told the folds."""
    after = {name: np.zeros_like(logits) for name, logits in before.items()}
    tested = np.zeros(len(clips.entries), bool)
    for done, (trained_on, tests) in enumerate(clips.folds, 1):
        found = answers(train_head(start, features, trained_on, recipe), features)
        for name, logits in after.items():
            logits[tests] = found[name][tests]
        tested[tests] = True
        progress(done)
    return Unseen(features.labels.numpy(), clips.people, features.has_sound, tested, before, after)


def temperatures(unseen: Unseen) -> dict[str, Calibration]:
    """A temperature for each of MODALITIES that enough tested clips have, fitted on answers to unseen clips."""
    found = {}
    for modality in MODALITIES:
        rows = unseen.rows(modality)
        if rows.sum() > 1:
            given = unseen.after[modality][rows], unseen.labels[rows], unseen.groups[rows]
            fit = calibrate("clips left out of the training", *given, 1.0)
            found[modality] = replace(fit, temperature=max(fit.temperature, MIN_TEMPERATURE))
    return found


def figures_of(unseen: Unseen, labels: Sequence[str]) -> dict:
    """Everything that is reported, as plain values: by modality, and by person where people are known."""
    return {
        "tested_clips": int(unseen.tested.sum()),
        "inputs": [_input(unseen, labels, name) for name in MODALITIES if unseen.rows(name).any()],
        "people": [_person(unseen, person) for person in sorted({p for p in unseen.people if p})],
    }


def _input(unseen: Unseen, labels: Sequence[str], modality: str) -> dict:
    rows = unseen.rows(modality)
    true, logits = unseen.labels[rows], unseen.after[modality][rows]
    probabilities = cross_fitted(logits, true, unseen.groups[rows])
    return {
        "input": modality,
        "uar_before": finite(_uar(unseen.before[modality][rows], true)),
        "ece": expected_calibration_error(probabilities, true),
        **metric_figures(metrics_of(true, logits), labels),
    }


def _person(unseen: Unseen, person: str) -> dict:
    """Of all that each clip has: face and voice, or the face of a silent one."""
    rows = np.array([p == person for p in unseen.people]) & unseen.tested
    true = unseen.labels[rows]
    found = {"uar_before": _uar(unseen.before["both"][rows], true), "uar": _uar(unseen.after["both"][rows], true)}
    return {"person": person, "num_clips": int(rows.sum()), **{key: finite(value) for key, value in found.items()}}


def _uar(logits: np.ndarray, labels: np.ndarray) -> float:
    """Unweighted average recall; NaN where no class is known."""
    if not np.isfinite(logits).any():
        return float("nan")
    return Metrics(confusion_matrix(labels, logits.argmax(axis=1), logits.shape[1])).uar
