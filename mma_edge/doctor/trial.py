"""A second with a camera or a microphone, in a process of its own: a driver that hangs or crashes takes that with it.

`python -m mma_edge.doctor.trial {"camera": 0, "seconds": 1}`, or "microphone", as `mma_edge.child` has it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

import numpy as np

from mma_edge.child import Message, Tell, serve
from mma_edge.errors import DeviceError
from mma_edge.sources.devices.camera import CameraDevice
from mma_edge.sources.devices.portaudio import OpenStream, input_devices, open_default_input
from mma_edge.sources.devices.v4l2 import modes

FIRST_S = 6.0
"""How long a camera may take for its first picture, and a sound server for its first block."""
DARK = 2.0
"""A picture whose mean is below this, of 255, shows nothing."""


def try_camera(device: CameraDevice, seconds: float, clock: Callable[[], float] = time.monotonic) -> Message:
    """Size, rate and light of its pictures; DeviceError where it does not open or delivers none.

    A camera often has a second number, for data about its pictures: of that {"pictures": False}.
    """
    if modes(device.path) == []:
        return {"pictures": False}
    start_s = clock()
    capture = device.open()
    try:
        if not capture.isOpened():
            raise DeviceError(f"{device.title} cannot be opened", "", device.what_to_do())
        image, first_s, last_s, count = None, None, None, 0
        while clock() - (first_s or start_s) < (FIRST_S if first_s is None else seconds):
            if not capture.grab():
                time.sleep(0.01)
                continue
            ok, picture = capture.retrieve()
            if ok and picture is not None:
                image, last_s, count = picture, clock(), count + 1
                first_s = first_s or last_s
    finally:
        capture.release()
    if image is None:
        raise DeviceError(f"{device.title} opens, but delivers no picture", "", device.what_to_do())
    rate_fps = (count - 1) / (last_s - first_s) if count > 1 else 0.0
    return {
        "pictures": True,
        "size": [image.shape[1], image.shape[0]],
        "rate_fps": round(rate_fps, 1),
        "first_s": round(first_s - start_s, 2),
        "dark": bool(image.mean() < DARK),
    }


def try_microphone(seconds: float, open_stream: OpenStream = open_default_input) -> Message:
    """Rate and level of the default input; DependencyError, or DeviceError where it delivers nothing."""
    blocks: list[np.ndarray] = []
    rates: list[int] = []
    came, enough = threading.Event(), threading.Event()

    def on_block(samples: np.ndarray, rate_hz: int, age_s: float | None) -> None:
        blocks.append(samples.mean(axis=1, dtype=np.float32))
        rates.append(rate_hz)
        came.set()
        if sum(map(len, blocks)) >= seconds * rate_hz:
            enough.set()

    stream = open_stream(on_block, False)
    try:
        if not came.wait(FIRST_S):
            hint = "unmute it, or choose another input in the system's sound settings"
            raise DeviceError(f"the microphone opens, but delivers nothing in {FIRST_S:g} s", "", hint)
        enough.wait(2 * seconds)
    finally:
        stream.close()
    wave = np.concatenate(blocks)
    power = float(np.mean(np.square(wave)))
    return {"rate_hz": rates[0], "level_dbfs": round(10 * np.log10(power), 1) if power else None}


def _work(request: Message, tell: Tell) -> Message:
    if "camera" in request:
        return try_camera(CameraDevice(request["camera"]), request["seconds"])
    return {"names": list(input_devices().values()), **try_microphone(request["seconds"])}


if __name__ == "__main__":
    sys.exit(serve(_work))
