"""Measures how far sound and picture are apart, on the events that the clips are cut from.

The sure way is a film of flashes and beeps that begin together: a flash begins with one picture, and is over at once. A
clap will do: hands stop when it is heard, though where they stop is seen to a picture or two only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from mma_edge.sources.base import Event, Source
from mma_edge.types import AudioChunk

_CELLS = (32, 24)
"""Pictures are compared at this size (width, height); what moves or shines has at least some of its cells."""
_TOP_CELLS = 40
"""Their mean change says how much happened: a telephone's screen is a small part of the picture."""
_FLASH_LEVELS, _CLAP_LEVELS = 15.0, 8.0
"""Least change from one picture to the next, of 255 levels."""
_FLASH_MEDIANS = 5.0
"""And so many times what changes between most pictures: noise, or somebody who moves."""
_STRONG_PERCENT = 97
"""Of all pictures, those with claps are few: a motion that stops half as suddenly as the others is another one."""
_ONE_WAY = 5.0
"""A flash brightens so many times as much as it darkens, and its end the other way round. Motion does both alike."""
_FLASH_S, _CLAP_S = 0.5, 0.4
"""Longest flash, and shortest time from one clap to the next."""
_BIN_S = 0.001
_LAG_S = 0.00025
"""Sound is its difference over this time: it doubles voices, beeps and claps, and leaves little of a mains hum."""
_LOUD, _LOUD_MEDIANS = 0.01, 5.0
"""Least peak of a beep or clap: of full scale, and as many times that of most milliseconds."""
_PEAK_BINS, _RISE_BINS, _QUIET_BINS, _APART_BINS = 30, 10, 80, 300
"""It reaches its peak within 30 ms, half of it within 10, comes after 80 of quiet, and 300 after the one before it:
words begin more slowly."""
_BEGIN = 0.25
"""It begins where it reaches this share of its peak; a codec lets some sound through before it."""
LEAST_FLASHES, LEAST_CLAPS, ENOUGH_PAIRS = 3, 5, 10
_PATIENCE_S = 5.0
"""How much longer than its time limit a source is waited for that delivers nothing."""


@dataclass(frozen=True)
class Offset:
    """Sound minus picture, of flashes with their beeps or of claps; positive: the sound comes late."""

    kind: Literal["flash", "clap"]
    times_s: tuple[float, ...]  # of the pictures
    each_ms: tuple[float, ...]  # sound minus picture of each
    picture_ms: float  # from one picture to the next

    @property
    def median_ms(self) -> float:
        return float(np.median(self.each_ms))

    @property
    def quartiles_ms(self) -> tuple[float, float]:
        """Half of them lie between these."""
        low_ms, high_ms = np.percentile(self.each_ms, (25, 75))
        return float(low_ms), float(high_ms)

    @property
    def spread_ms(self) -> float:
        """Distance of the quartiles."""
        return self.quartiles_ms[1] - self.quartiles_ms[0]

    @property
    def uncertain_ms(self) -> float:
        """The median may be wrong by this. A flash begins between two pictures; a clap is seen to a picture or two."""
        return self.spread_ms / 2 + self.picture_ms * (0.5 if self.kind == "flash" else 1.5)


