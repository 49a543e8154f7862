"""What lies between the thread that reads a live source and the one that takes its events."""

from __future__ import annotations

import dataclasses
import heapq
import threading
import time
from collections import deque
from itertools import count

from mma_edge.sources.base import Event, SourceStats
from mma_edge.types import AudioChunk, Frame

KEEP_S = 10.0
"""Sound kept for a busy reader; beyond that the oldest is dropped and counted."""


class LiveBuffer:
    """The newest frames and all sound. Writing never waits: what waits would make everything after it late."""

    def __init__(self, stats: SourceStats, frames: int = 1) -> None:
        """Keep this many frames. More than one are for senders that send several at once."""
        self._stats, self._num_frames = stats, frames
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._frames: deque[Frame] = deque()
        self._chunks: deque[AudioChunk] = deque()
        self._kept_s = 0.0

    def put(self, event: Event) -> None:
        """Store it; what there is no room for is dropped and counted."""
        with self._lock:
            if isinstance(event, Frame):
                self._frames.append(event)
                if len(self._frames) > self._num_frames:
                    self._frames.popleft()
                    self._stats.dropped_frames += 1
            else:
                self._chunks.append(event)
                self._kept_s += _length_s(event)
                while self._kept_s > KEEP_S and len(self._chunks) > 1:
                    self._stats.dropped_audio_s += self._drop_chunk()
        self._wake.set()

    def take(self) -> Event | None:
        """The sound or frame that arrived first, None where there is none."""
        with self._lock:
            if self._chunks and not (self._frames and self._frames[0].arrival_s < self._chunks[0].arrival_s):
                chunk = self._chunks[0]
                self._drop_chunk()
                return chunk
            return self._frames.popleft() if self._frames else None

    def clear(self) -> None:
        """Forget everything, and what was dropped so far."""
        with self._lock:
            self._frames.clear()
            self._chunks.clear()
            self._kept_s = 0.0
            self._stats.dropped_frames, self._stats.dropped_audio_s = 0, 0.0

    def wait(self, timeout_s: float) -> None:
        """Until something was put in, at most so long."""
        self._wake.wait(timeout_s)
        self._wake.clear()

    def _drop_chunk(self) -> float:
        length_s = _length_s(self._chunks.popleft())
        self._kept_s -= length_s
        return length_s


def _length_s(chunk: AudioChunk) -> float:
    return chunk.samples.shape[1] / chunk.sample_rate_hz


class Playout:
    """Puts what is stored into a buffer at its own pace, in order of time: the last that waits in a live source."""

    def __init__(self, buffer: LiveBuffer, stopped: threading.Event, ahead_s: float) -> None:
        """`ahead_s`: how much is read ahead, because a container may hold sound far from the pictures of its time."""
        self._buffer, self._stopped, self._ahead_s = buffer, stopped, ahead_s
        self._events: list[tuple[float, int, Event]] = []
        self._newest_s = float("-inf")
        self._count = count()

    def add(self, event: Event) -> None:
        """Take an event, whose `time_s` says when on `time.monotonic()`; returns when it is time to read on."""
        heapq.heappush(self._events, (event.time_s, next(self._count), event))
        self._newest_s = max(self._newest_s, event.time_s)
        while self._events and self._newest_s - self._events[0][0] >= self._ahead_s:
            self._hand_out()

    def finish(self) -> None:
        """Hand out the rest."""
        while self._events and not self._stopped.is_set():
            self._hand_out()

    def _hand_out(self) -> None:
        time_s, _, event = heapq.heappop(self._events)
        self._stopped.wait(max(0.0, time_s - time.monotonic()))
        self._buffer.put(dataclasses.replace(event, arrival_s=time.monotonic()))
