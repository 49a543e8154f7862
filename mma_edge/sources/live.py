"""What lies between the thread that reads a live source and the one that takes its events."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Iterator

from mma_edge.sources.base import Event, Source, SourceStats
from mma_edge.types import AudioChunk, Frame

KEEP_S = 10.0
"""Sound kept for a busy reader; beyond that the oldest is dropped and counted."""
FRAMES_KEPT = 3
"""Cameras send some frames at once, with a pause around each key frame; the newest alone would lose most of them."""
TICK_S = 0.1
"""Longest wait for data before the connection is looked at; at half of it, eight lost sources cost 2 % of a core."""
LATE_S = 0.1
"""A frame that waited longer gives way to a newer one: who is this late has no time for frames in between."""


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
            while len(self._frames) > 1 and time.monotonic() - self._frames[0].arrival_s > LATE_S:
                self._frames.popleft()
                self._stats.dropped_frames += 1
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


class BufferedSource(Source):
    """A live source whose own threads fill `_buffer`, with times of `time.monotonic()`. `time_s` of its events counts
    from the first call of `events()`."""

    live = True
    _buffer: LiveBuffer

    def events(self) -> Iterator[Event]:
        """Frames and sound in order of arrival, until `close()` or the end of what is stored."""
        self._buffer.clear()
        self._start()
        return self._arriving(time.monotonic())

    def _arriving(self, start_s: float) -> Iterator[Event]:
        while not self._closed:
            over = self._is_over()  # asked first: what was put in before the end is still handed out
            event = self._buffer.take()
            if event is None and over:
                return
            if event is not None and event.time_s >= start_s:
                self.stats.count(event)
                yield dataclasses.replace(event, time_s=event.time_s - start_s)
            self._watch()
            if event is None:
                self._buffer.wait(TICK_S)

    def _is_over(self) -> bool:
        """Whether nothing more will be put in."""
        return False

    def _watch(self) -> None:
        """Say what happened to the connection since the last time."""