class Onsets:
    """What begins suddenly in a source's pictures and sound."""

    def __init__(self) -> None:
        self._small: np.ndarray | None = None
        self._tail = np.zeros(0, np.float32)  # the last samples
        # Of each picture: its time; how much its cells that changed most became brighter and darker; the same of all.
        self._changes: list[tuple[float, float, float, float, float]] = []
        self._bins: list[tuple[np.ndarray, np.ndarray]] = []  # times and peaks of milliseconds of sound

    def add(self, event: Event) -> None:
        """Take the source's next frame or sound."""
        if isinstance(event, AudioChunk):
            self._add_sound(event)
            return
        small = cv2.resize(event.image, _CELLS, interpolation=cv2.INTER_AREA).mean(axis=2)
        if self._small is not None:
            change = np.sort((small - self._small).ravel())
            up, down = change[-_TOP_CELLS:].clip(0).mean(), -change[:_TOP_CELLS].clip(max=0).mean()
            self._changes.append((event.time_s, up, down, change.clip(0).sum(), -change.clip(max=0).sum()))
        self._small = small

    def _add_sound(self, chunk: AudioChunk) -> None:
        rate_hz, samples = chunk.sample_rate_hz, chunk.samples[0]
        lag = max(1, round(_LAG_S * rate_hz))
        if not len(samples):
            return
        joined = np.concatenate([self._tail if len(self._tail) == lag else np.zeros(lag, np.float32), samples])
        self._tail = joined[-lag:]
        first = np.arange(0, len(samples), max(1, round(_BIN_S * rate_hz)))
        peaks = np.maximum.reduceat(np.abs(joined[lag:] - joined[:-lag]), first)
        self._bins.append((chunk.time_s + first / rate_hz, peaks))

    def flashes(self) -> np.ndarray:
        """Times of the first pictures of flashes, in seconds. One that has begun before the first picture is none."""
        found: list[float] = []
        if not self._changes:
            return np.array(found)
        times_s, up, down, all_up, all_down = np.array(self._changes).T
        least = max(_FLASH_LEVELS, _FLASH_MEDIANS * float(np.median(np.maximum(up, down))))
        for on in np.flatnonzero((up >= least) & (all_up >= _ONE_WAY * all_down)):
            if found and times_s[on] - found[-1] < _FLASH_S:
                continue
            after = slice(on + 1, np.searchsorted(times_s, times_s[on] + _FLASH_S, side="right"))
            if np.any((down[after] >= up[on] / 2) & (all_down[after] >= _ONE_WAY * all_up[after])):
                found.append(times_s[on])
        return np.array(found)

    def motions(self) -> np.ndarray:
        """Times of the pictures at which motion stops suddenly, in seconds: where clapping hands meet."""
        found: list[float] = []
        if len(self._changes) < 4:
            return np.array(found)
        times_s, up, down, *_ = np.array(self._changes).T
        change = np.maximum(up, down)
        stop = np.zeros_like(change)
        # What changes in two pictures less what changes in the two after them.
        stop[1:-2] = (change[:-3] + change[1:-2] - change[2:-1] - change[3:]) / 2
        least = max(_CLAP_LEVELS, float(np.percentile(stop, _STRONG_PERCENT)) / 2)
        for number in np.flatnonzero(stop >= least):
            near = np.abs(times_s - times_s[number]) < _CLAP_S
            if stop[number] == stop[near].max() and (not found or times_s[number] - found[-1] >= _CLAP_S):
                found.append(times_s[number])
        return np.array(found)

    def sounds(self) -> np.ndarray:
        """Times at which beeps and claps begin, in seconds."""
        found: list[float] = []
        if not self._bins:
            return np.array(found)
        times_s, peaks = (np.concatenate(each) for each in zip(*self._bins, strict=True))
        loud = peaks >= max(_LOUD, _LOUD_MEDIANS * float(np.median(peaks)))
        free = _QUIET_BINS
        for number in np.flatnonzero(loud[1:] & ~loud[:-1]) + 1:
            if number < free or number + _PEAK_BINS > len(peaks):
                continue
            window = peaks[number : number + _PEAK_BINS]
            begin = number + int(np.argmax(window >= _BEGIN * window.max()))
            half = number + int(np.argmax(window >= window.max() / 2))
            if half - begin <= _RISE_BINS and peaks[begin - _QUIET_BINS : begin].max() < _BEGIN * window.max():
                found.append(times_s[begin])
                free = number + _APART_BINS
        return np.array(found)

    def offset(self) -> Offset | None:
        """Of the flashes, else of the claps; None where both are fewer than `LEAST_FLASHES` and `LEAST_CLAPS`."""
        sounds_s = self.sounds()
        seen = (("flash", self.flashes(), LEAST_FLASHES), ("clap", self.motions(), LEAST_CLAPS))
        for kind, shown_s, least in seen:
            pairs = paired(shown_s, sounds_s)
            if len(pairs) >= least:
                times_s = tuple(shown for shown, _ in pairs)
                each_ms = tuple(1000 * (heard - shown) for shown, heard in pairs)
                picture_s = np.median(np.diff([change[0] for change in self._changes]))
                return Offset(kind, times_s, each_ms, 1000 * float(picture_s))
        return None


def paired(shown_s: np.ndarray, heard_s: np.ndarray) -> list[tuple[float, float]]:
    """Those that are nearest to each other, and less than half as far apart as one is from the next."""
    if not len(shown_s) or not len(heard_s):
        return []
    most_s = float(np.median(np.diff(shown_s))) / 2 if len(shown_s) > 1 else 0.5
    pairs = []
    for shown in shown_s:
        heard = heard_s[np.abs(heard_s - shown).argmin()]
        if abs(heard - shown) < most_s and shown_s[np.abs(shown_s - heard).argmin()] == shown:
            pairs.append((float(shown), float(heard)))
    return pairs


def watch(
    source: Source, limit_s: float, enough: int | None = ENOUGH_PAIRS, on_second: Callable[[Onsets], None] | None = None
) -> Onsets:
    """Take a source's events for `limit_s` of its time, or until there are `enough` pairs of flash and beep.

    `on_second` is called each second with what was found so far. Of a live source that delivers nothing, `limit_s` and
    a few seconds are waited for; it is closed then.
    """
    onsets, first_s, next_s = Onsets(), None, 0.0
    stopper = threading.Timer(limit_s + _PATIENCE_S, source.close)
    if source.live:
        stopper.start()
    try:
        for event in source.events():
            if first_s is None:
                first_s, next_s = event.time_s, event.time_s + 1.0
            if event.time_s - first_s > limit_s:
                break
            onsets.add(event)
            if event.time_s < next_s:
                continue
            next_s += 1.0
            if on_second:
                on_second(onsets)
            if enough and len(paired(onsets.flashes(), onsets.sounds())) >= enough:
                break
    finally:
        stopper.cancel()
    return onsets
