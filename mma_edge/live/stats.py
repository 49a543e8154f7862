"""What a live run measures of itself: how long each stage takes, how old answers are, what each thread has done."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from mma_edge.sources import Event
from mma_edge.types import Frame

SPAN_S, MOST_VALUES = 60.0, 4000
"""Percentiles are of the values of so many seconds, and of no more than so many."""
IDLE = "decode"
"""The stage of a pipeline in which it waits for its source: of a live one that is no work."""


@dataclass
class ThreadProgress:
    """What a thread has done. It alone writes, anybody may read: for a watchdog, which must not trust `is_alive`."""

    name: str
    steps: int = 0  # pieces of work that are done: events of a source, calls of the engine
    waiting: bool = True  # for work; False: busy
    since_s: float = 0.0  # `time.monotonic()` when it began to wait, or the work in hand
    ended: bool = False

    def begin(self) -> None:
        self.waiting, self.since_s = False, time.monotonic()

    def done(self) -> None:
        self.steps += 1
        self.wait()

    def wait(self) -> None:
        self.waiting, self.since_s = True, time.monotonic()


@dataclass
class SourceProgress:
    """What came of a source and what became of it: counters since the start."""

    name: str
    thread: ThreadProgress
    frames: int = 0  # that faces were looked for in
    sound_s: float = 0.0
    last_frame_s: float | None = None  # `time.monotonic()` when the newest one arrived, None before the first
    last_sound_s: float | None = None
    stretched: int = (
        0  # how often the time between two searches for new faces was doubled, because there was too little
    )
    windows: int = 0  # that were due: one for each face and hop
    replaced: int = 0  # of them; a newer one of the same face was due before the engine was free
    answers: int = 0
    error: str | None = None  # why it ended, None while it goes on and after its own end


@dataclass(frozen=True)
class Spread:
    """Some values in short."""

    p50: float
    p95: float
    most: float
    count: int

    def to_dict(self) -> dict[str, float]:
        return {"p50": round(self.p50, 1), "p95": round(self.p95, 1), "max": round(self.most, 1), "count": self.count}


class LastMinute:
    """Values by name, each for SPAN_S, and their sums since the start; every method may be called by any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._values: dict[str, deque[tuple[float, float]]] = defaultdict(lambda: deque(maxlen=MOST_VALUES))
        self._totals: dict[str, tuple[int, float]] = {}

    def add(self, name: str, value: float) -> None:
        with self._lock:
            count, total = self._totals.get(name, (0, 0.0))
            self._totals[name] = (count + 1, total + value)
            values = self._values[name]
            values.append((self._clock(), value))
            _forget(values, self._clock() - SPAN_S)

    def values(self, name: str) -> list[float]:
        """Those of the last SPAN_S, oldest first."""
        with self._lock:
            values = self._values.get(name, deque())
            _forget(values, self._clock() - SPAN_S)
            return [value for _, value in values]

    def total(self, name: str) -> tuple[int, float]:
        """How many values there were since the start, and their sum."""
        with self._lock:
            return self._totals.get(name, (0, 0.0))

    def spread(self, name: str) -> Spread | None:
        """None where there is no value."""
        values = self.values(name)
        if not values:
            return None
        p50, p95 = np.percentile(values, (50, 95))
        return Spread(float(p50), float(p95), max(values), len(values))


def _forget(values: deque[tuple[float, float]], before_s: float) -> None:
    while values and values[0][0] < before_s:
        values.popleft()


class SourceMeter:
    """Measures the thread of one source: it is its pipeline's `Timer`, and gets all that the source delivers."""

    def __init__(self, stages: LastMinute, progress: SourceProgress) -> None:
        """`stages` gets durations in milliseconds."""
        self._stages, self.progress = stages, progress
        self.idle_s = 0.0  # how long the thread waited in all

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start_s = time.monotonic()
        if stage == IDLE:
            self.progress.thread.done()
        try:
            yield
        finally:
            took_s = time.monotonic() - start_s
            if stage == IDLE:
                self.idle_s += took_s
                self.progress.thread.begin()
            else:
                self._stages.add(stage, 1000 * took_s)

    def note(self, event: Event) -> None:
        if isinstance(event, Frame):
            self.progress.frames += 1
            self.progress.last_frame_s = event.arrival_s
            self._stages.add("wait", 1000 * (time.monotonic() - event.arrival_s))
        else:
            self.progress.sound_s += event.samples.shape[1] / event.sample_rate_hz
            self.progress.last_sound_s = event.arrival_s
