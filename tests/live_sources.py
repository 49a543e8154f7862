"""Live sources and engines made for tests: they deliver at a given pace, freeze, die, or take their time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np

from mma_edge.errors import DeviceError
from mma_edge.sources import Event, Source, SourceStats
from mma_edge.sources.live import FRAMES_KEPT, LiveBuffer
from mma_edge.types import AudioChunk, Clip, Emotion, Frame

LABELS = ("happy", "sad")
RATE_HZ = 16000


class PacedSource(Source):
    """Grey pictures and silence from a thread of its own, at a pace, as a camera or a stream delivers them."""

    live = True

    def __init__(
        self,
        fps: float = 20.0,  # 0: no pictures
        seconds: float = float("inf"),  # then it ends
        sound: bool = False,
        dies_s: float = float("inf"),  # then it fails
        freezes_s: float = float("inf"),  # then nothing more comes, and it does not end
        block_s: float = 0.02,
    ) -> None:
        self.name, self.stats = "paced", SourceStats()
        self.has_video, self.has_audio = fps > 0, sound
        self.closed = 0
        self._fps, self._seconds, self._dies_s, self._freezes_s = fps, seconds, dies_s, freezes_s
        self._block_s = block_s
        self._buffer = LiveBuffer(self.stats, FRAMES_KEPT)
        self._stop = threading.Event()
        self._reader = threading.Thread(target=self._read, name="paced-reader", daemon=True)

    def _read(self) -> None:
        start_s, frames, blocks = time.monotonic(), 0, 0
        picture = np.full((60, 80, 3), 90, np.uint8)
        while not self._stop.is_set():
            frame_s = frames / self._fps if self.has_video else float("inf")
            # A block arrives when it is complete.
            block_s = (blocks + 1) * self._block_s if self.has_audio else float("inf")
            next_s = min(frame_s, block_s)
            if next_s >= min(self._seconds, self._freezes_s):
                return
            if self._stop.wait(max(0.0, start_s + next_s - time.monotonic())):
                return
            if frame_s <= block_s:
                self._buffer.put(Frame(picture, frame_s, time.monotonic()))
                frames += 1
            else:
                samples = np.full((1, round(self._block_s * RATE_HZ)), blocks / 1e6, np.float32)
                self._buffer.put(AudioChunk(samples, RATE_HZ, blocks * self._block_s, time.monotonic()))
                blocks += 1

    def events(self) -> Iterator[Event]:
        self._start()
        self._reader.start()
        started_s = time.monotonic()
        while not self._closed:
            over = not self._reader.is_alive() and self._freezes_s == float("inf")
            if time.monotonic() - started_s > self._dies_s:
                raise DeviceError("the camera is gone")
            event = self._buffer.take()
            if event is not None:
                self.stats.count(event)
                yield event
            elif over:
                return
            else:
                self._buffer.wait(0.02)

    def close(self) -> None:
        self._closed = True
        self.closed += 1
        self._stop.set()
        if self._reader.is_alive():
            self._reader.join()


class SlowModel:
    """Answers after a while, and knows what it was asked."""

    labels, image_size, max_batch = LABELS, 16, None

    def __init__(self, takes_s: float = 0.0) -> None:
        self.takes_s = takes_s
        self.batches: list[list[Clip]] = []

    def predict_clips(self, clips: Sequence[Clip]) -> list[Emotion]:
        self.batches.append(list(clips))
        time.sleep(self.takes_s)
        return [
            Emotion(
                clip.start_s,
                clip.end_s,
                clip.track_id,
                clip.box,
                ("video",) * (clip.frames is not None) + ("audio",) * (clip.mel is not None),
                LABELS,
                np.array([0.25, 0.75], np.float32),
                1000 * (time.monotonic() - clip.newest_arrival_s),
            )
            for clip in clips
        ]


def threads_left(waited_s: float = 2.0) -> list[str]:
    """Threads of live runs and of these sources, after waiting for them for so long at most."""
    until_s = time.monotonic() + waited_s
    while True:
        names = [t.name for t in threading.enumerate() if t.name.startswith(("mma-edge-", "paced-", "close "))]
        if not names or time.monotonic() > until_s:
            return names
        time.sleep(0.02)
