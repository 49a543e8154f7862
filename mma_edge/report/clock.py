"""A source's clock on the page's time line: from where it counts, and what to do where it jumps."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

BACK_S = 2.0
"""Answers about several faces may come out of order by less; a larger step back is a clock that was set."""
DAY_S = 86_400.0
"""No source is silent for so long: a larger step ahead is a clock that was set."""
AFTER_JUMP_S = 1.0
"""What comes after a jump is drawn so long after what came before."""


class Clock:
    """Presentation times of a source (seconds) as seconds of the page, which never run back and stay near 0."""

    def __init__(self, times_s: Sequence[float], origin_s: float, longest_step_s: float = DAY_S) -> None:
        """
        Args:
            times_s: ends of the source's records, in the order in which they were written.
            origin_s: what is 0 on the page.
            longest_step_s: a longer step ahead is a jump.
        """
        times = np.asarray(times_s, float)
        pieces, start, shift_s = [], 0, -origin_s
        while start < len(times):
            after = times[start:]
            steps = after[1:] - np.maximum.accumulate(after)[:-1]
            jumps = np.flatnonzero((steps < -BACK_S) | (steps > longest_step_s))
            stop = start + int(jumps[0]) + 1 if len(jumps) else len(times)
            piece = times[start:stop]
            pieces.append((start, float(piece.min()), float(piece.max()), shift_s))
            if stop < len(times):
                # The next piece begins a moment after this one has ended.
                shift_s += float(piece.max()) + AFTER_JUMP_S - float(times[stop])
            start = stop
        self._pieces = pieces or [(0, origin_s, origin_s, -origin_s)]  # (first record, lowest, highest, shift)

    @property
    def jumps_s(self) -> list[float]:
        """Where on the page the clock jumped."""
        return [highest + shift for _, _, highest, shift in self._pieces[:-1]]

    @property
    def steps_s(self) -> list[float]:
        """By how much it jumped each time, in seconds."""
        shifts = [shift for *_, shift in self._pieces]
        return [before - after + AFTER_JUMP_S for before, after in itertools.pairwise(shifts)]

    def of_record(self, number: int, time_s: float) -> float:
        """A time of the record with this number, in the order of `times_s`."""
        return time_s + next(shift for first, *_, shift in reversed(self._pieces) if number >= first)

    def of_time(self, time_s: float) -> float:
        """Any time of the source: that of the newest piece that has it, else of the nearest."""
        away = [max(lowest - time_s, time_s - highest, 0.0) for _, lowest, highest, _ in self._pieces]
        nearest = min(range(len(away)), key=lambda number: (away[number], -number))
        return time_s + self._pieces[nearest][3]
