"""Sound inputs by PortAudio: which there are, and opening one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np

from mma_edge.errors import DependencyError, DeviceError, first_line

BLOCK_S = 0.03
"""Length of one block: shorter than a video frame lasts, long enough to cost little."""
_SERVERS = ("default", "pulse", "pipewire")
"""Names behind which a sound server is. PortAudio's rate for them is a guess, and its times at that rate are wrong."""
_SERVER_RATE_HZ = 48000
_AGES_OF_LATENCY = 3
"""A block's age is believed up to so many times the latency that the driver promises."""

BlockCallback = Callable[[np.ndarray, int, float | None], None]
"""Takes (samples float32 (n, channels), sample rate in Hz, age of the first sample in seconds or None)."""


class InputStream(Protocol):
    """A running input; blocks come through the callback until it is closed."""

    @property
    def active(self) -> bool:
        """Whether more blocks may come; not to be asked once it is closed."""

    def close(self) -> None:
        """Stop and release the device."""


OpenStream = Callable[[BlockCallback, bool], InputStream]
"""Opens an input. The flag asks to look for devices that were plugged in since the first time."""


class _Input:
    """A stream of sounddevice, counted while it is open."""

    opened: set[_Input] = set()  # noqa: RUF012 (of this process)
    opening = threading.Lock()

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.opened.add(self)

    @property
    def active(self) -> bool:
        return self._stream.active

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self.opened.discard(self)


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
    with _Input.opening:
        try:
            if rescan and not _Input.opened:
                # PortAudio lists devices only when it starts, and sounddevice has no public way to start it again. It
                # would close the streams of other sources under their threads.
                with contextlib.suppress(sounddevice.PortAudioError):  # it is not running: its last start failed
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
        own_hz = round(device["default_samplerate"])
        for rate_hz in dict.fromkeys((_SERVER_RATE_HZ if device["name"] in _SERVERS else own_hz, own_hz)):
            # A plain hardware device may refuse one channel and accept its two.
            for channels in dict.fromkeys((1, min(2, device["max_input_channels"]))):
                try:
                    return _started(sounddevice, on_block, rate_hz, channels, chosen)
                except sounddevice.PortAudioError as error:
                    reason = str(error)
    raise DeviceError(f"the input device {device['name']!r} cannot be opened ({reason})", "a microphone", hint)


def _started(sounddevice: Any, on_block: BlockCallback, rate_hz: int, channels: int, chosen: dict) -> InputStream:
    """A running stream; PortAudioError where the device does not take this rate or number of channels."""

    def callback(samples: np.ndarray, count: int, times: Any, status: object) -> None:
        # Some drivers leave the ADC time at zero.
        age_s = times.currentTime - times.inputBufferAdcTime
        on_block(samples, rate_hz, age_s if 0.0 <= age_s < _AGES_OF_LATENCY * stream.latency else None)

    stream = sounddevice.InputStream(
        samplerate=rate_hz,
        blocksize=round(rate_hz * BLOCK_S),
        channels=channels,
        dtype="float32",
        callback=callback,
        **chosen,
    )
    try:
        stream.start()
    except BaseException:
        stream.close()
        raise
    return _Input(stream)
