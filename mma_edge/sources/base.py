"""The interface of every source of frames and sound."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

from mma_edge.errors import UsageError
from mma_edge.types import AudioChunk, Emotion, Frame

if TYPE_CHECKING:
    from mma_edge.web.server import WebServer

Event = Frame | AudioChunk


@dataclass
class SourceStats:
    """Counters that a source updates while it is read: what was handed out, and what was not."""

    frames: int = 0
    audio_s: float = 0.0
    dropped_frames: int = 0  # live only: a newer frame overwrote them before they were read
    dropped_audio_s: float = 0.0  # live only: not read in time
    damaged_packets: int = 0  # could not be read or decoded
    damaged_frames: int = 0  # depend on damaged data (grey or smeared faces)
    undated_frames: int = 0  # the file gives them no presentation time
    out_of_order: int = 0  # frames and sound blocks whose time runs backwards
    reopened: int = 0  # live only: how often a stalled device came back

    def count(self, event: Event) -> None:
        """Count one event that is about to be handed out."""
        if isinstance(event, Frame):
            self.frames += 1
        else:
            self.audio_s += event.samples.shape[1] / event.sample_rate_hz


@dataclass(frozen=True)
class CaptureOptions:
    """What is asked of devices, and of a file that is to behave like one; None: the device's own choice."""

    size: tuple[int, int] | None = None  # (width, height) of a camera's pictures
    rate_fps: float | None = None
    pixel_format: str | None = None  # FOURCC of V4L2, such as MJPG or YUYV
    microphone: str | None = None  # part of its name, or its number; NO_MICROPHONE for none
    realtime: bool = False  # play a file at its own pace
    # By how much the sound is delayed against the picture; None: as it was measured and remembered for the devices.
    audio_delay_ms: float | None = None
    tls_cert: Path | None = None  # PEM: what a page proves itself with
    tls_key: Path | None = None  # PEM; None: it is in the same file
    server: WebServer | None = None  # whose page browsers send by; None: one of their own

    def __post_init__(self) -> None:
        delay_ms, most_ms = self.audio_delay_ms, MOST_DELAY_MS
        if delay_ms is not None and not (isinstance(delay_ms, Real) and abs(delay_ms) <= most_ms):  # NaN fails too
            expected = f"milliseconds from -{most_ms} to {most_ms}"
            raise UsageError(f"--audio-delay-ms {delay_ms}", expected, "mma-edge doctor --sync SOURCE measures it")


NO_MICROPHONE = "none"
MOST_DELAY_MS = 2000
"""Larger delays are no offset of devices."""


class Source(AbstractContextManager):
    """Frames and sound on one clock. Constructors do everything that can fail; use it in a `with` block."""

    name: str  # for messages and records: the file's name, "camera:0"
    live: bool  # does not wait for its reader
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

    def show(self, emotion: Emotion) -> None:
        """Take an answer about what this source delivered, to show it to whoever sends it. Never waits."""

    def resume(self) -> None:
        """After the machine slept: what a live source is connected to may be gone, so connect again at once. May be
        called from any thread."""

    @abstractmethod
    def close(self) -> None:
        """Release the file or device. Safe to call twice, and while another thread takes the events, which then end."""

    def __exit__(self, *exc_info: object) -> None:
        self.close()
