"""Are stated probabilities honest: expected calibration error, temperature scaling, and when to keep silent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mma_trainer.evaluation.metrics import cross_entropy

ECE_BINS = 15
HONEST_DRAWS = 1000
# Range of the search. For a model that is never wrong the likelihood has no minimum: it gets the lowest.
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
TOLERANCE = 1e-6  # of log T
GOLDEN = (math.sqrt(5) - 1) / 2


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = ECE_BINS) -> float:
    """How far the stated confidence is from the share of right answers: 0 is honest, 1 the worst.

    Answers are sorted by the probability of their most probable class into `bins` equal-width bins
    (lower < p <= upper); |accuracy - mean confidence| of each bin is averaged, weighted by its answers
    (Guo et al. 2017). Shapes (N, C) and (N,).
    """
    return float(sum(abs(b.accuracy - b.confidence) * b.share for b in reliability(probabilities, labels, bins)))


def honest_error(probabilities: np.ndarray, bins: int = ECE_BINS) -> tuple[float, float]:
    """The expected calibration error that honest answers of these confidences would show: mean, and 95th percentile.

    Few clips in many bins never show 0: a bin of four answers at 60 % has two or three right ones, not 2.4. Right
    answers are drawn from the stated confidences (consistency resampling, Broecker and Smith 2007), always the same
    ones. An error below the second figure does not tell a model from an honest one. Shape (N, C).
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    which, rng = _bin_of(confidence, bins), np.random.default_rng(0)
    draws = ((rng.random(len(confidence)) < confidence) - confidence for _ in range(HONEST_DRAWS))
    errors = [np.abs(np.bincount(which, gaps)).sum() / len(confidence) for gaps in draws]
    return float(np.mean(errors)), float(np.quantile(errors, 0.95))


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability diagram: share of all answers, their mean confidence and accuracy."""

    share: float
    confidence: float
    accuracy: float


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = ECE_BINS) -> list[Bin]:
    """The bins of the expected calibration error that have answers."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    which = _bin_of(confidence, bins)
    members = [which == index for index in np.unique(which)]
    return [Bin(*(float(v.mean()) for v in (inside, confidence[inside], right[inside]))) for inside in members]


def _bin_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    """int (N,): bins of equal width, lower < p <= upper."""
    return np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)


def cooled(logits: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(logits / T), float64 (N, C)."""
    scaled = np.asarray(logits, np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean cross-entropy of softmax(logits / T) in nats."""
    return cross_entropy(np.asarray(logits, np.float64) / temperature, labels)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of least negative log-likelihood, by golden section over log T.

    The likelihood is convex in 1/T, so it has one minimum. Accuracy does not change: the order of the
    classes stays. Written by hand: nothing else here needs scipy, which has such a search.
    Shapes (N, C), or logarithms of probabilities, and (N,).
    """
    low, high = math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)

    def cost(log_temperature: float) -> float:
        return negative_log_likelihood(logits, labels, math.exp(log_temperature))

    while high - low > TOLERANCE:
        a, b = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        low, high = (low, b) if cost(a) <= cost(b) else (a, high)
    return math.exp((low + high) / 2)


def halves(count: int, groups: np.ndarray | None) -> np.ndarray:
    """bool (count,): the second half. Every other clip, or every other group, so that no speaker is in both."""
    if groups is None or len(np.unique(groups)) < 2:
        return np.arange(count) % 2 == 1
    _, place = np.unique(groups, return_inverse=True)
    return place % 2 == 1


def cross_fitted(logits: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """Probabilities (N, C) of each half of the clips by the temperature fitted on the other half.

    Fitting and measuring on the same clips would make a model look better than it is.
    """
    probabilities = np.zeros(np.shape(logits), np.float64)
    second = halves(len(labels), groups)
    for fitted in (second, ~second):
        if not fitted.any() or fitted.all():  # a single clip cannot be halved
            return cooled(logits, fit_temperature(logits, labels))
        probabilities[~fitted] = cooled(logits[~fitted], fit_temperature(logits[fitted], labels[fitted]))
    return probabilities


@dataclass(frozen=True)
class Calibration:
    """What temperature scaling does for one kind of clip; `_before`: as it was, `_after`: cross-fitted over halves."""

    source: str  # which clips
    num_clips: int
    temperature_before: float
    temperature: float  # as fitted on all clips
    ece_raw: float  # at temperature 1
    ece_before: float
    ece_after: float
    nll_before: float  # in nats
    nll_after: float


def calibrate(
    source: str, logits: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, temperature_before: float
) -> Calibration:
    """Fit and judge a temperature of logits (N, C) at temperature 1; `groups` as for `halves`."""
    after = cross_fitted(logits, labels, groups)
    right = np.maximum(after[np.arange(len(labels)), labels], np.finfo(np.float32).tiny)
    return Calibration(
        source=source,
        num_clips=len(labels),
        temperature_before=temperature_before,
        temperature=fit_temperature(logits, labels),
        ece_raw=expected_calibration_error(cooled(logits, 1.0), labels),
        ece_before=expected_calibration_error(cooled(logits, temperature_before), labels),
        ece_after=expected_calibration_error(after, labels),
        nll_before=negative_log_likelihood(logits, labels, temperature_before),
        nll_after=float(-np.log(right).mean()),
    )


@dataclass(frozen=True, eq=False)
class Abstention:
    """What is gained by answering only when confident (selective classification, Geifman and El-Yaniv 2017)."""

    thresholds: np.ndarray  # (M,) distinct confidences, descending; an answer is given at or above one
    coverage: np.ndarray  # (M,) share of the clips that get an answer
    accuracy: np.ndarray  # (M,) share of right answers among these; the risk is 1 - accuracy
    aurc: float  # area under the risk-coverage curve: the risk averaged over coverage; lower is better

    def at(self, threshold: float) -> tuple[float, float | None]:
        """(coverage, accuracy) when only answers with at least this confidence are given; None when there are none."""
        answered = int((self.thresholds >= threshold).sum())
        if not answered:
            return 0.0, None
        return float(self.coverage[answered - 1]), float(self.accuracy[answered - 1])

    def rows(self, thresholds: Sequence[float]) -> list[dict]:
        """`at` for each threshold, as plain values."""
        points = [(threshold, *self.at(threshold)) for threshold in thresholds]
        return [dict(zip(("threshold", "coverage", "accuracy"), point, strict=True)) for point in points]

    def curve(self) -> list[dict]:
        """At most 200 points of the curve, evenly over its thresholds: for a picture."""
        chosen = np.unique(np.linspace(0, len(self.thresholds) - 1, 200).round().astype(int))
        return self.rows(self.thresholds[chosen].tolist())


def abstention(probabilities: np.ndarray, labels: np.ndarray) -> Abstention:
    """The threshold curve of answers with probabilities (N, C) to clips of the classes (N,)."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    order = np.argsort(-confidence, kind="stable")
    confidence, right = confidence[order], right[order]
    # Clips of equal confidence are answered together or not at all.
    last = np.append(confidence[1:] != confidence[:-1], True)
    answered = np.flatnonzero(last) + 1
    accuracy = np.cumsum(right)[last] / answered
    aurc = float(((1 - accuracy) * np.diff(answered, prepend=0)).sum() / len(labels))
    return Abstention(confidence[last], answered / len(labels), accuracy, aurc)
