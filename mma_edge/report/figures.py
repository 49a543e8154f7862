"""The numbers of a report: how long, how often, from what to what. All from every answer, none from the drawing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mma_edge.report.series import BASES, Series


@dataclass(frozen=True)
class Dwell:
    """How long one state (a class, or "uncertain") was held."""

    label: str
    total_s: float
    times: int  # stretches of the same label without a gap
    mean_s: float  # of a stretch; 0 where there is none
    longest_s: float


@dataclass(frozen=True)
class Coverage:
    """For how much of a source's time, in seconds, there was at least one answer, and of which kind."""

    length_s: float
    answered_s: float
    face_s: float  # about a face that was seen
    voice_s: float  # with a voice in it
    both_s: float  # of face and voice together
    uncertain_s: float


@dataclass(frozen=True)
class Speaker:
    """A face among several: for how long it had the sound alone, and how well its mouth moved with the voice."""

    track_id: int
    seconds: float
    mean_speaking: float  # 0 to 1; NaN where it was never measured


def stretches(series: Series) -> list[tuple[int, float, float]]:
    """(index into `series.states`, from, to) of each stretch of one label without a gap, in order."""
    new = series.begins.copy()
    new[1:] |= series.chosen[1:] != series.chosen[:-1]
    firsts = np.flatnonzero(new)
    lasts = np.append(firsts[1:], len(new)) - 1
    return [
        (int(series.chosen[first]), float(series.held_from_s[first]), float(series.held_to_s[last]))
        for first, last in zip(firsts, lasts, strict=True)
    ]


def dwells(many: Sequence[Series]) -> list[Dwell]:
    """One for each state, of all these faces together, in the order of `Series.states`."""
    lengths: list[list[float]] = [[] for _ in many[0].states]
    for series in many:
        for state, from_s, to_s in stretches(series):
            lengths[state].append(to_s - from_s)
    return [
        Dwell(label, sum(each), len(each), sum(each) / len(each) if each else 0.0, max(each, default=0.0))
        for label, each in zip(many[0].states, lengths, strict=True)
    ]


def transitions(many: Sequence[Series]) -> np.ndarray:
    """int (C + 1, C + 1): how often a face's label changed from the row's state to the column's, from one answer to the
    next with no gap between them.
    """
    size = len(many[0].states)
    counts = np.zeros((size, size), int)
    for series in many:
        changes = np.flatnonzero((series.chosen[1:] != series.chosen[:-1]) & ~series.begins[1:])
        np.add.at(counts, (series.chosen[changes], series.chosen[changes + 1]), 1)
    return counts


def coverage(many: Sequence[Series], length_s: float) -> Coverage:
    """Of one source that lasted `length_s`; time with several faces counts once."""

    def seconds(choose) -> float:
        return union_s(series.intervals(choose(series)) for series in many)

    def resting(*names: str):
        wanted = [BASES.index(name) for name in names]
        return lambda series: np.isin(series.basis, wanted)

    def everything(series: Series) -> np.ndarray:
        return np.ones(len(series.end_s), bool)

    return Coverage(
        length_s=length_s,
        answered_s=seconds(everything),
        face_s=seconds(lambda series: everything(series) & (series.track_id is not None)),
        voice_s=seconds(resting("both", "voice")),
        both_s=seconds(resting("both")),
        uncertain_s=seconds(lambda series: series.chosen == len(series.labels)),
    )


def union_s(intervals: Iterable[np.ndarray]) -> float:
    """Total length of intervals (n, 2), where they overlap once."""
    given = [each for each in intervals if len(each)]
    if not given:
        return 0.0
    every = np.concatenate(given)
    every = every[np.argsort(every[:, 0], kind="stable")]
    # What is covered already when each one begins.
    covered = np.concatenate([[-np.inf], np.maximum.accumulate(every[:, 1])[:-1]])
    return float(np.maximum(every[:, 1] - np.maximum(every[:, 0], covered), 0.0).sum())


def speakers(many: Sequence[Series]) -> list[Speaker]:
    """The faces of a source that ever were one of several whose mouths were compared, those who spoke most first."""
    found = []
    for series in many:
        measured = series.speaking[~np.isnan(series.speaking)]
        if series.track_id is not None and (len(measured) or series.alone.any()):
            seconds = float(series.holds_s[series.alone].sum())
            mean = float(measured.mean()) if len(measured) else float("nan")
            found.append(Speaker(series.track_id, seconds, mean))
    return sorted(found, key=lambda speaker: -speaker.seconds)
