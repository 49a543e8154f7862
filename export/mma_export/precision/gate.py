"""The gate: how far a graph is from the float32 one on real clips, and whether that is near enough to ship."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mma_edge.engines.agreement import agreement
from mma_edge.precisions import MIN_TOP1_AGREEMENT
from mma_export.precision.clips import RealClips

MAX_UAR_LOSS = {"int8": 0.005}
"""Largest allowed loss, as a share, where the clips have labels."""
MIN_LABELLED = 200
"""With fewer clips a single one weighs more than the allowed loss of UAR, so the loss is reported and not judged."""


@dataclass(frozen=True)
class Comparison:
    """Figures of the gate, as the manifest keeps them.

    Attributes:
        clips, origin: how many, and of what.
        max_abs_logit_difference, mean_abs_logit_difference: against the float32 graph.
        min_cosine: smallest cosine between the logits of a clip.
        top1_agreement: share of the clips with the same answer.
        uar_loss: float32's UAR minus this graph's, or None without labels.
    """

    clips: int
    origin: str
    max_abs_logit_difference: float
    mean_abs_logit_difference: float
    min_cosine: float
    top1_agreement: float
    uar_loss: float | None

    def problem(self, precision: str) -> str | None:
        """Which limit is not met, in words; None when all are met. NaN meets none."""
        least = MIN_TOP1_AGREEMENT.get(precision, 1.0)
        if not self.top1_agreement >= least:
            return f"top-1 agreement {self.top1_agreement:.1%} on {self.clips} clips, at least {least:.1%} is asked"
        most = MAX_UAR_LOSS.get(precision)
        judged = most is not None and self.uar_loss is not None and self.clips >= MIN_LABELLED
        if judged and not self.uar_loss <= most:
            return f"UAR falls by {100 * self.uar_loss:.2f} points, at most {100 * most:.2f} is allowed"
        return None


def compare(reference: np.ndarray, logits: np.ndarray, clips: RealClips) -> Comparison:
    """Logits (N, C) of a graph beside those of the float32 graph on the same clips."""
    found, loss = agreement(reference, logits), None
    if clips.labels is not None:
        loss = _uar(reference, clips.labels) - _uar(logits, clips.labels)
    return Comparison(
        clips=found.clips,
        origin=clips.origin,
        max_abs_logit_difference=found.max_difference,
        mean_abs_logit_difference=found.mean_difference,
        min_cosine=found.min_cosine,
        top1_agreement=found.top1,
        uar_loss=loss,
    )


def _uar(logits: np.ndarray, labels: np.ndarray) -> float:
    right = logits.argmax(axis=1) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))
