"""Who of several people speaks: the one whose mouth moves when the voice is loud.

For each face the motion of the mouth, divided by the root of that of the eyes (the whole head's), is correlated with
the level of the voice; picture and sound may be some frames apart. No network: it takes 1 ms for a face and window.
It needs a mouth that can be seen, from the front and large enough, and is misled by chewing and by laughing without a
sound. `mma-bench speaking` measures how often it is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from mma_edge.audio.logmel import FRAME_LENGTH_MS, FRAME_SHIFT_MS

MARGIN, LEAST = 0.3, 0.4
"""A face is the speaker if its share is at least LEAST and exceeds that of every other face by more than MARGIN."""
LAGS_S = (-0.08, 0.12)
"""The sound may be earlier or later than the picture by so much: clocks differ, and lips open before a sound."""
MIN_SPAN_S, MIN_RATE_HZ = 1.5, 8.0
"""Less than this of a face says nothing: a word or two fit any mouth."""
VOICE_BINS = slice(20, 100)
"""Mel bins that hold a voice and little hum or hiss: 0.2 to 4.6 kHz at 16 kHz, 0.3 to 9 kHz at 44.1 kHz."""
QUIET = 5.0
"""How far below its loud parts (95th percentile) the voice's level is cut, in natural logarithms of power: 22 dB. How
quiet a pause is has nothing to do with mouths."""
RESTING = 0.1
"""Motion that a still face has as well, as a standard deviation of what is compared: about 0.1 on still
stretches of real clips, 0.2 on speakers. What moves no more than this follows the voice by chance."""
STEP_S, SMOOTH_S = 0.02, 0.06
"""Grid on which both are compared, and the width (standard deviation) to which both are smoothed."""


class Motion(NamedTuple):
    """Difference to the frame before, in grey levels from 0 to 255, the head's shift taken out."""

    mouth: float  # root of the mean square
    eyes: float  # mean


Movements = Iterable[tuple[float, Motion]]
"""Presentation time and motion of one face, in order."""


def speaking_shares(faces: Mapping[int, Movements], mel: np.ndarray, start_s: float) -> dict[int, float | None]:
    """How well each face's mouth moves with the voice, from 0 (not at all) to 1, by track number.

    None where a face was seen too short or too seldom (MIN_SPAN_S, MIN_RATE_HZ), or there is too little sound. `mel` is
    a log-mel (512, 128), padded with zeros, whose first row begins at `start_s`, see `mma_edge.audio.log_mel`.
    """
    rows = mel[: np.flatnonzero(mel.any(axis=1)).max(initial=-1) + 1]
    if len(rows) * FRAME_SHIFT_MS < 1000 * MIN_SPAN_S:
        return dict.fromkeys(faces)
    level = rows[:, VOICE_BINS].mean(axis=1)
    level = np.maximum(level, np.percentile(level, 95) - QUIET)
    times_s = start_s + (FRAME_LENGTH_MS / 2 + FRAME_SHIFT_MS * np.arange(len(rows))) / 1000
    return {track: _share(list(movements), times_s, level) for track, movements in faces.items()}


def speaker_of(shares: Mapping[int, float | None], margin: float = MARGIN) -> int | None:
    """The face that speaks, None where that is not clear."""
    known = sorted((share, track) for track, share in shares.items() if share is not None)
    if len(known) < 2:
        return None
    (second, _), (best, track) = known[-2:]
    return track if best >= LEAST and best - second > margin else None


def _share(movements: list[tuple[float, Motion]], voice_s: np.ndarray, level: np.ndarray) -> float | None:
    """The highest correlation of a face with the voice over all lags, less for one that hardly moves."""
    times_s = np.array([time_s for time_s, _ in movements])
    if not len(times_s):
        return None
    first_s, last_s = max(times_s[0], voice_s[0] - LAGS_S[0]), min(times_s[-1], voice_s[-1] - LAGS_S[1])
    inside = np.count_nonzero((times_s >= first_s) & (times_s <= last_s))
    if last_s - first_s < MIN_SPAN_S or inside < MIN_RATE_HZ * (last_s - first_s):
        return None
    motion = np.log1p([(move.mouth, move.eyes) for _, move in movements])  # of one grey level more: the noise
    grid_s = np.arange(first_s, last_s, STEP_S)
    moving = _smoothed(np.interp(grid_s, times_s, motion[:, 0] - motion[:, 1] / 2))
    moving -= moving.mean()
    moving /= np.hypot(moving.std(), RESTING)
    heard = (
        _smoothed(np.interp(grid_s + lag_s, voice_s, level))
        for lag_s in np.arange(LAGS_S[0], LAGS_S[1] + STEP_S / 2, STEP_S)
    )
    return float(max(0.0, *((moving * (each - each.mean())).mean() / max(each.std(), 1e-9) for each in heard)))


def _smoothed(values: np.ndarray) -> np.ndarray:
    """(n,) on the grid, averaged with a bell of SMOOTH_S."""
    reach = round(3 * SMOOTH_S / STEP_S)
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) * STEP_S / SMOOTH_S) ** 2)
    return np.convolve(np.pad(values, reach, mode="edge"), bell / bell.sum(), "valid")
