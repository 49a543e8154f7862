"""Fewer answers for the screen, none of the short ones hidden.

Of each column of the screen the two answers are drawn that are furthest apart, which in one dimension would be its
minimum and its maximum, and of every label that occurs in it the surest one: an average would hide a burst of half a
second, a random choice might. No answer is changed. assets/report/page.js does the same when the reader zooms.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from mma_edge.report.series import Series

FULL = 255
"""Probabilities are kept in a byte: 1 is FULL."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """A series as the page holds it: whole milliseconds from the start of its source, probabilities as bytes."""

    start_ms: np.ndarray  # int64 (N,) from when each answer stands
    end_ms: np.ndarray  # int64 (N,) up to when
    levels: np.ndarray  # uint8 (N, C), in the order in which they are stacked
    chosen: np.ndarray  # uint8 (N,) index into the stacked classes; C for "uncertain"
    basis: np.ndarray  # uint8 (N,)
    alone: np.ndarray  # bool (N,) this face alone of several had the sound
    begins: np.ndarray  # bool (N,) there is a gap, or nothing, before it

    def __getitem__(self, which: np.ndarray) -> Drawn:
        return Drawn(*(getattr(self, each.name)[which] for each in fields(self)))


def drawn(series: Series, order: list[int], from_s: float) -> Drawn:
    """A series for the page; `order` are the classes' indices from below."""
    places = np.argsort([*order, len(order)])  # of each class, and "uncertain", in the stack
    return Drawn(
        start_ms=np.round(1000 * (series.held_from_s - from_s)).astype(np.int64),
        end_ms=np.round(1000 * (series.held_to_s - from_s)).astype(np.int64),
        levels=np.round(FULL * np.clip(series.probabilities[:, order], 0, 1)).astype(np.uint8),
        chosen=places[series.chosen].astype(np.uint8),
        basis=series.basis.astype(np.uint8),
        alone=series.alone,
        begins=series.begins,
    )


def for_screen(data: Drawn, from_ms: int, span_ms: int, columns: int) -> np.ndarray:
    """Indices, in order, of the answers to draw where `span_ms` from `from_ms` on are `columns` wide.

    Each column keeps the answer furthest from its mean, the one furthest from that (sums of differences of the
    probabilities), and the surest one of each label; what is beside a gap is always kept.
    """
    column = (data.end_ms - from_ms) * columns // max(span_ms, 1)
    begins = data.begins
    kept = begins | np.append(begins[1:], True)
    firsts = np.flatnonzero(np.append(True, column[1:] != column[:-1]))
    lasts = np.append(firsts[1:], len(column))
    levels = data.levels.astype(np.int64)
    surest = levels.max(axis=1)
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        if last - first <= 2:
            kept[first:last] = True
            continue
        part = levels[first:last]
        one = int(np.abs(len(part) * part - part.sum(axis=0)).sum(axis=1).argmax())
        other = int(np.abs(part - part[one]).sum(axis=1).argmax())
        chosen = data.chosen[first:last]
        of_label = [int(np.where(chosen == label, surest[first:last], -1).argmax()) for label in set(chosen.tolist())]
        kept[[first + place for place in (one, other, *of_label)]] = True
    return np.flatnonzero(kept)
