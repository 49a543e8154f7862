"""What annotation tools and subtitles show: one time line per source, with a tier for each face and for the voice.

All times are whole milliseconds from the time line's 0, which is that of the video file where there is one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MARK_MS = 500
"""How long a mark lasts where a format has no moments, or shorter where the next mark comes sooner."""
MARKS = "marks"
"""Name of their tier."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One label from start_ms up to end_ms, which comes after it."""

    start_ms: int
    end_ms: int
    label: str

    def moved(self, by_ms: int) -> Segment:
        """The same later, or earlier; what would be before 0 is cut off."""
        return Segment(max(0, self.start_ms + by_ms), self.end_ms + by_ms, self.label)


@dataclass(frozen=True, slots=True)
class Tier:
    """The segments of one face, or of the voice where no face was; in order of time, without overlap."""

    name: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    """What somebody noted while a session ran."""

    time_ms: int
    text: str


@dataclass(frozen=True, slots=True)
class Media:
    """The video, or sound, that a time line belongs to."""

    path: Path
    mime_type: str
    duration_ms: int | None
    rate_fps: float | None
    start_s: float  # presentation time at which players begin to count


@dataclass(frozen=True, slots=True)
class TimeLine:
    """All that is known of one source."""

    source: str
    tiers: tuple[Tier, ...]
    marks: tuple[Mark, ...]  # in order of time, no two at the same
    labels: tuple[str, ...]  # all that the segments may have
    end_ms: int  # of everything: no segment or mark is later
    media: Media | None = None


def tier_name(track_id: int | None) -> str:
    """What the tier of a track is called; 0 is the centre of the picture, None the voice alone."""
    return {None: "voice", 0: "centre"}.get(track_id, f"face {track_id}")


def plain(text: str) -> str:
    """The text on one line, never empty, without what XML and text formats cannot hold: control characters and half
    pairs."""
    kept = (" " if unicodedata.category(sign) in ("Cc", "Cs", "Cn", "Zl", "Zp") else sign for sign in text)
    return " ".join("".join(kept).split()) or "-"


def apart(marks: Iterable[Mark]) -> tuple[Mark, ...]:
    """Marks in order of time, those of the same moment a millisecond apart: no format can hold two at once."""
    placed: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: mark.time_ms):
        least_ms = placed[-1].time_ms + 1 if placed else 0
        placed.append(Mark(max(mark.time_ms, least_ms), mark.text))
    return tuple(placed)


def mark_segments(time_line: TimeLine, length_ms: int = MARK_MS) -> Iterator[Segment]:
    """The marks as segments, for formats that have no moments."""
    marks = time_line.marks
    for number, mark in enumerate(marks):
        end_ms = mark.time_ms + length_ms
        if number + 1 < len(marks):
            end_ms = min(end_ms, marks[number + 1].time_ms)
        yield Segment(mark.time_ms, end_ms, mark.text)


def seconds(time_ms: int) -> str:
    """Seconds as the formats write them, such as 3.75."""
    return f"{time_ms / 1000:.3f}".rstrip("0").rstrip(".")
