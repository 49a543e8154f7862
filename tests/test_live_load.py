"""The ladder under load and the figures of the last minute, on clocks that nobody waits for."""

from __future__ import annotations

import pytest

from mma_edge.faces.track import FaceTracker
from mma_edge.live.load import MOST_STRETCH, EngineLoad, SourceLoad
from mma_edge.live.stats import SPAN_S, LastMinute, SourceMeter, SourceProgress, ThreadProgress
from mma_edge.live.windows import MOST_WAIT_S, DueWindows
from mma_edge.sources import SourceStats
from mma_edge.types import Clip


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Watched:
    """A source's thread whose work a test states: so many frames looked at and passed over, so long idle."""

    def __init__(self) -> None:
        self.clock, self.said, self.stats = Clock(), [], SourceStats()
        self.progress = SourceProgress("door", ThreadProgress("door"))
        self.meter = SourceMeter(LastMinute(), self.progress)
        self.tracker = FaceTracker(detector=None)
        self.load = SourceLoad(self.meter, self.stats, self.tracker, self.said.append, self.clock)
        self.passes(0.0, 3, 0)

    def passes(self, seconds: float, frames: int, dropped: int, idle: float = 0.0) -> None:
        self.clock.now_s += seconds
        self.progress.frames += frames
        self.stats.dropped_frames += dropped
        self.meter.idle_s += idle * seconds
        self.load.look()


def test_frames_passed_over_are_said_once() -> None:
    watched = Watched()
    watched.passes(2.0, 50, 2)
    assert watched.said == []
    for _ in range(3):
        watched.passes(2.0, 30, 20, idle=0.2)
    assert watched.said == ["door: 25 frames a second come and 15 can be looked at: the newest wins"]
    assert watched.tracker.stretch == 1, "15 frames a second are enough to follow a face"


def test_new_faces_are_looked_for_less_often_until_there_is_time_again() -> None:
    watched = Watched()
    stretches = []
    for _ in range(4):
        watched.passes(2.0, 10, 40)
        stretches.append(watched.tracker.stretch)
    assert stretches == [2, 4, 4, 4] and max(stretches) == MOST_STRETCH and watched.progress.stretched == 2
    assert len([line for line in watched.said if "less often" in line]) == 1
    for idle in (0.2, 0.5, 0.5, 0.5):
        watched.passes(2.0, 50, 0, idle)
        stretches.append(watched.tracker.stretch)
    assert stretches[4:] == [4, 2, 1, 1]


def test_lost_sound_is_a_stated_gap() -> None:
    watched = Watched()
    watched.stats.dropped_audio_s = 1.5
    watched.passes(2.0, 50, 0)
    watched.passes(2.0, 50, 0)
    assert watched.said == ["door: 1.5 s of sound were not read in time: a gap"]


class WatchedEngine:
    """An engine whose calls a test states, with hops of 0.5 s."""

    def __init__(self) -> None:
        self.clock, self.said = Clock(), []
        self.load = EngineLoad(0.5, self.said.append, self.clock)
        self.windows = self.replaced = 0

    def calls(self, count: int, engine_s: float, windows: int, replaced: int, waited_s: float = 0.0) -> None:
        """So many calls of one clip, and what fell due during each of them."""
        for _ in range(count):
            self.load.waited(waited_s)
            self.clock.now_s += waited_s + engine_s
            self.windows, self.replaced = self.windows + windows, self.replaced + replaced
            self.load.look(engine_s, 1, self.windows, self.replaced)


@pytest.mark.parametrize(
    ("work", "line"),
    [
        # Engine, windows and replaced ones per call.
        ((1.0, 2, 1), "the engine needs 1 s per 0.5 s hop: an answer every 1 s"),
        ((0.1, 2, 1), "the engine needs 1 s per 0.5 s hop: an answer every 1 s"),  # ten faces
        ((0.1, 5, 4, 2.4), "the records are not taken for 96% of the time: an answer every 2.5 s"),
    ],
)
def test_an_engine_that_cannot_follow_is_said_once_with_its_figures(work: tuple, line: str) -> None:
    engine = WatchedEngine()
    engine.calls(60, *work)
    assert engine.said == [line]


def test_an_engine_that_follows_is_not_said_nor_is_a_hiccup() -> None:
    engine = WatchedEngine()
    engine.calls(20, 0.45, 1, 0)
    engine.calls(1, 1.0, 2, 1)
    engine.calls(40, 0.45, 1, 0)
    assert engine.said == []


def test_values_are_forgotten_after_a_minute() -> None:
    clock = Clock()
    values = LastMinute(clock)
    assert values.spread("engine") is None
    for number in range(10):
        values.add("engine", number)
        clock.now_s += SPAN_S / 10
    assert values.spread("engine").to_dict() == {"p50": 4.5, "p95": 8.5, "max": 9, "count": 10}
    clock.now_s += SPAN_S / 2 + 1
    assert values.values("engine") == [6, 7, 8, 9]
    clock.now_s += SPAN_S
    assert values.spread("engine") is None


def clip(track: int, end_s: float) -> Clip:
    return Clip(0.0, end_s, track, None, None, None, 0.0)


def test_a_newer_window_takes_the_place_of_the_one_it_replaces() -> None:
    due = DueWindows(1, 0.5, most=2)
    assert due.put(0, [clip(1, 1.0), clip(2, 1.0), clip(3, 1.0)]) == 0
    assert due.put(0, [clip(1, 1.5)]) == 1
    taken = [[(window.clip.track_id, window.clip.end_s) for window in due.take()] for _ in range(2)]
    assert taken == [[(1, 1.5), (2, 1.0)], [(3, 1.0)]]
    due.end(0)
    assert due.take() is None


def test_the_wait_for_other_sources_is_short_and_one_source_waits_for_nobody() -> None:
    assert DueWindows(3, 0.5, 16).wait_s == MOST_WAIT_S and DueWindows(3, 0.1, 16).wait_s == pytest.approx(0.01)
    assert DueWindows(1, 0.5, 16).wait_s == 0.0
