"""A process with a camera that nobody can unplug and the system's microphone: says in JSON lines what comes of them.

It is one of its own because PortAudio and ALSA read where the sound server is only once in a process.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from mma_edge.sources.camera import CameraSource
from mma_edge.sources.sync.measure import Onsets
from mma_edge.types import AudioChunk


class GreyCamera:
    """Device and capture in one: grey pictures, 20 a second."""

    name, title, close_s, may_repeat = "grey", "the grey camera", 1.0, True

    def open(self) -> GreyCamera:
        return self

    def expected(self) -> str:
        return ""

    what_to_do = expected

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        return True

    def grab(self) -> bool:
        time.sleep(0.05)
        return True

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.full((12, 16, 3), 90, np.uint8)

    def release(self) -> None: ...

    def stamp_s(self) -> float | None:
        return None


def say(kind: str, what: object) -> None:
    print(json.dumps([kind, time.monotonic(), what]), flush=True)


def listen() -> None:
    onsets, told_s, gaps_s, end_s = Onsets(), 0.0, [], None
    with CameraSource(GreyCamera(), lambda line: say("note", line)) as source:
        say("open", source.has_audio)
        for event in source.events():
            onsets.add(event)
            if isinstance(event, AudioChunk):
                gaps_s.append(0.0 if end_s is None else event.time_s - end_s)
                end_s = event.end_s
            if event.time_s - told_s > 0.25:
                told_s = event.time_s
                worst_ms = 1000 * max(map(abs, gaps_s), default=0.0)
                stats = source.stats
                say("state", [stats.frames, stats.audio_s, worst_ms, onsets.sounds().round(4).tolist()])


if __name__ == "__main__":
    try:
        listen()
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(0)
