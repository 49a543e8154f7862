"""UAR and WAR, the two figures of the field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Metrics:
    """Counts of one evaluation."""

    confusion: np.ndarray  # int (C, C), rows are the true class, columns the predicted one
    loss: float = float("nan")  # mean cross-entropy in nats, NaN when only predictions are known

    @property
    def recall(self) -> np.ndarray:
        """Per-class recall (C,), NaN for a class without clips."""
        totals = self.confusion.sum(axis=1)
        return np.divide(np.diag(self.confusion), totals, out=np.full(len(totals), np.nan), where=totals > 0)

    @property
    def uar(self) -> float:
        """Unweighted average recall: mean of the per-class recall over the classes that occur."""
        recall = self.recall
        return float(recall[~np.isnan(recall)].mean()) if np.isfinite(recall).any() else float("nan")

    @property
    def war(self) -> float:
        """Weighted average recall: plain accuracy."""
        total = self.confusion.sum()
        return float(np.trace(self.confusion) / total) if total else float("nan")

    @property
    def num_clips(self) -> int:
        return int(self.confusion.sum())


def finite(value: float) -> float | None:
    """None for NaN, the recall of a class without clips: JSON has no NaN."""
    return float(value) if np.isfinite(value) else None


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts (C, C): rows true, columns predicted."""
    flat = np.asarray(labels) * num_classes + np.asarray(predictions)
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def metrics_of(labels: np.ndarray, logits: np.ndarray) -> Metrics:
    """Metrics of logits (N, C) against labels (N,)."""
    logits = np.asarray(logits, np.float64)
    return Metrics(confusion_matrix(labels, logits.argmax(axis=1), logits.shape[1]), cross_entropy(logits, labels))


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log softmax(logits) at the true class, in nats."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return float((np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]).mean())


Z_95 = 1.959964
BOOTSTRAP_DRAWS = 2000


def wilson_interval(right: float, total: float) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927): of accuracy, or of the recall of a class. (0, 1) without clips."""
    if not total:
        return 0.0, 1.0
    share, scale = right / total, 1 + Z_95**2 / total
    middle = (share + Z_95**2 / (2 * total)) / scale
    half = Z_95 / scale * np.sqrt(share * (1 - share) / total + Z_95**2 / (4 * total**2))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def war_interval(metrics: Metrics) -> tuple[float, float]:
    return wilson_interval(float(np.trace(metrics.confusion)), metrics.num_clips)


def recall_intervals(metrics: Metrics) -> list[tuple[float, float]]:
    """Wilson's, one per class."""
    pairs = zip(np.diag(metrics.confusion), metrics.confusion.sum(axis=1), strict=True)
    return [wilson_interval(float(right), float(total)) for right, total in pairs]


def uar_interval(metrics: Metrics) -> tuple[float, float]:
    """95 % bootstrap over the clips of each class (percentiles of 2,000 draws with a fixed seed).

    It takes the clips as independent; where the speakers are known, `group_intervals` does not.
    """
    totals = metrics.confusion.sum(axis=1)
    there = totals > 0
    if not there.any():
        return 0.0, 1.0
    # Drawing n clips of a class with replacement finds a binomial number of right ones.
    rng = np.random.default_rng(0)
    draws = rng.binomial(totals[there], metrics.recall[there], (BOOTSTRAP_DRAWS, int(there.sum()))) / totals[there]
    low, high = np.percentile(draws.mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def group_intervals(
    labels: np.ndarray, predictions: np.ndarray, groups: np.ndarray
) -> tuple[tuple[float, float], tuple[float, float]]:
    """95 % intervals of UAR and WAR by a bootstrap over whole groups, such as speakers (2,000 draws, fixed seed).

    The clips of one speaker succeed or fail together, so they say less than as many clips of many speakers. With four
    or five speakers the intervals are still too narrow. All arguments are (N,); at least two groups.
    """
    groups, owner = np.unique(groups, return_inverse=True)
    classes, label = np.unique(labels, return_inverse=True)
    totals, right = np.zeros((2, len(groups), len(classes)))
    np.add.at(totals, (owner, label), 1)
    np.add.at(right, (owner, label), np.asarray(predictions) == labels)
    draws = np.random.default_rng(0).multinomial(len(groups), np.full(len(groups), 1 / len(groups)), BOOTSTRAP_DRAWS)
    drawn, found = draws @ totals, draws @ right
    recall = np.divide(found, drawn, out=np.full(drawn.shape, np.nan), where=drawn > 0)
    uar, war = np.nanmean(recall, axis=1), found.sum(axis=1) / drawn.sum(axis=1)
    return tuple(tuple(map(float, np.percentile(values, [2.5, 97.5]))) for values in (uar, war))
