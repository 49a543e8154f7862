"""Two people side by side, of whom one, or none, is heard: composed of clips of one person each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from mma_edge.audio.logmel import FRAME_SHIFT_MS, log_mel
from mma_edge.errors import DataError
from mma_edge.faces.speaker import VOICE_BINS
from mma_edge.sources import Event, Source, SourceStats, open_source
from mma_edge.sources.file import videos_in
from mma_edge.types import AudioChunk, Frame

PIECE_S = 4.0
"""Longest piece of a clip: the window of a run."""
SHORTEST_S = 1.8
LONGEST_SIDE_PX = 480
"""Larger pictures are shrunk: two portraits side by side are then about as large as a camera's picture."""
QUIET, STILL_S, SMOOTH_ROWS = 7.0, 0.4, 7
"""A stretch without a voice is so far below the loud parts (natural logarithms of power: 30 dB), averaged over so many
rows of the log-mel, for so long."""
Stretch = tuple[int, int]
"""First picture of a piece, and the one after the last."""


@dataclass(frozen=True)
class Piece:
    """Where one person is seen and heard."""

    path: Path
    start_s: float
    end_s: float

    @property
    def person(self) -> str:
        """What the file's name begins with, up to a dash or underscore."""
        return re.match(r"[^-_]*", self.path.stem).group()


@dataclass(frozen=True, eq=False)
class Footage:
    """A piece in memory; times count from its beginning."""

    images: list[np.ndarray]  # uint8 (H, W, 3) RGB
    times_s: np.ndarray
    wave: np.ndarray  # float32 (n,)
    sample_rate_hz: int


def pieces_of(source: Path) -> list[Piece]:
    """The pieces of a clip, or of the clips of a folder; DataError where there are none."""
    if not source.exists():
        raise DataError(
            f"{source} does not exist", "clips of one person each, or a folder of such clips", "see --source"
        )
    pieces = []
    for path in videos_in(source) if source.is_dir() else [source]:
        with open_source(path) as clip:
            length_s = clip.duration_s if clip.has_video and clip.has_audio else 0.0
        count = max(1, int((length_s or 0.0) / PIECE_S))
        pieces += [Piece(path, k * PIECE_S, min((k + 1) * PIECE_S, length_s)) for k in range(count)]
    pieces = [piece for piece in pieces if piece.end_s - piece.start_s >= SHORTEST_S]
    if not pieces:
        raise DataError(f"{source} has no clip with picture and sound of {SHORTEST_S} s or more", "one", "see --source")
    return pieces


@lru_cache(maxsize=8)
def footage(piece: Piece) -> Footage:
    """Read a piece."""
    images, times_s, sound, rate_hz, sound_s = [], [], [], 0, None
    with open_source(piece.path) as clip:
        for event in clip.events():
            if event.time_s >= piece.end_s:
                break
            if isinstance(event, AudioChunk):
                sound_s = event.time_s if sound_s is None else sound_s
                sound.append(event.samples[0])
                rate_hz = event.sample_rate_hz
            elif event.time_s >= piece.start_s:
                images.append(_shrunk(event.image))
                times_s.append(event.time_s - piece.start_s)
    wave = np.concatenate(sound)
    first = round((piece.start_s - sound_s) * rate_hz)
    wave = np.concatenate([np.zeros(max(0, -first), np.float32), wave[max(0, first) :]])
    return Footage(images, np.array(times_s), wave[: round((piece.end_s - piece.start_s) * rate_hz)], rate_hz)


def _shrunk(image: np.ndarray) -> np.ndarray:
    scale = LONGEST_SIDE_PX / max(image.shape[:2])
    if scale >= 1:
        return image
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def still_stretch(piece: Piece) -> Stretch | None:
    """The longest stretch of a piece's pictures in which nobody speaks, None where it is shorter than STILL_S."""
    own = footage(piece)
    # Row by row: `log_mel` holds 5.12 s, more than a piece.
    level = log_mel(own.wave, own.sample_rate_hz)[: int(1000 * len(own.wave) / own.sample_rate_hz / FRAME_SHIFT_MS)]
    level = np.convolve(level[:, VOICE_BINS].mean(axis=1), np.ones(SMOOTH_ROWS) / SMOOTH_ROWS, "same")
    rows = (own.times_s * 1000 / FRAME_SHIFT_MS).astype(int).clip(0, len(level) - 1)
    quiet = level[rows] < np.percentile(level, 95) - QUIET
    edges = np.flatnonzero(np.diff(np.r_[False, quiet, False].astype(int)))
    stretches = [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    longest = max(stretches, key=lambda stretch: stretch[1] - stretch[0], default=(0, 0))
    spans = own.times_s[longest[1] - 1] - own.times_s[longest[0]] if longest[1] else 0.0
    return longest if spans >= STILL_S else None


def back_and_forth(stretch: Stretch, count: int) -> np.ndarray:
    """`count` numbers of pictures: those of a stretch to its end and back again, as often as need be."""
    there = np.arange(*stretch)
    return np.resize(np.concatenate([there, there[-2:0:-1]]), count)


class SideBySide(Source):
    """Two pieces in one picture, left and right, with a sound from any piece; a stretch is shown back and forth."""

    live, has_video, has_audio = False, True, True

    def __init__(self, left: Piece, right: Piece, voice: Piece, still: dict[Piece, Stretch]) -> None:
        """`still` has the stretch of each of the two that is shown in a stretch of its own."""
        self.name, self.stats = "composed", SourceStats()
        self._parts, self._voice, self._still = (footage(left), footage(right)), footage(voice), still
        self._pieces = left, right
        ends_s = [part.times_s[-1] for piece, part in zip(self._pieces, self._parts, strict=True) if piece not in still]
        self._end_s = min(*ends_s, len(self._voice.wave) / self._voice.sample_rate_hz)

    def events(self) -> Iterator[Event]:
        events = [*self._pictures(), *self._sound()]
        yield from sorted(events, key=lambda event: event.time_s)

    def _pictures(self) -> Iterator[Frame]:
        clock = self._voice.times_s[self._voice.times_s <= self._end_s]
        height = max(part.images[0].shape[0] for part in self._parts)
        shown = []
        for piece, part in zip(self._pieces, self._parts, strict=True):
            nearest = np.abs(clock[:, None] - part.times_s).argmin(axis=1)
            shown.append(back_and_forth(self._still[piece], len(clock)) if piece in self._still else nearest)
        for time_s, *numbers in zip(clock, *shown, strict=True):
            images = [part.images[number] for part, number in zip(self._parts, numbers, strict=True)]
            padded = [np.pad(image, ((0, height - len(image)), (0, 0), (0, 0))) for image in images]
            yield Frame(np.concatenate(padded, axis=1), float(time_s), 0.0)

    def _sound(self) -> Iterator[AudioChunk]:
        rate_hz, block = self._voice.sample_rate_hz, self._voice.sample_rate_hz // 10
        wave = self._voice.wave[: round(self._end_s * rate_hz)]
        for at in range(0, len(wave), block):
            yield AudioChunk(wave[None, at : at + block], rate_hz, at / rate_hz, 0.0)

    @property
    def border_px(self) -> int:
        """Where the left one ends."""
        return self._parts[0].images[0].shape[1]

    def close(self) -> None:
        """Nothing to release."""
