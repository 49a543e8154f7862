"""Puts the time stamps of a stream on this machine's clock.

A stream's own stamps (PTS) are even, but begin anywhere, step when a server corrects them, and begin again with each
connection. Arrival times are this machine's, but uneven: a network only ever delays. So the stamps are moved by the
smallest delay of the last seconds, the lower envelope of (arrival - stamp).
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Literal, Protocol

WARM_UP_S = 0.5
"""What comes first is what a server had stored, and comes too fast: so long it only shows the delay."""
_KEEP_S = 10.0
"""Age of the delays whose smallest counts."""
_STEP_S = 0.2
"""A larger difference is a step of the stamps or a changed connection, and is taken over at once."""
_SLEW = 0.02
"""Share of the time by which a smaller difference is taken over: no sound is torn."""
_TOGETHER_S, _APART_S = 0.15, 1.0
"""Largest difference of picture's and sound's delays on one clock: as far as arrivals tell, and where the server says
that it is one. Encoders take some tenths of a second for a picture."""
_FALSE_SLOPE, _SPAN_S, _SPANS = 0.01, 10.0, 3
"""Stamps that run faster or slower by more than this in so many spans after each other do not run like a clock, as
those of cameras that stamp 25 frames a second and send 21."""

Track = Literal["video", "audio"]


class Clock(Protocol):
    """Gives each datum its time on this machine's monotonic clock."""

    by_arrival: bool  # picture and sound are aligned by their arrival, because their stamps have no common clock

    def place(self, track: Track, stamp_s: float, arrival_s: float) -> float | None:
        """Its time; None for a datum that is not to be handed out."""


class _Envelope:
    """The delays of one track, and by how much its stamps are moved."""

    def __init__(self) -> None:
        self._least: deque[tuple[int, float]] = deque()  # smallest delay of each second
        self._stamp_s: float | None = None
        self._moved_at_s = 0.0
        self._marks: deque[tuple[float, float]] = deque(maxlen=_SPANS + 1)  # arrival and offset, one pair for each span
        self.offset_s: float | None = None
        self.false = False  # its stamps do not run like a clock

    def add(self, stamp_s: float, arrival_s: float) -> None:
        """Take the delay of one datum."""
        delay_s = arrival_s - stamp_s
        back = self._stamp_s is not None and stamp_s < self._stamp_s - _STEP_S
        if back or (self.offset_s is not None and delay_s < self.offset_s - _STEP_S):
            self._least.clear()
            self.offset_s = None
        self._stamp_s = stamp_s
        second = int(arrival_s)
        if self._least and self._least[-1][0] == second:
            delay_s = min(delay_s, self._least.pop()[1])
        self._least.append((second, delay_s))
        while self._least[0][0] < second - _KEEP_S:
            self._least.popleft()

    def restamp(self, by_s: float) -> None:
        """Its stamps are greater by so much from now on: what was learned about them moves along."""
        self._least = deque((second, delay_s - by_s) for second, delay_s in self._least)
        self._marks = deque(((at_s, offset_s - by_s) for at_s, offset_s in self._marks), self._marks.maxlen)
        self._stamp_s = None if self._stamp_s is None else self._stamp_s + by_s
        self.offset_s = None if self.offset_s is None else self.offset_s - by_s

    @property
    def known(self) -> bool:
        return bool(self._least)

    def least_s(self) -> float:
        return min(delay_s for _, delay_s in self._least)

    def moved(self, target_s: float, stamp_s: float, arrival_s: float) -> float:
        """The stamp on this machine's clock, moved towards the delay `target_s`."""
        if self.offset_s is None or abs(target_s - self.offset_s) > _STEP_S:
            self.offset_s = target_s
        else:
            most_s = _SLEW * max(0.0, arrival_s - self._moved_at_s)
            self.offset_s += min(max(target_s - self.offset_s, -most_s), most_s)
        self._moved_at_s = arrival_s
        self._judge(arrival_s)
        return stamp_s + self.offset_s

    def _judge(self, arrival_s: float) -> None:
        """Find out whether the stamps run at another speed than this machine's clock, all the time."""
        if self._marks and arrival_s - self._marks[-1][0] < _SPAN_S:
            return
        self._marks.append((arrival_s, self.offset_s))
        slopes = [(after[1] - before[1]) / (after[0] - before[0]) for before, after in pairwise(self._marks)]
        if len(slopes) == _SPANS:
            self.false = self.false or min(slopes) > _FALSE_SLOPE or max(slopes) < -_FALSE_SLOPE


class StreamClock:
    """For streams that are sent as they are made: RTSP, RTMP, UDP, TCP. One for each connection."""

    def __init__(self, one_clock: bool) -> None:
        """`one_clock`: both tracks come in one container, so their stamps belong together. RTSP sends each track with
        stamps of its own; they belong together once the server has said so (`vouched`), or as far as arrivals tell."""
        self._one_clock = one_clock
        self._tracks: dict[Track, _Envelope] = {"video": _Envelope(), "audio": _Envelope()}
        self._first_s: float | None = None
        self.vouched = False
        self.by_arrival = False

    def restamp(self, track: Track, by_s: float) -> None:
        """The stamps of this track are greater by so much from now on. Its times go on without a step."""
        self._tracks[track].restamp(by_s)

    def place(self, track: Track, stamp_s: float, arrival_s: float) -> float | None:
        """Its time; None during the warm-up."""
        envelope = self._tracks[track]
        envelope.add(stamp_s, arrival_s)
        if self._first_s is None:
            self._first_s = arrival_s
        if arrival_s - self._first_s < WARM_UP_S:
            return None
        if envelope.false and track == "video":  # pictures need no even distances, sound does
            return arrival_s
        return envelope.moved(self._target_s(envelope), stamp_s, arrival_s)

    def _target_s(self, envelope: _Envelope) -> float:
        video, audio = self._tracks["video"], self._tracks["audio"]
        if not (video.known and audio.known) or video.false:
            return envelope.least_s()
        apart_s = abs(video.least_s() - audio.least_s())
        self.by_arrival = not self._one_clock and apart_s > (_APART_S if self.vouched else _TOGETHER_S)
        return envelope.least_s() if self.by_arrival else min(video.least_s(), audio.least_s())


class PlayingClock:
    """For what is stored and may be read at any pace, as HLS and files are: it is played at its own.

    `place` gives a time that may lie ahead; `mma_edge.sources.playing.Playout` waits for it.
    """

    by_arrival = False
    _LATE_S, _AHEAD_S = 0.5, 5.0
    """What comes later was held up by the network, and what is further ahead is a step of the stamps: from there on it
    is played from now."""

    def __init__(self, ahead_s: float = 0.0) -> None:
        """`ahead_s`: how much is read before the first is played."""
        self._ahead_s = ahead_s
        self._offset_s: float | None = None

    def place(self, track: Track, stamp_s: float, arrival_s: float) -> float | None:
        if self._offset_s is None or not -self._LATE_S <= stamp_s + self._offset_s - arrival_s <= self._AHEAD_S:
            self._offset_s = arrival_s + self._ahead_s - stamp_s
        return stamp_s + self._offset_s


class ArrivalClock:
    """For streams without time stamps, as the pictures of a camera over HTTP (MJPEG)."""

    by_arrival = True

    def place(self, track: Track, stamp_s: float, arrival_s: float) -> float | None:
        return arrival_s
