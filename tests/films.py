"""Reads back what is in a video file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from mma_edge.sources import FileSource
from mma_edge.sources.sync.measure import Onsets


def pictures(path: Path) -> list[tuple[float, np.ndarray]]:
    """Time and picture of each frame."""
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def loudness(path: Path) -> Callable[[float, float], float]:
    """Gives the root mean square of the sound of a span."""
    with av.open(str(path)) as container:
        blocks = [(frame.time, frame.to_ndarray()[0], frame.sample_rate) for frame in container.decode(audio=0)]
    rate = blocks[0][2]
    wave = np.zeros(round((blocks[-1][0] + 2) * rate), np.float32)
    for time_s, samples, _ in blocks:
        wave[round(time_s * rate) :][: len(samples)] = samples
    return lambda start_s, end_s: float(np.sqrt((wave[round(start_s * rate) : round(end_s * rate)] ** 2).mean()))


def offsets_ms(path: Path) -> tuple[float, ...]:
    """Beep minus flash of each flash of a file."""
    onsets = Onsets()
    with FileSource(path) as source:
        for event in source.events():
            onsets.add(event)
    return onsets.offset().each_ms


def times_s(path: Path) -> list[float]:
    """Of each picture of a file."""
    with FileSource(path, audio=False) as source:
        return [event.time_s for event in source.events()]
