"""Figures that stand for many measurements: percentiles of durations, calibration of probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PERCENTILES = (5, 25, 50, 75, 95, 99)
ECE_BINS = 15


def summarise(values: Sequence[float]) -> dict[str, float | int]:
    """Count, mean, extremes and percentiles, in the unit of the values.

    Percentiles interpolate linearly between the sorted values; p99 of fewer than 100 values
    therefore lies between the two largest.

    Returns:
        count, mean, min, p5, p25, p50, p75, p95, p99, max.
    """
    array = np.asarray(values, np.float64)
    summary: dict[str, float | int] = {"count": len(array), "mean": float(array.mean()), "min": float(array.min())}
    summary |= {f"p{rank}": float(np.percentile(array, rank)) for rank in PERCENTILES}
    summary["max"] = float(array.max())
    return summary


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = ECE_BINS) -> float:
    """How far the stated confidence is from the share of right answers: 0 is honest, 1 the worst.

    Answers are sorted by the probability of their most probable class into `bins` equal-width bins
    (lower < p <= upper); |accuracy - mean confidence| of each bin is averaged, weighted by its answers.

    Args:
        probabilities: (N, C), rows sum to 1.
        labels: (N,) true classes.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = [
        abs(right[which == index].mean() - confidence[which == index].mean()) * np.mean(which == index)
        for index in np.unique(which)
    ]
    return float(sum(gaps))
