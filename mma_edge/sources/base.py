"""The interface of every source of frames and sound."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from mma_edge.errors import UsageError
from mma_edge.types import AudioChunk, Frame

Event = Frame | AudioChunk


@dataclass
class SourceStats:
    """Counters that a source updates while it is read.

    Attributes:
        frames: frames handed out.
        audio_s: seconds of sound handed out.
        dropped_frames: live only: frames that a newer one overwrote before they were read.
        dropped_audio_s: live only: seconds of sound discarded because they were not read in time.
        damaged_packets: packets that could not be read or decoded.
        damaged_frames: frames left out because they depend on damaged data (grey or smeared faces).
        undated_frames: frames left out because the file gives them no presentation time.
        out_of_order: frames and sound blocks left out because their time runs backwards.
        reopened: live only: how often a stalled device came back.
    """

    frames: int = 0
    audio_s: float = 0.0
    dropped_frames: int = 0
    dropped_audio_s: float = 0.0
    damaged_packets: int = 0
    damaged_frames: int = 0
    undated_frames: int = 0
    out_of_order: int = 0
    reopened: int = 0

    def count(self, event: Event) -> None:
        """Count one event that is about to be handed out."""
        if isinstance(event, Frame):
            self.frames += 1
        else:
            self.audio_s += event.samples.shape[1] / event.sample_rate_hz


class Source(AbstractContextManager):
    """Frames and sound on one clock. Constructors do everything that can fail; use it in a `with` block.

    Attributes:
        name: short name for messages and records: the file's name, "camera:0".
        live: True when the source does not wait for its reader.
        has_video, has_audio: whether it delivers frames, sound.
        stats: counters, see `SourceStats`.
    """

    name: str
    live: bool
    has_video: bool
    has_audio: bool
    stats: SourceStats
    _started = False
    _closed = False

    def _start(self) -> None:
        """To be called by `events`; UsageError at the second call."""
        if self._started:
            raise UsageError(f"the events of {self.name} were read before", "one pass", "open the source again")
        self._started = True

    @abstractmethod
    def events(self) -> Iterator[Event]:
        """Frames and sound in presentation order (live: in order of arrival). They can be read only once."""

    @abstractmethod
    def close(self) -> None:
        """Release the file or device. Safe to call twice."""

    def __exit__(self, *exc_info: object) -> None:
        self.close()
