"""For which time an answer stands: the one rule of `mma-edge report`, `mma-edge convert` and `mma-edge annotate`.

Answers are about windows that overlap: of 4 s, every 0.5 s. So an answer stands for the time around the middle of its
window, half way to the middles of its neighbours. The first one of an unbroken run stands from the beginning of its
window, the last one up to the end of it. All times here are whole milliseconds, so that neighbours touch exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

REACH_HOPS = 2.5
"""Answers that end at most so many hops apart are of one run. One that a busy machine left out is two hops, and half a
hop more is the jitter of live times; two left out are a gap."""
ENOUGH_STEPS = 5
"""From one answer to the next, to know the usual one."""


def windows_ms(times_s: Sequence[tuple[float, float]]) -> np.ndarray:
    """int64 (N, 2): start and end of windows that are given in seconds."""
    return np.round(1000 * np.asarray(times_s, float).reshape(-1, 2)).astype(np.int64)


def hop_of(tracks: Iterable[np.ndarray], options: Mapping[str, Any] | None = None) -> int | None:
    """Milliseconds from one answer about a face to the next, as they usually were.

    Args:
        tracks: windows of each face of a source, and of the voice alone, each (N, 2) in order of their ends.
        options: those of the session: its `hop_s` counts where there are few answers.

    Returns:
        None where no face has two answers, as of whole files.
    """
    steps = np.concatenate([np.zeros(0, np.int64), *(np.diff(windows[:, 1]) for windows in tracks)])
    steps = steps[steps > 0]
    if not len(steps):
        return None
    hop_s = (options or {}).get("hop_s")
    known = isinstance(hop_s, (int, float)) and not isinstance(hop_s, bool) and 0.001 <= hop_s < 1e6  # NaN is not
    return round(1000 * hop_s) if known and len(steps) < ENOUGH_STEPS else max(1, round(float(np.median(steps))))


def spans_of(windows: np.ndarray, hop_ms: int | None) -> np.ndarray:
    """int64 (N, 2): from when and up to when each answer about one face, or of the voice alone, stands.

    A run begins no sooner than a hop before its first answer: the face, or the voice without one, was not there yet.

    Args:
        windows: (N, 2) in order of their ends.
        hop_ms: see `hop_of`; without one each answer stands for its window.
    """
    if hop_ms is None or not len(windows):
        return windows
    ends = windows[:, 1]
    begins = np.append(True, ~_joined(ends, hop_ms))
    came = (ends[begins] - hop_ms)[np.cumsum(begins) - 1]  # of each answer's run
    starts = np.minimum(np.maximum(windows[:, 0], came), ends)
    # Each middle at least a millisecond after the one before it, so that no span is empty.
    places = np.arange(len(ends))
    middles = np.maximum.accumulate((starts + ends) // 2 - places) + places
    borders = (middles[:-1] + middles[1:] + 1) // 2
    from_ms = np.where(begins, starts, np.append(starts[0], borders))
    to_ms = np.where(np.append(begins[1:], True), ends, np.append(borders, ends[-1]))
    return np.stack([from_ms, np.maximum(from_ms, to_ms)], axis=1)


def known_spans_of(windows: np.ndarray, hop_ms: int | None) -> np.ndarray:
    """Like `spans_of`, but as a live viewer saw it: an answer stands from its window's end up to the next one's, the
    last one of a run for a hop.
    """
    if hop_ms is None or not len(windows):
        return windows
    ends = windows[:, 1]
    to_ms = ends + hop_ms
    to_ms[:-1] = np.where(_joined(ends, hop_ms), ends[1:], to_ms[:-1])
    return np.stack([ends, to_ms], axis=1)


def _joined(ends: np.ndarray, hop_ms: int) -> np.ndarray:
    """bool (N - 1,): whether an answer and the next one are of one run."""
    return np.diff(ends) <= REACH_HOPS * hop_ms
