"""The data that travels between the parts of the runtime: frozen dataclasses with numpy arrays.

One clock: `time_s` is the presentation time of the source in seconds (PTS of a file, capture time of a live device),
the same for frames and sound. `arrival_s` is `time.monotonic()` at decoding or capture; a datum's age counts from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

TIME_DIGITS, PROBABILITY_DIGITS, PIXEL_DIGITS, AGE_DIGITS = 3, 6, 1, 1
"""Decimals of a record's seconds, probabilities (and the share of speech), pixels and milliseconds."""
UNCERTAIN = "uncertain"
"""Label of a record whose most probable class is not probable enough, see `mma_edge.pipeline.StreamOptions`."""
Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in pixels of the upright frame; x1, y1 exclusive; may reach past the border."""

Notify = Callable[[str], None]
"""Takes one line that the user should see once, such as "no microphone: vision only, because ..."."""


def ignore_notice(line: str) -> None:
    """The `Notify` of a caller that wants no notices."""


def as_box(values: np.ndarray) -> Box:
    """An array (4,) as a Box."""
    return tuple(map(float, values))


class Picture(Protocol):
    """What faces are looked for in: an array uint8 (H, W, 3) RGB, or what gives parts of one as an array does."""

    shape: tuple[int, ...]  # (H, W, 3)
    dtype: np.dtype  # uint8

    def __getitem__(self, part: tuple[slice, slice]) -> np.ndarray: ...
    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray: ...


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """One upright video frame."""

    picture: Picture  # rotation flags already applied; a file's becomes RGB only where it is looked at
    time_s: float
    arrival_s: float

    @property
    def image(self) -> np.ndarray:
        """The whole picture, uint8 (H, W, 3) RGB."""
        return np.asarray(self.picture)


@dataclass(frozen=True, eq=False, slots=True)
class AudioChunk:
    """Consecutive samples of one source."""

    samples: np.ndarray  # float32 (channels, n) in [-1, 1]
    sample_rate_hz: int  # the source's own
    time_s: float  # of the first sample
    arrival_s: float

    @property
    def end_s(self) -> float:
        """Presentation time just after the last sample."""
        return self.time_s + self.samples.shape[1] / self.sample_rate_hz


@dataclass(frozen=True, slots=True)
class Face:
    """One tracked face in one frame."""

    track_id: int  # stable number of this person's track, from 1
    box: Box
    score: float  # probability that it is a face, 0 to 1


@dataclass(frozen=True, eq=False, slots=True)
class Clip:
    """The model's input for one face track (or for the voice alone) over one window of presentation time."""

    start_s: float
    end_s: float
    track_id: int | None  # None when the window has no face
    box: Box | None  # the newest of the window
    frames: np.ndarray | None  # uint8 (16, S, S, 3) RGB crops, None without a face
    mel: np.ndarray | None  # float32 (512, 128) log-mel before normalisation, None without sound
    newest_arrival_s: float  # of the newest datum of the window
    times_s: tuple[float, ...] = ()  # of each of the frames; empty for a whole file and without a face
    voice: float | None = None  # share of speech in its sound, 0 to 1; None: no sound, or nobody listened for speech
    speaking: float | None = None  # how well the mouth moves with the voice, 0 to 1; None with one face, or unknown


@dataclass(frozen=True, eq=False, slots=True)
class Emotion:
    """What the model says about one clip; one record of every sink. Window, track and box are the clip's."""

    start_s: float
    end_s: float
    track_id: int | None  # None when the answer comes from the voice alone
    box: Box | None
    modalities: tuple[str, ...]  # those that the clip has, from ("video", "audio")
    labels: tuple[str, ...]  # class names, in the order of `probabilities`
    probabilities: np.ndarray  # float32 (C,), sum 1, calibrated by the bundle's temperature
    age_ms: float  # time between the arrival of the newest datum and this answer
    voice: float | None = None  # the clip's share of speech; "audio" is in `modalities` only where this is high enough
    abstained: bool = False  # the most probable class is not probable enough to be named
    source: str | None = None  # name of the source, None where the clip came from none
    speaking: float | None = None  # the clip's: one of several faces has the sound alone where this is clearly highest
    smoothed_s: float | None = None  # time over which the probabilities were averaged

    @property
    def label(self) -> str:
        """Name of the most probable class, or UNCERTAIN."""
        return UNCERTAIN if self.abstained else self.labels[int(self.probabilities.argmax())]

    @property
    def confidence(self) -> float:
        """Probability of the most probable class, also where the answer is UNCERTAIN."""
        return float(self.probabilities.max())

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values, rounded: what the JSON Lines sink writes."""
        record = {
            "start_s": round(self.start_s, TIME_DIGITS),
            "end_s": round(self.end_s, TIME_DIGITS),
            "track_id": self.track_id,
            "box": None if self.box is None else [round(float(value), PIXEL_DIGITS) for value in self.box],
            "modalities": list(self.modalities),
            "voice": None if self.voice is None else round(self.voice, PROBABILITY_DIGITS),
            "label": self.label,
            "probabilities": {
                label: round(float(p), PROBABILITY_DIGITS)
                for label, p in zip(self.labels, self.probabilities, strict=True)
            },
            "age_ms": round(self.age_ms, AGE_DIGITS),
            "source": self.source,
        }
        # Only where they are known, so that the records of one face stay as they were.
        if self.speaking is not None:
            record["speaking"] = round(self.speaking, PROBABILITY_DIGITS)
        if self.smoothed_s is not None:
            record["smoothed_s"] = round(self.smoothed_s, TIME_DIGITS)
        return record


class Watcher(Protocol):
    """Sees what a pipeline reads, as it goes by: to record or to show it.

    Called in order of time by one thread per source, one that has other work: each method must return at once. Frames
    and samples are not to be changed.
    """

    def frame(self, source: str, frame: Frame, faces: Sequence[Face]) -> None:
        """A frame in which faces were looked for, and those that were found."""

    def sound(self, source: str, chunk: AudioChunk) -> None:
        """Sound, complete and in order."""
