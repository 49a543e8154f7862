"""The gate: how far a graph is from the float32 one on real clips, and whether that is near enough to ship."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mma_edge.engines.agreement import agreement
from mma_edge.precisions import MIN_TOP1_AGREEMENT
from mma_export.precision.clips import RealClips

MAX_UAR_LOSS = {"int8": 0.005, "fp8": 0.005}
"""Largest allowed loss, as a share, where the clips have labels; one clip of the rarest class may be lost as well, for
on the next processor a clip that lies on the border falls to the other side."""


@dataclass(frozen=True)
class Comparison:
    """Figures of the gate, as the manifest keeps them.

    Attributes:
        clips, origin: how many, and of what.
        max_abs_logit_difference, mean_abs_logit_difference: against the float32 graph.
        min_cosine: smallest cosine between the logits of a clip.
        top1_agreement: share of the clips with the same answer.
        expected_agreement: the same as of `expected_agreement`.
        uar_loss: float32's UAR minus this graph's, or None without labels.
        uar_of_a_clip: what a clip of the rarest class counts in it, or None.
    """

    clips: int
    origin: str
    max_abs_logit_difference: float
    mean_abs_logit_difference: float
    min_cosine: float
    top1_agreement: float
    expected_agreement: float
    uar_loss: float | None
    uar_of_a_clip: float | None

    def problem(self, precision: str) -> str | None:
        """Which limit is not met, in words; None when all are met. NaN meets none."""
        least = MIN_TOP1_AGREEMENT.get(precision, 1.0)
        for name, share in (("top-1", self.top1_agreement), ("expected", self.expected_agreement)):
            if not share >= least:
                return f"{name} agreement {share:.1%} on {self.clips} clips, at least {least:.1%} is asked"
        if precision in MAX_UAR_LOSS and self.uar_loss is not None:
            most = MAX_UAR_LOSS[precision] + self.uar_of_a_clip
            if not self.uar_loss <= most:
                return f"UAR falls by {100 * self.uar_loss:.2f} points, at most {100 * most:.2f} is allowed"
        return None


def compare(reference: np.ndarray, logits: np.ndarray, clips: RealClips) -> Comparison:
    """Logits (N, C) of a graph beside those of the float32 graph on the same clips."""
    found, loss, of_a_clip = agreement(reference, logits), None, None
    if clips.labels is not None:
        loss = _uar(reference, clips.labels) - _uar(logits, clips.labels)
        counts = np.unique(clips.labels, return_counts=True)[1]
        of_a_clip = float(1 / (len(counts) * counts.min()))
    return Comparison(
        clips=found.clips,
        origin=clips.origin,
        max_abs_logit_difference=found.max_difference,
        mean_abs_logit_difference=found.mean_difference,
        min_cosine=found.min_cosine,
        top1_agreement=found.top1,
        expected_agreement=expected_agreement(reference, logits),
        uar_loss=loss,
        uar_of_a_clip=of_a_clip,
    )


def expected_agreement(reference: np.ndarray, logits: np.ndarray) -> float:
    """Share of the answers that stay where every error that was seen meets every margin that was seen.

    All pairs of clips count, not only the few on the border that decide `top1_agreement`: with 200 clips its standard
    error is a third of a count's. It takes errors and margins for independent, so it is asked beside the count.

    Args:
        reference, logits: (N, C), of float32 and of another graph.
    """
    chosen = reference.argmax(axis=1)
    margins = _lead(reference, chosen)
    errors = _lead(logits, chosen) - margins
    return float((margins[:, None] + errors > 0).mean())  # NaN agrees with nothing


def _lead(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """How far one class of each clip, (N,), is ahead of all others; negative where another one leads."""
    chosen = np.arange(logits.shape[1]) == classes[:, None]
    return logits[chosen] - np.where(chosen, -np.inf, logits).max(axis=1)


def _uar(logits: np.ndarray, labels: np.ndarray) -> float:
    right = logits.argmax(axis=1) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))
