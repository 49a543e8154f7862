"""Figures that stand for many measurements: percentiles of durations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PERCENTILES = (5, 25, 50, 75, 95, 99)


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
