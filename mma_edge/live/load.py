"""What is done, and said once, when more comes than can be computed: the age of the answers never grows.

First newer frames replace those that wait, then new faces are looked for less often, then newer windows replace those
that wait for the engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mma_edge.faces.track import FaceTracker
from mma_edge.live.stats import SourceMeter
from mma_edge.sources import SourceStats
from mma_edge.types import Notify

LOOK_S = 2.0
"""How often a source's thread is looked at."""
LOST_SHARE = 0.1
"""From this share of frames that nobody looked at, the thread counts as too slow."""
LEAST_FPS = 10.0
"""A tracker that sees fewer frames a second loses faces that move."""
BUSY, FREE = 0.9, 0.6
"""Share of its time that a busy thread works at least, and a free one at most."""
MOST_STRETCH = 4.0
"""Longest time between two detections, to the usual one."""
LEAST_CALLS, LEAST_HOPS, ENGINE_BUSY = 3, 10, 0.7
"""Calls and hops after which the engine is judged, and the share of its time from which it is the bottleneck."""


class SourceLoad:
    """Watches the thread of one source, from within it."""

    def __init__(
        self,
        meter: SourceMeter,
        stats: SourceStats,
        tracker: FaceTracker | None,  # None: a source without pictures
        notify: Notify,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._meter, self._progress, self._stats, self._tracker = meter, meter.progress, stats, tracker
        self._notify, self._clock = notify, clock
        self._said: set[str] = set()
        self._before: tuple[float, int, int, float] | None = None  # time, frames, dropped frames, idle time

    def look(self) -> None:
        """To be called often; acts every LOOK_S."""
        now = (self._clock(), self._progress.frames, self._stats.dropped_frames, self._meter.idle_s)
        if self._before is None:
            if self._progress.frames > 2:  # the first detection is a slow one
                self._before = now
            return
        if now[0] - self._before[0] < LOOK_S:
            return
        passed_s, seen, dropped, idle_s = (new - old for new, old in zip(now, self._before, strict=True))
        self._before = now
        name, busy = self._progress.name, 1 - idle_s / passed_s
        behind = dropped > LOST_SHARE * (seen + dropped)
        if behind:
            self._say(
                "frames",
                f"{name}: {(seen + dropped) / passed_s:.0f} frames a second come and {seen / passed_s:.0f} can be "
                "looked at: the newest wins",
            )
        if self._tracker:
            self._adapt(behind and busy > BUSY and seen / passed_s < LEAST_FPS, not behind and busy < FREE)
        if self._stats.dropped_audio_s:
            self._say("sound", f"{name}: {self._stats.dropped_audio_s:.1f} s of sound were not read in time: a gap")

    def _adapt(self, slow: bool, free: bool) -> None:
        """Look for new faces less often, or as often as before again."""
        tracker = self._tracker
        if slow and tracker.stretch < MOST_STRETCH:
            tracker.stretch *= 2
            self._progress.stretched += 1
            text = "finding faces takes too long: new ones are looked for less often, as long as this lasts"
            self._say("faces", f"{self._progress.name}: {text}")
        elif free and tracker.stretch > 1:
            tracker.stretch /= 2

    def _say(self, step: str, line: str) -> None:
        if step not in self._said:
            self._said.add(step)
            self._notify(line)


class EngineLoad:
    """Watches the engine, from within its thread."""

    def __init__(self, hop_s: float, notify: Notify, clock: Callable[[], float] = time.monotonic) -> None:
        self._hop_s, self._notify, self._clock = hop_s, notify, clock
        self._said = self._warm = False
        self._begin(0, 0)

    def _begin(self, windows: int, replaced: int) -> None:
        self._start_s, self._windows, self._replaced = self._clock(), windows, replaced
        self._calls, self._clips, self._busy_s, self._waited_s = 0, 0, 0.0, 0.0

    def waited(self, seconds: float) -> None:
        """Before a call: how long it had to wait until the last answers were taken."""
        self._waited_s += seconds

    def look(self, engine_s: float, clips: int, windows: int, replaced: int) -> None:
        """After a call of so many clips: how long it took, and how many windows of all sources were due and replaced
        since the start."""
        if not self._warm:  # the first call of a graph is slow
            self._warm = True
            return self._begin(windows, replaced)
        self._calls, self._clips, self._busy_s = self._calls + 1, self._clips + clips, self._busy_s + engine_s
        passed_s = self._clock() - self._start_s
        if self._said or passed_s < max(LOOK_S, LEAST_HOPS * self._hop_s) or self._calls < LEAST_CALLS:
            return
        due, lost = windows - self._windows, replaced - self._replaced
        if lost > LOST_SHARE * due and self._busy_s + self._waited_s > ENGINE_BUSY * passed_s:
            self._said = True
            needs_s = self._busy_s / self._clips * due * self._hop_s / passed_s
            what = f"the engine needs {needs_s:.2g} s per {self._hop_s:g} s hop"
            if self._waited_s > self._busy_s:
                what = f"the records are not taken for {self._waited_s / passed_s:.0%} of the time"
            self._notify(f"{what}: an answer every {self._hop_s * due / (due - lost):.2g} s")
        self._begin(windows, replaced)
