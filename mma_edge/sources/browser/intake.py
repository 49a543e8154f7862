"""Puts what visitors send on this machine's clock and into the source's buffer."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from mma_edge.sources.base import SourceStats
from mma_edge.sources.live import LiveBuffer
from mma_edge.sources.network.clock import StreamClock, Track
from mma_edge.types import AudioChunk, Frame, Picture


class SenderClock:
    """Moves the stamps of picture and sound to the one clock of their sender, once it has reported on both.

    WebRTC stamps each track from a beginning of its own. Its reports (RTCP) say what the sender's clock showed at a
    stamp; until they have come for both tracks, arrival aligns the two.
    """

    def __init__(self, clock: StreamClock, tracks: Sequence[Track]) -> None:
        self._clock = clock
        self._moved_s: dict[Track, float] = dict.fromkeys(tracks, 0.0)
        self._reported_s: dict[Track, float] = {}

    def report(self, track: Track, stamp_s: float, sender_s: float) -> None:
        """The sender's clock showed `sender_s` at this stamp of the track."""
        if track not in self._moved_s:
            return
        self._reported_s[track] = sender_s - stamp_s
        if len(self._reported_s) < len(self._moved_s):
            return
        for each, moved_s in self._reported_s.items():
            self._clock.restamp(each, moved_s - self._moved_s[each])
            self._moved_s[each] = moved_s
        self._clock.vouched = True

    def stamp_s(self, track: Track, stamp_s: float) -> float:
        """A stamp on the sender's clock, or as it was before the reports."""
        return stamp_s + self._moved_s[track]


class Intake:
    """One for a source. Used by the server's thread alone, but for what is read of it."""

    def __init__(self, buffer: LiveBuffer, stats: SourceStats) -> None:
        self._buffer, self._stats = buffer, stats
        self._newest_s: dict[Track, float] = {"video": float("-inf"), "audio": float("-inf")}
        self.clock = StreamClock(one_clock=True)
        self.size = (0, 0)  # (width, height) of the newest picture
        self.last_arrival_s = float("-inf")

    def begin(self, one_clock: bool) -> StreamClock:
        """A new sender: what was known about the stamps of the last one is forgotten."""
        self.clock, self.size = StreamClock(one_clock), (0, 0)
        return self.clock

    def picture(self, picture: Picture, stamp_s: float) -> None:
        """Take a picture."""
        arrival_s = time.monotonic()
        self.size = (picture.shape[1], picture.shape[0])
        time_s = self._placed("video", stamp_s, arrival_s)
        if time_s is not None:
            self._buffer.put(Frame(picture, time_s, arrival_s))

    def sound(self, samples: np.ndarray, rate_hz: int, stamp_s: float) -> None:
        """Take float32 (channels, n) in [-1, 1]."""
        arrival_s = time.monotonic()
        time_s = self._placed("audio", stamp_s, arrival_s)
        if time_s is not None and samples.shape[1]:
            self._buffer.put(AudioChunk(samples, rate_hz, time_s, arrival_s))

    def _placed(self, track: Track, stamp_s: float, arrival_s: float) -> float | None:
        """Its time on this machine's clock; None for what is not to be handed out."""
        self.last_arrival_s = arrival_s
        time_s = self.clock.place(track, stamp_s, arrival_s)
        if time_s is not None and time_s <= self._newest_s[track]:
            self._stats.out_of_order += 1
            return None
        if time_s is not None:
            self._newest_s[track] = time_s
        return time_s
