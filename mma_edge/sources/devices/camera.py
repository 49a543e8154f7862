"""A camera of the system, through OpenCV."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from mma_edge.errors import DeviceError
from mma_edge.sources.devices.v4l2 import faster_format, modes

_LINUX = sys.platform.startswith("linux")
_RATE_TOLERANCE = 0.05
"""Drivers round: 30 frames per second are often 29.97."""


class CameraCapture:
    """An open camera, as `mma_edge.sources.grabber.Capture` has it."""

    def __init__(self, device: int | str) -> None:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # this project has its own messages
        self._capture = cv2.VideoCapture(device, cv2.CAP_V4L2 if _LINUX else cv2.CAP_ANY)

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        return self._capture.isOpened()

    def grab(self) -> bool:
        return self._capture.grab()

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        return self._capture.retrieve()

    def release(self) -> None:
        self._capture.release()

    def stamp_s(self) -> float | None:
        """V4L2's time stamps are of CLOCK_MONOTONIC, which is Python's; some builds of OpenCV leave them at zero."""
        stamp_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC) if _LINUX else 0.0
        return stamp_ms / 1000 if stamp_ms > 0 else None

    def size(self) -> tuple[int, int]:
        """(width, height) of the pictures."""
        return tuple(round(self._capture.get(each)) for each in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))

    def ask(self, size: tuple[int, int] | None, rate_fps: float | None, pixel_format: str | None) -> str:
        """Ask for a mode; "" or what the camera delivers instead. The format comes first: sizes depend on it."""
        capture = self._capture
        if pixel_format:
            code = cv2.VideoWriter.fourcc(*pixel_format.ljust(4))
            capture.set(cv2.CAP_PROP_FOURCC, code)
        if size:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
        if rate_fps:
            capture.set(cv2.CAP_PROP_FPS, rate_fps)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # a queue in the driver would only delay frames
        if size and self.size() != size:
            return "{}x{} pixels".format(*self.size())
        got_fps = capture.get(cv2.CAP_PROP_FPS)
        if rate_fps and got_fps and abs(got_fps - rate_fps) > _RATE_TOLERANCE * rate_fps:
            return f"{got_fps:g} frames per second"
        if pixel_format and (got := int(capture.get(cv2.CAP_PROP_FOURCC))) not in (0, code):
            return f"the format {got.to_bytes(4, 'little').decode('latin-1')}"
        return ""


@dataclass(frozen=True)
class CameraDevice:
    """A camera by its number or path, and the mode that it is asked for."""

    close_s: ClassVar[float] = 1.0  # a driver that never returns is not waited for
    may_repeat: ClassVar[bool] = False

    device: int | str = 0  # N of /dev/videoN on Linux, or a path such as /dev/v4l/by-id/...
    size: tuple[int, int] | None = None
    rate_fps: float | None = None
    pixel_format: str | None = None

    @property
    def name(self) -> str:
        return f"camera:{self.device}"

    @property
    def title(self) -> str:
        return f"camera {self.device}"

    @property
    def path(self) -> Path:
        return Path(f"/dev/video{self.device}" if isinstance(self.device, int) else self.device)

    def open(self) -> CameraCapture:
        """Open it in the mode that is asked for; DeviceError where it has none such."""
        capture = CameraCapture(self.device)
        if not capture.isOpened():
            return capture
        found = modes(self.path) or []
        pixel_format = self.pixel_format or faster_format(found, self.size or capture.size())
        if instead := capture.ask(self.size, self.rate_fps, pixel_format):
            capture.release()
            offers = ", ".join(sorted({mode_text(mode.pixel_format, mode.size, mode.rate_fps) for mode in found}))
            wanted = mode_text(self.pixel_format or "", self.size, self.rate_fps)
            hint = "mma-edge run --list-devices lists what each camera has"
            raise DeviceError(f"{self.title} does not deliver {wanted}, but {instead}", offers or "another mode", hint)
        return capture

    def expected(self) -> str:
        return f"a camera that opens; {_cameras_here()}"

    def what_to_do(self) -> str:
        if not _LINUX or (self.path.exists() and may_use(self.path)):
            return "close other programs that use it, or try another number: camera:N"
        if self.path.exists():
            return "allow access to it: sudo usermod -aG video $USER, then log in again"
        if video_devices():
            return "choose one of these: camera:N (a camera often has two numbers, and the lower one delivers)"
        return "plug a camera in (in a container: docker run --device /dev/video0), or run a file instead"


def mode_text(pixel_format: str, size: tuple[int, int] | None, rate_fps: float | None) -> str:
    """A mode in words: "MJPG 1280x720 at 30 fps"."""
    parts = [pixel_format, f"{size[0]}x{size[1]}" if size else "", f"at {rate_fps:.3g} fps" if rate_fps else ""]
    return " ".join(filter(None, parts))


def video_devices() -> dict[int, Path]:
    """N -> /dev/videoN of this machine (Linux), in their order."""
    found = {int(path.name[5:]): path for path in Path("/dev").glob("video*") if path.name[5:].isdigit()}
    return dict(sorted(found.items()))


def may_use(device: Path) -> bool:
    """Whether this user may open a device."""
    return os.access(device, os.R_OK | os.W_OK)


def _cameras_here() -> str:
    """The cameras of this machine, for messages."""
    if not _LINUX:
        return "the system's settings list the cameras of this machine"
    names = ", ".join(map(str, video_devices().values()))
    return f"this machine has {names}" if names else "this machine has no /dev/video*"
