"""The microphone of a live source, beside a camera, which goes on without it, or alone."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import numpy as np

from mma_edge.errors import DependencyError, DeviceError, MMAEdgeError, first_line
from mma_edge.sources.base import Event, Source, SourceStats
from mma_edge.sources.live import KEEP_S
from mma_edge.types import AudioChunk, Notify, ignore_notice

BLOCK_S = 0.03
"""Length of one block: shorter than a video frame lasts, long enough to cost little."""
_RESYNC_S = 0.05
"""A time stamp that differs by more than this from the count of samples is taken over: samples were lost."""
_SLEW = 0.02
"""Share of a smaller difference that is taken over per block: follows the clock's drift, ignores jitter."""

_TICK_S = 0.05
"""Longest wait for sound before the microphone is looked at."""

BlockCallback = Callable[[np.ndarray, int, float | None], None]
"""Takes (samples float32 (n, channels), sample rate in Hz, age of the first sample in seconds or None)."""


class InputStream(Protocol):
    """A running input; blocks come through the callback until it is closed."""

    def close(self) -> None:
        """Stop and release the device."""


OpenStream = Callable[[BlockCallback, bool], InputStream]
"""Opens the default input. The flag asks to look for devices that were plugged in since the first time."""


def open_input(name: str | None) -> OpenStream:
    """Opens the input whose number this is, or whose name has this in it; None: the default one."""
    return partial(open_default_input, name=name)


def input_devices() -> dict[int, str]:
    """Number -> name of each input; DependencyError without sounddevice or its library."""
    devices = _sounddevice().query_devices()
    return {number: each["name"] for number, each in enumerate(devices) if each["max_input_channels"] > 0}


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise DependencyError("sounddevice is not installed", hint="pip install 'mma-edge[live]'") from error
    except OSError as error:
        hint = "install it (Debian, Ubuntu, JetPack: sudo apt-get install libportaudio2)"
        raise DependencyError("the PortAudio library is missing", hint=hint) from error
    return sounddevice


def open_default_input(on_block: BlockCallback, rescan: bool = False, name: str | None = None) -> InputStream:
    """Start an input, the default one or `name`, at its own rate; DependencyError or DeviceError if it cannot."""
    sounddevice = _sounddevice()
    hint = "plug one in and choose it as default input of the system"
    try:
        if rescan:
            # PortAudio lists devices only when it starts, and sounddevice has no public way to start it again.
            sounddevice._terminate()
            sounddevice._initialize()
        chosen = {} if name is None else {"device": int(name) if name.isdigit() else name}
        device = sounddevice.query_devices(**chosen, kind="input")
    except (sounddevice.PortAudioError, ValueError) as error:
        if name is not None:
            what = f"there is no one microphone {name!r} ({first_line(error)})"
            hint = "mma-edge run --list-devices lists numbers and names"
            raise DeviceError(what, "its number, or a part of its name that no other has", hint) from error
        raise DeviceError(f"there is no input device ({error})", "a microphone", hint) from error
    rate = round(device["default_samplerate"])

    def callback(samples: np.ndarray, count: int, times: object, status: object) -> None:
        age_s = times.currentTime - times.inputBufferAdcTime
        # Some drivers leave the ADC time at zero.
        on_block(samples, rate, age_s if 0.0 <= age_s < 1.0 else None)

    # A plain hardware device may refuse one channel and accept its two.
    for channels in dict.fromkeys((1, min(2, device["max_input_channels"]))):
        try:
            stream = sounddevice.InputStream(
                samplerate=rate,
                blocksize=round(rate * BLOCK_S),
                channels=channels,
                dtype="float32",
                callback=callback,
                **chosen,
            )
            stream.start()
            return stream
        except sounddevice.PortAudioError as error:
            reason = str(error)
    raise DeviceError(f"the input device {device['name']!r} cannot be opened ({reason})", "a microphone", hint)


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
        stall_s: float = 2.0,  # when nothing came for this long, the microphone counts as unplugged
        retry_s: float = 5.0,  # pause between attempts to reopen it
        meanwhile: str = "vision only until it is back",  # said when it is gone
    ) -> None:
        self._notify, self._stats, self._open_stream = notify, stats, open_stream
        self._clock, self._on_data = clock, on_data
        self._stall_s, self._retry_s, self._meanwhile = stall_s, retry_s, meanwhile
        self._lock = threading.Lock()
        self._chunks: deque[AudioChunk] = deque()  # time_s on the clock, not yet relative to the source's start
        self._kept_s = 0.0
        self._next_s: float | None = None
        self._generation = 0
        self._last_block_s = clock()
        self._gone = False
        self._heard = False  # whether the present stream has delivered anything
        self._stop = threading.Event()
        self._reopener: threading.Thread | None = None
        self._stream: InputStream | None = open_stream(partial(self._on_block, 0), False)

    def _on_block(self, generation: int, samples: np.ndarray, rate: int, age_s: float | None) -> None:
        """Runs in the driver's thread: give the block its time and store it."""
        now_s = self._clock()
        length_s = len(samples) / rate
        # The mean of the channels is a new array: the driver reuses its array after this call.
        mono = samples.mean(axis=1, dtype=np.float32)[np.newaxis]
        measured_s = now_s - (length_s if age_s is None else age_s)
        with self._lock:
            if generation != self._generation or self._stop.is_set():
                return
            self._last_block_s, self._heard = now_s, True
            start_s = measured_s
            if self._next_s is not None and abs(measured_s - self._next_s) <= _RESYNC_S:
                start_s = self._next_s + _SLEW * (measured_s - self._next_s)
            self._next_s = start_s + length_s
            self._chunks.append(AudioChunk(mono, rate, start_s, now_s))
            self._kept_s += length_s
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
        """Whether nothing comes; found out by `watch`."""
        return self._gone

    def watch(self) -> None:
        """Notice that blocks stopped coming (drivers do not report an unplugged microphone), or that they are back."""
        with self._lock:
            silent = self._clock() - self._last_block_s > self._stall_s
            heard = self._heard
        if not silent:
            if self._gone and heard:
                self._gone = False
                self._notify("the microphone is back")
            return
        if not self._gone:
            self._gone = True
            self._notify(f"the microphone stopped delivering (unplugged?): {self._meanwhile}")
        if self._reopener is None or not self._reopener.is_alive():
            self._reopener = threading.Thread(target=self._reopen, name="microphone-reopen", daemon=True)
            self._reopener.start()

    def _reopen(self) -> None:
        """Close the dead stream and open the default input again; in a thread, because drivers block here."""
        with self._lock:
            self._generation += 1
            self._next_s, self._heard = None, False
            generation = self._generation
        self._close_stream()
        while not self._stop.is_set():
            try:
                stream = self._open_stream(partial(self._on_block, generation), True)
            except MMAEdgeError:
                self._stop.wait(self._retry_s)
                continue
            with self._lock:
                self._last_block_s = self._clock()  # give the new stream time before judging it
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
        heard_s = start_s
        while not self._closed:
            chunk = self._microphone.take(start_s)
            if chunk is not None and chunk.time_s >= 0:
                heard_s = chunk.arrival_s
                self.stats.count(chunk)
                yield chunk
            self._microphone.watch()
            if self._microphone.gone and self._clock() - heard_s > self._give_up_s:
                what = f"the microphone stopped delivering and did not come back in {self._give_up_s:g} s"
                raise DeviceError(what, "a working microphone", "check its cable and start again")
            if chunk is None:
                self._wake.wait(_TICK_S)
                self._wake.clear()

    def close(self) -> None:
        self._closed = True
        self._wake.set()
        self._microphone.close()
