"""The microphone of a live source, beside a camera, which goes on without it, or alone."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from mma_edge.errors import DeviceError, MMAEdgeError
from mma_edge.sources.base import Event, Source, SourceStats
from mma_edge.sources.devices.portaudio import InputStream, OpenStream, open_default_input, open_input
from mma_edge.sources.devices.sample_clock import SampleClock
from mma_edge.sources.live import KEEP_S
from mma_edge.types import AudioChunk, Notify, ignore_notice

_TICK_S = 0.05
"""Longest wait for sound before the microphone is looked at."""


class Microphone:
    """Collects blocks from the sound driver's thread until the reader takes them."""

    def __init__(
        self,
        notify: Notify,  # takes "stopped" and "is back", each once per event
        stats: SourceStats,  # its `dropped_audio_s` is updated
        *,
        open_stream: OpenStream = open_default_input,  # tests replace it
        clock: Callable[[], float] = time.monotonic,
        on_data: Callable[[], None] = lambda: None,  # called after each block, in the driver's thread: wakes the reader
        stall_s: float = 2.0,  # when nothing came for this long, or nothing but zeros, the microphone is gone
        first_block_s: float = 5.0,  # the same for the first block after opening; sound servers may take 2 s
        retry_s: float = 5.0,  # pause between attempts to reopen it
        meanwhile: str = "vision only until it is back",  # said when it is gone
    ) -> None:
        self._notify, self._stats, self._open_stream = notify, stats, open_stream
        self._clock, self._on_data = clock, on_data
        self._stall_s, self._first_block_s = stall_s, first_block_s
        self._retry_s, self._meanwhile = retry_s, meanwhile
        self._lock = threading.Lock()
        self._chunks: deque[AudioChunk] = deque()  # time_s on the clock, not yet relative to the source's start
        self._kept_s = 0.0
        self._generation = 0
        self._sample_clock = SampleClock()
        # When a block came last, and when one that was not all zeros; or when the stream was opened, if that is later.
        self._last_block_s = self._last_sound_s = self._reopened_s = clock()
        self.last_arrival_s = self._last_block_s  # when a block came last, whichever stream it came from
        self._gone = False
        self._delivered, self._heard = False, False  # whether the present stream has delivered a block, and sound
        self._stop = threading.Event()
        self._reopener: threading.Thread | None = None
        self._stream: InputStream | None = open_stream(partial(self._on_block, 0), False)

    def _on_block(self, generation: int, samples: np.ndarray, rate: int, age_s: float | None) -> None:
        """Runs in the driver's thread: give the block its time and store it."""
        now_s = self._clock()
        # The mean of the channels is a new array: the driver reuses its array after this call.
        mono = samples.mean(axis=1, dtype=np.float32)[np.newaxis]
        with self._lock:
            if generation != self._generation or self._stop.is_set():
                return
            self._last_block_s = self.last_arrival_s = now_s
            sounds = bool(samples.any())
            if sounds or not self._delivered:
                self._last_sound_s = now_s
            self._delivered, self._heard = True, self._heard or sounds
            start_s = self._sample_clock.place(len(samples), rate, now_s, age_s)
            if start_s is None or now_s - self._last_sound_s > self._stall_s:
                return
            self._chunks.append(AudioChunk(mono, rate, start_s, now_s))
            self._kept_s += len(samples) / rate
            while self._kept_s > KEEP_S and len(self._chunks) > 1:
                self._stats.dropped_audio_s += self._popped_length_s()
        self._on_data()

    def _popped_length_s(self) -> float:
        chunk = self._chunks.popleft()
        length_s = chunk.samples.shape[1] / chunk.sample_rate_hz
        self._kept_s -= length_s
        return length_s

    def clear(self) -> None:
        """Forget what was recorded so far; it does not count as dropped."""
        with self._lock:
            self._chunks.clear()
            self._kept_s = 0.0

    def oldest_arrival_s(self) -> float | None:
        """Arrival time of the block that `take` would return, None if it would return none."""
        with self._lock:
            return self._chunks[0].arrival_s if self._chunks else None

    def take(self, start_s: float) -> AudioChunk | None:
        """The oldest block, mono, with `time_s` counted from `start_s` on the clock; None without a block."""
        with self._lock:
            if not self._chunks:
                return None
            chunk = self._chunks[0]
            self._popped_length_s()
        return AudioChunk(chunk.samples, chunk.sample_rate_hz, chunk.time_s - start_s, chunk.arrival_s)

    @property
    def gone(self) -> bool:
        """Whether no sound comes; found out by `watch`."""
        return self._gone

    def watch(self) -> None:
        """Notice that no sound comes any more (drivers report neither an unplugged nor a muted microphone), or again.

        A dead stream is opened again. One of zeros is not: it is a muted microphone, or a sound server that gives
        silence in place of one that was unplugged, and gives the sound of the next one on the same stream.
        """
        with self._lock:
            now_s = self._clock()
            most_s = self._stall_s if self._delivered else self._first_block_s
            dead = now_s - self._last_block_s > most_s or (self._stream is not None and not self._stream.active)
            silent = self._delivered and now_s - self._last_sound_s > self._stall_s
            heard = self._heard
        if dead and (self._reopener is None or not self._reopener.is_alive()):
            self._reopener = threading.Thread(target=self._reopen, name="microphone-reopen", daemon=True)
            self._reopener.start()
        if dead or silent:
            if not self._gone:
                why = "stopped delivering (unplugged?)" if dead else "delivers nothing but zeros (muted or unplugged?)"
                self._notify(f"the microphone {why}: {self._meanwhile}")
            self._gone = True
        elif self._gone and heard:
            self._gone = False
            self._notify("the microphone is back")

    def _reopen(self) -> None:
        """Close the dead stream and open the input again; in a thread, because drivers block here."""
        with self._lock:
            self._generation += 1
            self._sample_clock, self._delivered, self._heard = SampleClock(), False, False
            generation = self._generation
            pause_s = self._reopened_s + self._retry_s - self._clock()  # a stream may die as soon as it is open
        self._close_stream()
        self._stop.wait(max(0.0, min(pause_s, self._retry_s)))
        while not self._stop.is_set():
            try:
                stream = self._open_stream(partial(self._on_block, generation), True)
            except MMAEdgeError:
                self._stop.wait(self._retry_s)
                continue
            with self._lock:
                # Give the new stream time before judging it.
                self._last_block_s = self._last_sound_s = self._reopened_s = self._clock()
                stopped = self._stop.is_set()
                self._stream = None if stopped else stream
            if stopped:
                stream.close()
            return

    def _close_stream(self) -> None:
        with self._lock:
            stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(Exception):  # PortAudio raises for a device that is gone
                stream.close()

    def close(self) -> None:
        """Stop recording."""
        self._stop.set()
        self._close_stream()


