"""What is stored, played at its own pace as if it were live."""

from __future__ import annotations

import dataclasses
import heapq
import threading
import time
from collections.abc import Iterator
from itertools import count

from mma_edge.sources.base import Event, Source
from mma_edge.sources.live import FRAMES_KEPT, LiveBuffer

_TICK_S = 0.05
"""Longest wait for data before the end is looked for."""


class Playout:
    """Puts what is stored into a buffer at its own pace, in order of time: for a live source."""

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


class RealtimeSource(Source):
    """A file that behaves like a camera: who reads it too slowly loses frames, not time.

    `time_s` stays the file's own. Of `stats`, `frames` counts those that were decoded.
    """

    live = True

    def __init__(self, file: Source) -> None:
        """Takes over a source that is not live, and closes it in the end."""
        self._file, self.name, self.stats = file, file.name, file.stats
        self.has_video, self.has_audio = file.has_video, file.has_audio
        self._buffer = LiveBuffer(self.stats, FRAMES_KEPT)
        self._stopped = threading.Event()
        self._origin_s: float | None = None  # of the file's time, on `time.monotonic()`
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._play, name="realtime-file", daemon=True)

    def _play(self) -> None:
        try:
            playout = Playout(self._buffer, self._stopped, 0.0)
            for event in self._file.events():
                if self._stopped.is_set():
                    return
                if self._origin_s is None:
                    self._origin_s = time.monotonic() - event.time_s
                playout.add(dataclasses.replace(event, time_s=event.time_s + self._origin_s))
        except BaseException as error:  # the thread that takes the events gets it
            self._error = error

    def events(self) -> Iterator[Event]:
        """Frames and sound, each at its time; the file's time begins with the first."""
        self._start()
        self._thread.start()
        return self._arriving()

    def _arriving(self) -> Iterator[Event]:
        while not self._closed:
            over = not self._thread.is_alive()
            event = self._buffer.take()
            if event is not None:
                yield dataclasses.replace(event, time_s=event.time_s - self._origin_s)
            elif over:
                if self._error is not None:
                    raise self._error
                return
            else:
                self._buffer.wait(_TICK_S)

    def close(self) -> None:
        self._closed = True
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        self._file.close()
