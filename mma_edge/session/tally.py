"""What a session counts of one source, and the events that follow from it: gaps, drops, its end."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from mma_edge.sources import Source, SourceStats
from mma_edge.types import TIME_DIGITS, AudioChunk, Frame

PICTURE_GAP_S, SOUND_GAP_S = 1.0, 0.25
"""Nothing for longer is a gap. A slow film has none: its pictures are always so far apart."""
_SLOW = 4.0
"""A step between pictures of less than so many times the one before is no gap."""
DROPS_S = 60.0
"""Drops that go on and on are one event in so many seconds."""


@dataclass(frozen=True)
class SourceEvent:
    """One line of events.jsonl, but for its times of day."""

    kind: str  # "gap", "drop", "notice" or "end"
    text: str
    source: str | None = None
    start_s: float | None = None  # PTS
    end_s: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "source": self.source,
            "start_s": rounded(self.start_s),
            "end_s": rounded(self.end_s),
            "text": self.text,
        }


def rounded(time_s: float | None) -> float | None:
    return None if time_s is None else round(time_s, TIME_DIGITS)


@dataclass
class SourceTally:
    """Its frames and sound come by one thread; another one may read what is counted."""

    name: str
    live: bool
    stats: SourceStats
    at_start: SourceStats  # the same counters when the session began
    size: tuple[int, int] | None = None  # of the first picture
    first_s: float | None = None  # PTS of the first frame or sound
    last_s: float | None = None  # of the newest
    frames: int = 0
    sound_s: float = 0.0
    ended: bool = False
    error: str | None = None
    _frame_s: float | None = None
    _step_s: float = 0.0
    _heard_s: float | None = None
    # Dropped frames and seconds of sound that an event told, and at the last look; PTS when nothing was left to tell.
    _told: tuple[int, float] = (0, 0.0)
    _looked: tuple[int, float] = (0, 0.0)
    _quiet_s: float = 0.0

    @classmethod
    def of(cls, name: str, source: Source) -> SourceTally:
        return cls(name, source.live, source.stats, dataclasses.replace(source.stats))

    def frame(self, frame: Frame) -> SourceEvent | None:
        """Count a frame; the gap before it where there is one."""
        if self.size is None:
            self.size = (frame.picture.shape[1], frame.picture.shape[0])
        before_s, self._frame_s = self._frame_s, frame.time_s
        self.frames += 1
        self._reach(frame.time_s)
        step_s, usual_s = 0.0 if before_s is None else frame.time_s - before_s, self._step_s
        self._step_s = step_s
        if step_s > max(PICTURE_GAP_S, _SLOW * usual_s):
            return SourceEvent("gap", f"no picture for {step_s:.1f} s", self.name, before_s, frame.time_s)
        return None

    def sound(self, chunk: AudioChunk) -> SourceEvent | None:
        """Count sound; the gap before it where there is one."""
        before_s, self._heard_s = self._heard_s, chunk.end_s
        self.sound_s += chunk.samples.shape[1] / chunk.sample_rate_hz
        self._reach(chunk.time_s, chunk.end_s)
        if before_s is not None and chunk.time_s - before_s > SOUND_GAP_S:
            text = f"no sound for {chunk.time_s - before_s:.1f} s"
            return SourceEvent("gap", text, self.name, before_s, chunk.time_s)
        return None

    def _reach(self, start_s: float, end_s: float | None = None) -> None:
        if self.first_s is None:
            self.first_s = start_s
        self.last_s = max(self.last_s or start_s, start_s if end_s is None else end_s)

    @property
    def dropped_frames(self) -> int:
        return self.stats.dropped_frames - self.at_start.dropped_frames

    @property
    def dropped_sound_s(self) -> float:
        return self.stats.dropped_audio_s - self.at_start.dropped_audio_s

    def drops(self, last: bool = False) -> SourceEvent | None:
        """What was dropped, once that has stopped, lasts for DROPS_S, or it is the `last` look."""
        now_s, dropped = self.last_s or 0.0, (self.dropped_frames, self.dropped_sound_s)
        grows, self._looked = dropped != self._looked, dropped
        if dropped == self._told:
            self._quiet_s = now_s
            return None
        if grows and not last and now_s - self._quiet_s < DROPS_S:
            return None
        frames, sound_s = dropped[0] - self._told[0], dropped[1] - self._told[1]
        event_start_s, self._told, self._quiet_s = self._quiet_s, dropped, now_s
        lost = [f"{frames} frames dropped"] if frames else []
        lost += [f"{sound_s:.1f} s of sound lost"] if sound_s else []
        return SourceEvent("drop", ", ".join(lost), self.name, event_start_s, now_s)

    def to_dict(self) -> dict[str, Any]:
        """Its entry of the manifest, without the video."""
        return {
            "live": self.live,
            "size": None if self.size is None else list(self.size),
            "first_s": rounded(self.first_s),
            "last_s": rounded(self.last_s),
            "frames": self.frames,
            "dropped_frames": self.dropped_frames,
            "sound_s": rounded(self.sound_s),
            "dropped_sound_s": rounded(self.dropped_sound_s),
            "reopened": self.stats.reopened - self.at_start.reopened,
            "error": self.error,
        }
