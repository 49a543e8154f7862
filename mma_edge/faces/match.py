"""Which tracked face is which detected one: by place and by looks, best for all of them together."""

from __future__ import annotations

import cv2
import numpy as np

from mma_edge.types import Box, Picture

LOOKS_SIDE, LOOKS_BINS = 24, 16
"""Pixels of the small picture whose colours are counted, and bins for each of L, a and b."""
LOOKS_RANGES = ((0, 256), (112, 176), (104, 176))
"""Part of OpenCV's 8-bit L, a and b that the bins cover: that of skin, hair and scarves; the rest is in the last bin.

Measured on 60 pictures each of eleven heads, boxes shifted by up to 5 %: the looks of one person are 0.08 apart
(median; 95 % up to 0.25), of two people 0.44 (5 % below 0.19), and no picture was nearer to another person's. Of
thumbnails 5 to 8 % were: they change with each turn of the head."""
Looks = np.ndarray
"""float32 (48,) of length 1; the distance of two (Hellinger's) is from 0 to 1.41."""


def looks_of(image: Picture, box: Box) -> Looks | None:
    """The colours of a face, whatever its pose; None for a box outside the picture."""
    x0, y0, x1, y1 = (max(0, round(value)) for value in box)
    part = image[y0:y1, x0:x1]
    if part.size == 0:
        return None
    small = cv2.resize(np.ascontiguousarray(part), (LOOKS_SIDE, LOOKS_SIDE), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.int64)
    low, high = np.array(LOOKS_RANGES).T
    bins = ((lab - low) * LOOKS_BINS // (high - low)).clip(0, LOOKS_BINS - 1) + LOOKS_BINS * np.arange(3)
    counts = np.bincount(bins.ravel(), minlength=3 * LOOKS_BINS)
    # Roots of shares: their Euclidean distance is Hellinger's, which no large bin rules alone.
    return np.sqrt(counts / counts.sum()).astype(np.float32)


def nearness(place: np.ndarray, box: np.ndarray, reach: float = 1.0) -> float:
    """1 at the same place, 0 from a distance of `reach` face widths, or for twice or half the size; boxes (4,)."""
    side, other = (float(np.sqrt((b[2:] - b[:2]).clip(0).prod())) for b in (place, box))
    if not 0.5 < side / max(other, 1e-9) < 2.0:
        return 0.0
    distance = float(np.hypot(*((place[:2] + place[2:] - box[:2] - box[2:]) / 2)))
    return max(0.0, 1.0 - distance / (reach * max(side, other)))


def best_pairs(values: np.ndarray) -> list[tuple[int, int]]:
    """The pairs of rows and columns whose values, (n, m), have the greatest sum; values up to 0 are no pairs.

    Each row and each column is in one pair at most. Written out, because SciPy's `linear_sum_assignment` would be the
    only use of SciPy at run time. The method is Kuhn's (1955) with potentials and shortest augmenting paths.
    """
    rows, columns = values.shape
    # A row may also take a column of its own that costs nothing: to stay alone.
    costs = np.concatenate([-values.clip(min=0.0), np.zeros((rows, rows))], axis=1)
    width = columns + rows
    row_price, column_price = np.zeros(rows), np.zeros(width + 1)
    taken = np.full(width + 1, -1)  # row of each column; the last column is where each search begins
    for row in range(rows):
        taken[width], column = row, width
        shortest, before = np.full(width, np.inf), np.full(width, width)
        done = np.zeros(width + 1, bool)
        while taken[column] >= 0:
            done[column] = True
            own = taken[column]
            reduced = costs[own] - row_price[own] - column_price[:width]
            better = ~done[:width] & (reduced < shortest)
            shortest[better], before[better] = reduced[better], column
            nearest = int(np.where(done[:width], np.inf, shortest).argmin())
            step = shortest[nearest]
            row_price[taken[done]] += step
            column_price[done] -= step
            shortest[~done[:width]] -= step
            column = nearest
        while column != width:
            taken[column] = taken[before[column]]
            column = before[column]
        taken[width] = -1
    pairs = [(int(row), column) for column, row in enumerate(taken[:columns]) if row >= 0]
    return sorted((row, column) for row, column in pairs if values[row, column] > 0)
