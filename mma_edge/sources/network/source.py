"""A stream of the network as a source: once it was up, it is waited for."""

from __future__ import annotations

import time
from collections.abc import Callable

from av.container import InputContainer

from mma_edge.errors import SourceError
from mma_edge.sources.base import SourceStats
from mma_edge.sources.live import FRAMES_KEPT, BufferedSource, LiveBuffer
from mma_edge.sources.network.address import Address
from mma_edge.sources.network.connection import Limits, open_container
from mma_edge.sources.network.reader import Backoff, NetworkReader
from mma_edge.sources.notices import Notices
from mma_edge.types import Notify, ignore_notice

_READY_S = 5.0
"""What is added to the server's own time, for the first packet."""


class NetworkSource(BufferedSource):
    """Picture and sound of one address, from one connection. `time_s` counts from the first call of `events()`."""

    def __init__(
        self,
        address: Address,
        notify: Notify = ignore_notice,  # takes the notices (no sound, connection lost, connection back)
        audio: bool = True,
        *,
        limits: Limits | None = None,  # None: those of the address's scheme
        backoff: Backoff | None = None,
        connect: Callable[[Address, Limits], InputContainer] = open_container,  # tests replace it
    ) -> None:
        """SourceError or DependencyError where the stream cannot be opened. A stream lost later is waited for."""
        self.name = address.shown
        self.stats = SourceStats()
        self._notify = Notices(notify)
        self._limits = limits or Limits.of(address.scheme)
        self._buffer = LiveBuffer(self.stats, FRAMES_KEPT)
        self._lost_s: float | None = None  # since when nothing comes; None while it comes
        self._told_sync = False
        self._reader = NetworkReader(
            address, self._buffer, self.stats, audio, self._limits, backoff or Backoff(), connect
        )
        self._reader.start()
        try:
            self._check_opened(audio)
        except BaseException:
            self.close()
            raise

    def _check_opened(self, audio: bool) -> None:
        reader = self._reader
        longest_s = self._limits.open_s + 2 * self._limits.read_s + _READY_S
        if not reader.ready.wait(longest_s):
            raise SourceError(f"{self.name} did not answer for {longest_s:.0f} s", "a server that sends a stream")
        if not reader.connections:
            raise reader.failure
        self.has_video, self.has_audio = "video" not in reader.missing, audio and "audio" not in reader.missing
        if not self.has_video:
            self._notify(f"{self.name}: voice only, because {reader.missing['video']}")
        elif audio and not self.has_audio:
            self._notify(f"{self.name}: vision only, because {reader.missing['audio']}")

    @property
    def sync(self) -> str:
        """What aligns picture and sound: "stamps" of the stream, or "arrival" where it has none that agree."""
        return "arrival" if self._reader.by_arrival else "stamps"

    def _is_over(self) -> bool:
        return self._reader.finished

    def _watch(self) -> None:
        """Say once that the stream was lost, and once that it is back."""
        reader, now_s = self._reader, time.monotonic()
        self._notify.poll()
        quiet = now_s - reader.last_arrival_s > 2 * self._limits.read_s
        self.stats.reopened = reader.connections - 1
        if self._lost_s is None and not reader.finished and (quiet or not reader.connected):
            self._lost_s = reader.last_arrival_s
            why = f"nothing came for {now_s - reader.last_arrival_s:.0f} s" if quiet else reader.why
            self._notify(f"{self.name} was lost ({why}): waiting until it is back")
        elif self._lost_s is not None and reader.connected and not quiet and (any(reader.size) or not self.has_video):
            size = " ({}x{})".format(*reader.size) if self.has_video else ""
            self._notify(f"{self.name} is back after {now_s - self._lost_s:.1f} s{size}")
            self._lost_s = None
        if self.sync == "arrival" and self.has_video and self.has_audio and not self._told_sync:
            self._told_sync = True
            self._notify(f"{self.name}: its picture and sound have no common clock, so their arrival aligns them")

    def resume(self) -> None:
        self._reader.reconnect()

    def close(self) -> None:
        """Disconnect. A read that hangs is waited for, as long as PyAV takes to end it."""
        self._closed = True
        self._reader.stop()
        self._reader.join(2 * self._limits.read_s + 1.0)
        if self._reader.is_alive():
            self._notify(f"{self.name}: its connection did not end in time and is left to itself")
