"""How far one engine's answers are from another's: the figures that every gate judges by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Agreement:
    """Answers beside those of a reference on the same clips."""

    clips: int
    finite: bool  # False when an answer holds NaN or infinity; the differences and the cosine are then NaN
    max_difference: float  # of the values, absolute
    mean_difference: float
    min_cosine: float  # the smallest between the two answers to a clip
    top1: float  # share of the clips with the same class first; an answer that is not finite agrees with nothing


def agreement(reference: np.ndarray, values: np.ndarray, tie: float = 0.0) -> Agreement:
    """Compare values (N, C), logits or probabilities, with the reference's.

    A class whose reference value is at most `tie` below the reference's best may come first as well.
    """
    difference = np.abs(values - reference)
    finite = np.isfinite(values).all(axis=1)
    norms = np.linalg.norm(values, axis=1) * np.linalg.norm(reference, axis=1)
    cosine = (values * reference).sum(axis=1) / np.maximum(norms, 1e-12)
    chosen = np.take_along_axis(reference, values.argmax(axis=1)[:, None], axis=1)[:, 0]
    return Agreement(
        clips=len(reference),
        finite=bool(finite.all()),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        min_cosine=float(cosine.min()),
        top1=float((finite & (reference.max(axis=1) - chosen <= tie)).mean()),
    )
