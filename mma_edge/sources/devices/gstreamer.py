"""Pictures of a GStreamer pipeline that runs in a process of its own: a Jetson's CSI camera, or any pipeline.

A process can be ended when a driver hangs, as NVIDIA's does after an error; and neither OpenCV from PyPI, which has no
GStreamer, nor Python bindings are needed. The pictures come as YUV4MPEG2, which says their size.
"""

from __future__ import annotations

import shlex
import shutil
import time
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from mma_edge.child import PROGRAM_END_S, Program
from mma_edge.errors import DependencyError, DeviceError, UsageError, without_passwords

PROGRAM = "gst-launch-1.0"
_WAIT_S = 0.25
"""Longest wait for data in one call, so that a stop is noticed."""
_START_S = 12.0
"""Longest wait for the first bytes: a sensor needs seconds to start."""
_INSTALL = "sudo apt-get install gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
_CSI = "nvarguscamerasrc sensor-id={} ! video/x-raw(memory:NVMM),width={},height={},framerate={}/1 ! nvvidconv"
_CSI_HINT = "sudo apt-get install nvidia-l4t-gstreamer"
_ONE_KIND = "videoconvert ! video/x-raw,format=I420,colorimetry=bt601"  # the colours that OpenCV takes I420 for
_FRAME = b"FRAME\n"
_OUT = "queue leaky=downstream max-size-buffers=1 ! y4menc ! fdsink sync=false fd={}"


class PipelineCapture:
    """The pictures of a running pipeline, as `mma_edge.sources.grabber.Capture` has it."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._data = bytearray()
        self._ended = False
        self._size = (0, 0)

    def start(self) -> bool:
        """Wait for the header; whether it came."""
        deadline_s = time.monotonic() + _START_S
        while b"\n" not in self._data and not self._ended and time.monotonic() < deadline_s:
            self._read(1)
        head = bytes(self._data)
        sides = {part[:1]: int(part[1:]) for part in head.split()[1:] if part[:1] in (b"W", b"H")}
        if not head.startswith(b"YUV4MPEG2 ") or len(sides) != 2:
            return False
        self._data.clear()
        self._size = sides[b"W"], sides[b"H"]
        return True

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        return self._size != (0, 0)

    def grab(self) -> bool:
        """Whether a whole picture is there."""
        missing = self._length() - len(self._data)
        if missing > 0 and not self._ended:
            self._read(missing)
        return len(self._data) >= self._length()

    def _length(self) -> int:
        """Bytes of a picture with its marker."""
        width, height = self._size
        return len(_FRAME) + width * height + 2 * ((width + 1) // 2) * ((height + 1) // 2)

    def _read(self, most: int) -> None:
        """Append what comes within `_WAIT_S`."""
        room, got = memoryview(bytearray(most)), 0
        while got < most:
            count = self._program.read_into(room[got:], _WAIT_S)
            if not count:
                self._ended = self._ended or count == 0
                break
            got += count
        self._data += room[:got]

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        """The picture, BGR (H, W, 3)."""
        data, (width, height) = bytes(self._data[: self._length()]), self._size
        del self._data[: self._length()]
        if not data.startswith(_FRAME):  # half a picture is lost: nothing after it can be trusted
            self._ended = True
            self._data.clear()
            return False, None
        rows, columns = (height + 1) // 2, (width + 1) // 2
        planes = np.frombuffer(data, np.uint8, offset=len(_FRAME))
        light, colour = planes[: width * height].reshape(height, width), planes[width * height :]
        even_height, even_width = height // 2 * 2, width // 2 * 2
        colour = colour.reshape(2, rows, columns)[:, : even_height // 2, : even_width // 2]
        i420 = np.concatenate([light[:even_height, :even_width].ravel(), colour.ravel()])
        return True, cv2.cvtColor(i420.reshape(even_height * 3 // 2, even_width), cv2.COLOR_YUV2BGR_I420)

    def release(self) -> None:
        self._program.close()

    def stamp_s(self) -> float | None:
        return None


@dataclass(frozen=True)
class PipelineDevice:
    """A pipeline that delivers raw pictures at its end."""

    close_s: ClassVar[float] = PROGRAM_END_S + 2.0  # always enough: then it is gone

    name: str
    title: str
    elements: tuple[str, ...]  # arguments of gst-launch-1.0, never of a shell
    may_repeat: bool = True

    @classmethod
    def csi(cls, number: int, size: tuple[int, int] | None, rate_fps: float | None) -> PipelineDevice:
        """A Jetson's CSI camera; by default 1280x720 at 30 fps."""
        width, height = size or (1280, 720)
        text = f"{_CSI.format(number, width, height, round(rate_fps or 30))} ! video/x-raw,format=I420"
        return cls(f"csi:{number}", f"CSI camera {number}", tuple(text.split()), may_repeat=False)

    @classmethod
    def pipeline(cls, text: str) -> PipelineDevice:
        """What the user wrote after "gst:", as on gst-launch's command line. Its name is its first element's: the rest
        may hold a password."""
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise UsageError(
                "the pipeline after gst: has an open quote", "a closed one", "see gst-launch-1.0"
            ) from error
        if not words or words[0].startswith("-") or words[-1] == "!":
            example = "gst:videotestsrc is-live=true ! video/x-raw,width=640,height=480"
            raise UsageError("there is no pipeline after gst:", f"one as in '{example}'")
        return cls(f"gst:{words[0]}", f"pipeline {words[0]}", (*words, "!", *_ONE_KIND.split()))

    def open(self) -> PipelineCapture:
        """Start it and wait for its first bytes.

        Raises:
            DependencyError: GStreamer is not installed. UsageError: the pipeline is wrong. DeviceError: it does not
                deliver.
        """
        if shutil.which(PROGRAM) is None:
            raise DependencyError(f"{PROGRAM} is not installed", hint=_INSTALL)
        program = Program(lambda pipe: [PROGRAM, "-q", *self.elements, "!", *_OUT.format(pipe).split()])
        capture = PipelineCapture(program)
        try:
            if capture.start():
                return capture
            words = program.last_words()
        except BaseException:
            capture.release()
            raise
        capture.release()
        raise self._failure([without_passwords(line) for line in words])

    def _failure(self, words: list[str]) -> Exception:
        wrong = next((line.partition("erroneous pipeline: ")[2] for line in words if "erroneous pipeline" in line), "")
        if "nvarguscamerasrc" in wrong:
            return DependencyError(
                f"{self.title} needs the element nvarguscamerasrc", "a Jetson with JetPack", _CSI_HINT
            )
        if wrong:
            hint = "gst-inspect-1.0 ELEMENT tells what is installed"
            return UsageError(f"{self.title} is wrong: {wrong}", "a pipeline that gst-launch-1.0 runs", hint)
        # The first error is the cause; those after it follow from it.
        said = next(
            (line for line in words if "ERROR" in line or "rror:" in line), words[-1] if words else "no message"
        )
        return DeviceError(f"{self.title} delivers nothing ({said[:300]})", self.expected(), self.what_to_do())

    def expected(self) -> str:
        return "a pipeline that delivers pictures" if self.may_repeat else "a CSI camera that delivers"

    def what_to_do(self) -> str:
        if self.may_repeat:
            return "try it alone: gst-launch-1.0 PIPELINE ! fakesink"
        return "check its cable, and restart its service: sudo systemctl restart nvargus-daemon"
