"""The thread that owns a connection: it opens, reads, closes, and connects again when the stream ends."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator

import av
from av.container import InputContainer

from mma_edge.errors import MMAEdgeError, SourceError
from mma_edge.sources.base import Event, SourceStats
from mma_edge.sources.live import LiveBuffer
from mma_edge.sources.network.address import Address
from mma_edge.sources.network.clock import ArrivalClock, Clock, PlayingClock, StreamClock
from mma_edge.sources.network.connection import Limits, explained, open_container
from mma_edge.sources.picture import DecodedPicture, Orientation
from mma_edge.sources.playing import Playout
from mma_edge.sources.tracks import decodable, to_float
from mma_edge.types import AudioChunk, Frame

_LATE_S = 0.5
"""Pictures decoded so late show that decoding is too slow: then those that no other needs are passed over."""
_READ_AHEAD_S = 1.0
"""How far what is stored is read ahead of its time."""
_UPRIGHT = Orientation()


class Backoff:
    """Pauses between attempts to connect: each twice as long as the one before, none exactly as long."""

    def __init__(
        self,
        first_s: float = 0.5,
        longest_s: float = 30.0,
        jitter: float = 0.2,  # share by which a pause differs, so that several sources do not ask all at once
        calm_s: float = 20.0,  # a connection that lasted so long begins the pauses again
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._first_s, self._longest_s, self._jitter, self._calm_s = first_s, longest_s, jitter, calm_s
        self._chance, self._pause_s = chance, first_s

    def pause_s(self, lasted_s: float) -> float:
        """The next pause, after a connection that lasted so long (0: none)."""
        if lasted_s >= self._calm_s:
            self._pause_s = self._first_s
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, self._longest_s)
        return pause_s * (1 + self._jitter * (2 * self._chance() - 1))


class NetworkReader(threading.Thread):
    """Reads into a buffer; `time_s` of what it puts there is on `time.monotonic()`.

    PyAV's calls cannot be interrupted and a container must not be closed while another thread reads it: so this thread
    alone touches it, and `stop` takes effect when a read ends, at the latest after twice `Limits.read_s`.
    """

    def __init__(
        self,
        address: Address,
        buffer: LiveBuffer,
        stats: SourceStats,  # damaged packets and the like are counted there
        audio: bool,
        limits: Limits,
        backoff: Backoff,
        connect: Callable[[Address, Limits], InputContainer] = open_container,  # tests replace it
    ) -> None:
        super().__init__(name="network-reader", daemon=True)
        self._address, self._buffer, self._stats, self._audio = address, buffer, stats, audio
        self._limits, self._backoff, self._connect = limits, backoff, connect
        self._stop_asked = threading.Event()
        self._again = threading.Event()  # set: leave this connection, or the pause, and connect
        self._newest_s = {"video": float("-inf"), "audio": float("-inf")}
        self._clock: Clock = ArrivalClock()
        # For the thread that takes the events.
        self.ready = threading.Event()  # set once the first packet is here, or cannot come
        self.failure: MMAEdgeError | None = None  # why no connection could be made
        self.why = ""  # the last one ended
        self.connected = False
        self.connections = 0  # that delivered something
        self.finished = False  # what was read has an end, and it is reached
        self.last_arrival_s = 0.0
        self.size = (0, 0)  # (width, height) of the newest frame of this connection
        self.missing: dict[str, str] = {}  # why there is no "video" or "audio"

    @property
    def by_arrival(self) -> bool:
        """Whether picture and sound are aligned by their arrival, because the stream does not say more."""
        return self._clock.by_arrival

    def stop(self) -> None:
        """Ask the thread to end; does not wait for it."""
        self._stop_asked.set()
        self._again.set()

    def reconnect(self) -> None:
        """Ask for a new connection instead of this one or of the pause; takes effect as `stop` does."""
        self._again.set()

    def run(self) -> None:
        """The thread: connect, read to the end, pause, until it is stopped or there is nothing more to come."""
        while not self._stop_asked.is_set():
            start_s = time.monotonic()
            self._again.clear()
            self.size = (0, 0)
            try:
                with self._connect(self._address, self._limits) as container:
                    self.finished = self._read(container)
                self.why = "the machine slept" if self._again.is_set() else "the server ended it"
            except MMAEdgeError as error:
                self.failure = error
            except Exception as error:  # whatever a library raises ends this connection, never the thread
                self._note_failure(error, start_s)
            lasted_s = time.monotonic() - start_s if self.connected else 0.0
            self.connected = False
            self.ready.set()
            if not self.connections and self.failure is None:
                self.failure = SourceError(f"{self._address.shown} ended before anything came", "a media stream")
            if self.finished or not self.connections:
                return
            pause_s = self._backoff.pause_s(lasted_s)
            if not self._stop_asked.is_set():
                self._again.wait(pause_s)

    def _note_failure(self, error: Exception, start_s: float) -> None:
        now_s = time.monotonic()
        if not self.connected:
            self.failure = explained(self._address, error, self._limits.open_s, now_s - start_s)
        elif isinstance(error, av.error.ExitError) or now_s - self.last_arrival_s > self._limits.read_s:
            self.why = f"nothing came for {now_s - self.last_arrival_s:.0f} s"
        else:
            self.why = self._address.hide(getattr(error, "strerror", None) or type(error).__name__)

    def _read(self, container: InputContainer) -> bool:
        """Read to the end of the stream; whether that was the end of something stored."""
        streams = self._streams(container)
        stored = self._address.scheme in ("http", "https") and bool(container.duration)
        self._clock = self._clock_for(container, stored)
        playout = Playout(self._buffer, self._stop_asked, _READ_AHEAD_S)
        hand_out = playout.add if isinstance(self._clock, PlayingClock) else self._buffer.put
        for packet in container.demux(streams):
            # What is stored would begin anew.
            if self._stop_asked.is_set() or (self._again.is_set() and not stored):
                return False
            if packet.size:
                self._note_arrival()
            try:
                frames = packet.decode()
            except av.error.EOFError:
                continue
            except av.FFmpegError:
                self._stats.damaged_packets += 1
                continue
            if isinstance(self._clock, StreamClock):
                # Set when a sender report came; older versions of PyAV do not tell.
                self._clock.vouched = getattr(container, "start_time_realtime", None) is not None
            for frame in frames:
                for event in self._placed(packet.stream, frame):
                    hand_out(event)
        playout.finish()
        return stored

    def _streams(self, container: InputContainer) -> list[av.stream.Stream]:
        """The picture and the sound that are read; the first connection decides what is missing."""
        chosen, missing = [], {}
        for kind, streams in (("video", container.streams.video), ("audio", container.streams.audio)):
            stream = decodable(list(streams)) if kind == "video" or self._audio else None
            if stream is not None:
                chosen.append(stream)
            else:
                names = ", ".join(sorted({each.codec.name if each.codec_context else "unknown" for each in streams}))
                missing[kind] = f"PyAV has no decoder for its {kind} ({names})" if names else f"it sends no {kind}"
        if not chosen:
            raise SourceError(
                f"{self._address.shown}: {' and '.join(missing.values())}", "a stream that can be decoded"
            )
        self.missing = missing
        return chosen

    def _clock_for(self, container: InputContainer, stored: bool) -> Clock:
        kind = container.format.name
        if kind in ("mpjpeg", "mjpeg"):
            return ArrivalClock()
        if stored or kind == "hls":
            return PlayingClock(_READ_AHEAD_S)
        return StreamClock(one_clock=kind != "rtsp")

    def _note_arrival(self) -> None:
        self.last_arrival_s = time.monotonic()
        if not self.connected:
            self.connected = True
            self.connections += 1
            self.ready.set()

    def _placed(self, stream: av.stream.Stream, frame: av.VideoFrame | av.AudioFrame) -> Iterator[Event]:
        """The frame as an event with its time on this machine's clock; none where it has no time or comes late."""
        arrival_s, kind = time.monotonic(), stream.type
        if frame.time is None and not isinstance(self._clock, ArrivalClock):
            self._stats.undated_frames += 1
            return
        time_s = self._clock.place(kind, frame.time or 0.0, arrival_s)
        if time_s is None:
            return
        if kind == "video" and not isinstance(self._clock, PlayingClock):
            stream.codec_context.skip_frame = "NONREF" if arrival_s - time_s > _LATE_S else "DEFAULT"
        if time_s <= self._newest_s[kind]:
            self._stats.out_of_order += 1
            return
        self._newest_s[kind] = time_s
        if kind == "video":
            self.size = (frame.width, frame.height)
            yield Frame(DecodedPicture(frame, _UPRIGHT), time_s, arrival_s)
        elif frame.samples:
            yield AudioChunk(to_float(frame), frame.sample_rate, time_s, arrival_s)
