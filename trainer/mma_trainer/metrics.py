"""UAR and WAR, the two figures of the field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Metrics:
    """Counts of one evaluation.

    Attributes:
        confusion: int (C, C), rows are the true class, columns the predicted one.
        loss: mean cross-entropy in nats, NaN when only predictions are known.
    """

    confusion: np.ndarray
    loss: float = float("nan")

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


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts (C, C): rows true, columns predicted."""
    flat = np.asarray(labels) * num_classes + np.asarray(predictions)
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def metrics_of(labels: np.ndarray, logits: np.ndarray) -> Metrics:
    """Metrics of logits (N, C) against labels (N,)."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_prob = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    loss = float(-log_prob[np.arange(len(labels)), labels].mean())
    return Metrics(confusion_matrix(labels, logits.argmax(axis=1), logits.shape[1]), loss)
