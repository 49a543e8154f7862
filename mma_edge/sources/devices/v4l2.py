"""What a camera of Linux can deliver, asked of its driver (V4L2). OpenCV does not tell."""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Requests of linux/videodev2.h, which are the same on x86-64 and aarch64: direction, size, 'V', number.
_QUERYCAP, _ENUM_FMT, _ENUM_FRAMESIZES, _ENUM_FRAMEINTERVALS = 0x80685600, 0xC0405602, 0xC02C564A, 0xC034564B
_CAPTURE, _DISCRETE = 1, 1
"""V4L2_BUF_TYPE_VIDEO_CAPTURE, also V4L2_CAP_VIDEO_CAPTURE; V4L2_FRMSIZE_TYPE_DISCRETE."""
_MOST = 64
"""A driver that does not end its list is not asked for ever."""

Ioctl = Callable[[int, int, bytearray], object]


@dataclass(frozen=True)
class Mode:
    """One way in which a camera delivers."""

    pixel_format: str  # FOURCC
    size: tuple[int, int]  # (width, height)
    rate_fps: float  # the highest at this size; 0 where the driver does not say


def _ioctl(file: int, request: int, buffer: bytearray) -> object:
    from fcntl import ioctl  # not on Windows

    return ioctl(file, request, buffer)


def modes(path: str | os.PathLike[str], ioctl: Ioctl = _ioctl) -> list[Mode] | None:
    """The modes of a capture device; [] where it is no capture device, None where the driver cannot be asked."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        file = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return list(_modes(file, ioctl)) if _captures(file, ioctl) else []
    except OSError:
        return None
    finally:
        os.close(file)


def _captures(file: int, ioctl: Ioctl) -> bool:
    """Whether this node delivers pictures; a camera's second node often has its metadata."""
    answer = bytearray(104)
    ioctl(file, _QUERYCAP, answer)
    return bool(struct.unpack_from("<I", answer, 88)[0] & _CAPTURE)


def _modes(file: int, ioctl: Ioctl) -> Iterator[Mode]:
    for pixel_format in _listed(file, ioctl, _ENUM_FMT, 64, lambda number: struct.pack("<II", number, _CAPTURE)):
        (code,) = struct.unpack_from("<I", pixel_format, 44)

        def size_of(number: int, code: int = code) -> bytes:
            return struct.pack("<II", number, code)

        for size in _listed(file, ioctl, _ENUM_FRAMESIZES, 44, size_of):
            kind, width, height = struct.unpack_from("<III", size, 8)
            if kind != _DISCRETE:  # any size in a range: the largest is told
                _, width, _, _, height, _ = struct.unpack_from("<6I", size, 12)

            def interval_of(number: int, code: int = code, width: int = width, height: int = height) -> bytes:
                return struct.pack("<IIII", number, code, width, height)

            rates = [_rate(each) for each in _listed(file, ioctl, _ENUM_FRAMEINTERVALS, 52, interval_of)]
            yield Mode(struct.pack("<I", code).decode("latin-1").strip(), (width, height), max(rates, default=0.0))


def _rate(interval: bytearray) -> float:
    """Frames per second: discrete intervals and ranges alike begin with the shortest."""
    numerator, denominator = struct.unpack_from("<II", interval, 20)
    return denominator / numerator if numerator else 0.0


def _listed(file: int, ioctl: Ioctl, request: int, length: int, begin: Callable[[int], bytes]) -> Iterator[bytearray]:
    """The entries of one of the driver's lists, until it says that there are no more."""
    for number in range(_MOST):
        buffer = bytearray(begin(number).ljust(length, b"\0"))
        try:
            ioctl(file, request, buffer)
        except OSError:
            return
        yield buffer


def faster_format(found: list[Mode], size: tuple[int, int]) -> str | None:
    """MJPG where it delivers more pictures of this size than raw formats do: USB is too slow for many raw ones."""

    def best(wanted: Callable[[Mode], bool]) -> float:
        return max((mode.rate_fps for mode in found if mode.size == size and wanted(mode)), default=0.0)

    raw = best(lambda mode: mode.pixel_format not in ("MJPG", "JPEG", "H264", "HEVC"))
    return "MJPG" if best(lambda mode: mode.pixel_format == "MJPG") > raw else None


def label_of(device: Path) -> str:
    """The name that the driver gives the camera, "" where it gives none."""
    with contextlib.suppress(OSError):
        return (Path("/sys/class/video4linux") / device.name / "name").read_text(errors="replace").strip()
    return ""
