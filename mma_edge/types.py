"""The data that travels between the parts of the runtime: frozen dataclasses with numpy arrays.

One clock: `time_s` is the presentation time of the source in seconds (PTS of a file, capture time of a live device),
the same for frames and sound. `arrival_s` is `time.monotonic()` when the datum entered this process; its age is
counted from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

TIME_DIGITS, PROBABILITY_DIGITS, PIXEL_DIGITS, AGE_DIGITS = 3, 6, 1, 1
"""Decimals of a record's seconds, probabilities, pixels and milliseconds."""
Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in pixels of the upright frame; x1, y1 exclusive; may reach past the border."""

Notify = Callable[[str], None]
"""Takes one line that the user should see once, such as "no microphone: vision only, because ..."."""


def ignore_notice(line: str) -> None:
    """The `Notify` of a caller that wants no notices."""


def as_box(values: np.ndarray) -> Box:
    """An array (4,) as a Box."""
    return tuple(map(float, values))


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """One upright video frame.

    Attributes:
        image: uint8 (H, W, 3), RGB, rotation flags already applied.
        time_s: presentation time in seconds.
        arrival_s: `time.monotonic()` at decoding or capture.
    """

    image: np.ndarray
    time_s: float
    arrival_s: float


@dataclass(frozen=True, eq=False, slots=True)
class AudioChunk:
    """Consecutive samples of one source.

    Attributes:
        samples: float32 (channels, n) in [-1, 1].
        sample_rate_hz: the source's own rate.
        time_s: presentation time of the first sample in seconds.
        arrival_s: `time.monotonic()` at decoding or capture.
    """

    samples: np.ndarray
    sample_rate_hz: int
    time_s: float
    arrival_s: float

    @property
    def end_s(self) -> float:
        """Presentation time just after the last sample."""
        return self.time_s + self.samples.shape[1] / self.sample_rate_hz


@dataclass(frozen=True, slots=True)
class Face:
    """One tracked face in one frame.

    Attributes:
        track_id: stable number of this person's track, from 1.
        box: its place in the frame, pixels.
        score: probability that it is a face, 0 to 1.
    """

    track_id: int
    box: Box
    score: float


@dataclass(frozen=True, eq=False, slots=True)
class Clip:
    """The model's input for one face track (or for the voice alone) over one window.

    Attributes:
        start_s, end_s: the window in presentation time.
        track_id: the face track, None when the window has no face.
        box: newest face box of the window, None without a face.
        frames: uint8 (16, S, S, 3) RGB crops, None without a face.
        mel: float32 (512, 128) log-mel before normalisation, None without sound.
        newest_arrival_s: `time.monotonic()` at which the newest datum of the window arrived.
        times_s: presentation time of each of the frames; empty for a whole file and without a face.
    """

    start_s: float
    end_s: float
    track_id: int | None
    box: Box | None
    frames: np.ndarray | None
    mel: np.ndarray | None
    newest_arrival_s: float
    times_s: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class Emotion:
    """What the model says about one clip; one record of every sink.

    Attributes:
        start_s, end_s: the window in presentation time (PTS) of the source, seconds.
        track_id: the face track, None when the answer comes from the voice alone.
        box: newest face box of the window in pixels, None without a face.
        modalities: those that the clip has, from ("video", "audio").
        labels: class names, in the order of `probabilities`.
        probabilities: float32 (C,), sum 1, calibrated by the bundle's temperature.
        age_ms: time between the arrival of the newest datum and this answer, milliseconds.
    """

    start_s: float
    end_s: float
    track_id: int | None
    box: Box | None
    modalities: tuple[str, ...]
    labels: tuple[str, ...]
    probabilities: np.ndarray
    age_ms: float

    @property
    def label(self) -> str:
        """Name of the most probable class."""
        return self.labels[int(self.probabilities.argmax())]

    @property
    def confidence(self) -> float:
        """Probability of the most probable class."""
        return float(self.probabilities.max())

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values, rounded: what the JSON Lines sink writes."""
        return {
            "start_s": round(self.start_s, TIME_DIGITS),
            "end_s": round(self.end_s, TIME_DIGITS),
            "track_id": self.track_id,
            "box": None if self.box is None else [round(float(value), PIXEL_DIGITS) for value in self.box],
            "modalities": list(self.modalities),
            "label": self.label,
            "probabilities": {
                label: round(float(p), PROBABILITY_DIGITS)
                for label, p in zip(self.labels, self.probabilities, strict=True)
            },
            "age_ms": round(self.age_ms, AGE_DIGITS),
        }