class MicrophoneSource(Source):
    """A microphone alone. `time_s` counts from the first call of `events()`."""

    live, has_video, has_audio = True, False, True

    def __init__(
        self,
        name: str | None = None,  # its number or a part of its name; None: the default one
        notify: Notify = ignore_notice,
        *,
        give_up_s: float = 60.0,  # after this time without sound comes DeviceError
        open_stream: OpenStream | None = None,  # tests replace it
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = "microphone" if name is None else f"microphone:{name}"
        self.stats = SourceStats()
        self._give_up_s, self._clock = give_up_s, clock
        self._wake = threading.Event()
        self._microphone = Microphone(
            notify,
            self.stats,
            open_stream=open_stream or open_input(name),
            clock=clock,
            on_data=self._wake.set,
            meanwhile=f"waiting for it, for up to {give_up_s:g} s",
        )

    def events(self) -> Iterator[Event]:
        """Its sound, until `close()`; DeviceError when it stopped and does not come back."""
        self._microphone.clear()
        self._start()
        return self._arriving(self._clock())

    def _arriving(self, start_s: float) -> Iterator[Event]:
        while not self._closed:
            chunk = self._microphone.take(start_s)
            if chunk is not None and chunk.time_s >= 0:
                self.stats.count(chunk)
                yield chunk
            self._microphone.watch()
            if self._microphone.gone and self._clock() - self._microphone.last_arrival_s > self._give_up_s:
                what = f"the microphone stopped delivering and did not come back in {self._give_up_s:g} s"
                raise DeviceError(what, "a working microphone", "check its cable and start again")
            if chunk is None:
                self._wake.wait(_TICK_S)
                self._wake.clear()

    def close(self) -> None:
        self._closed = True
        self._wake.set()
        self._microphone.close()
