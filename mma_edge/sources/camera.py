"""A live camera with its microphone: only the newest frame counts, and a camera that went away is reopened."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2

from mma_edge.errors import DeviceError, MMAEdgeError
from mma_edge.sources.base import Event, Source, SourceStats
from mma_edge.sources.grabber import Capture, Grabber
from mma_edge.sources.microphone import Microphone, OpenStream, open_default_input
from mma_edge.types import Frame, Notify, ignore_notice

_TICK_S = 0.05
"""Longest wait for data before the devices are checked."""
_BACKOFF_S = (0.5, 5.0)
"""First and longest pause between attempts to reopen a camera."""


def open_camera(index: int) -> Capture:
    """Open a camera with OpenCV, whose own messages are switched off: this module has its own."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    capture = cv2.VideoCapture(index, cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # a queue in the driver would only delay frames
    return capture


class CameraSource(Source):
    """Camera number `index` and the default microphone, merged in order of arrival.

    `time_s` counts from the first call of `events()`, for frames and sound alike.
    """

    live = True
    has_video = True

    def __init__(
        self,
        index: int = 0,  # N of /dev/videoN on Linux
        notify: Notify = ignore_notice,  # takes the notices (no microphone, camera stalled, camera back)
        audio: bool = True,  # False does not open the microphone
        *,
        stall_s: float = 2.0,  # after this time without a frame the camera is reopened
        first_frame_s: float = 5.0,  # the same for the first frame after opening; some cameras take seconds to start
        give_up_s: float = 60.0,  # after this time without a frame comes DeviceError
        open_timeout_s: float = 15.0,  # longest wait for the camera to open at the start
        # The outside world; tests replace it.
        open_capture: Callable[[int], Capture] = open_camera,
        open_stream: OpenStream = open_default_input,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = f"camera:{index}"
        self.stats = SourceStats()
        self._index, self._notify = index, notify
        self._stall_s, self._first_frame_s, self._give_up_s = stall_s, first_frame_s, give_up_s
        self._open_capture, self._clock, self._sleep = open_capture, clock, sleep
        self._wake = threading.Event()
        self._stalled_s: float | None = None  # since when no frames come; None while they come
        self._retry_s, self._backoff_s = 0.0, _BACKOFF_S[0]
        self._grabber = self._start_grabber()
        self._microphone: Microphone | None = None
        try:
            self._check_opened(open_timeout_s)
            if audio:
                self._open_microphone(open_stream)
        except BaseException:
            self.close()
            raise
        self.has_audio = self._microphone is not None

    def _start_grabber(self) -> Grabber:
        open_capture = partial(self._open_capture, self._index)
        grabber = Grabber(open_capture, self._clock, self._sleep, self._wake.set, self._count_overwritten)
        grabber.start()
        return grabber

    def _count_overwritten(self) -> None:
        if self._started:  # before that nobody could read it
            self.stats.dropped_frames += 1

    def _check_opened(self, timeout_s: float) -> None:
        expected = f"a camera that opens; {_cameras_here()}"
        if not self._grabber.ready.wait(timeout_s):
            hint = "unplug it and plug it in again"
            raise DeviceError(f"camera {self._index} did not answer for {timeout_s:g} s", expected, hint)
        if self._grabber.opened_s is None:
            error = self._grabber.error
            what = f"camera {self._index} cannot be opened" + (f" ({error})" if error else "")
            raise DeviceError(what, expected, _what_to_do(self._index)) from error

    def _open_microphone(self, open_stream: OpenStream) -> None:
        try:
            self._microphone = Microphone(
                self._notify, self.stats, open_stream=open_stream, clock=self._clock, on_data=self._wake.set
            )
        except MMAEdgeError as error:
            self._notify(f"no microphone: vision only, because {error}")

    def events(self) -> Iterator[Event]:
        """Frames and sound in order of arrival (to a few milliseconds), until `close()`.

        DeviceError when the camera stopped and does not come back.
        """
        self._grabber.take()  # older than the start
        if self._microphone:
            self._microphone.clear()
        self._start()
        return self._arriving(self._clock())

    def _arriving(self, start_s: float) -> Iterator[Event]:
        while not self._closed:
            event = self._next_event(start_s)
            if event is not None and event.time_s >= 0:
                self.stats.count(event)
                yield event
            self._watch_camera()
            if self._microphone:
                self._microphone.watch()
            if event is None:
                self._wake.wait(_TICK_S)
                self._wake.clear()

    def _next_event(self, start_s: float) -> Event | None:
        """The oldest sound or the newest frame, whichever waits longer; a newer frame may replace a waiting one."""
        frame_s = self._grabber.newest_s()
        sound_s = self._microphone.oldest_arrival_s() if self._microphone else None
        if sound_s is not None and (frame_s is None or sound_s <= frame_s):
            return self._microphone.take(start_s)
        newest = self._grabber.take()
        if newest is None:
            return None
        image, time_s = newest
        return Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), time_s - start_s, time_s)

    def _watch_camera(self) -> None:
        """Notice a stall, reopen with growing pauses, say when frames are back, and give up in the end."""
        now_s, grabber = self._clock(), self._grabber
        if self._stalled_s is None:
            if self._is_quiet(now_s):
                self._stalled_s = grabber.opened_s if grabber.last_frame_s is None else grabber.last_frame_s
                self._notify(f"camera {self._index} delivers no frames: reopening it, for up to {self._give_up_s:g} s")
                grabber.stop()
                self._retry_s, self._backoff_s = now_s, _BACKOFF_S[0]
        elif grabber.last_frame_s is not None and not grabber.stopping:
            width, height = grabber.size
            away_s = grabber.last_frame_s - self._stalled_s
            self._notify(f"camera {self._index} is back after {away_s:.1f} s ({width}x{height})")
            self.stats.reopened += 1
            self._stalled_s = None
        elif now_s - self._stalled_s > self._give_up_s:
            what = f"camera {self._index} stopped delivering and did not come back in {self._give_up_s:g} s"
            hint = "check its cable and start again"
            raise DeviceError(what, f"a working camera; {_cameras_here()}", hint)
        elif grabber.is_alive():
            # It is still inside the driver, or waits for its first frame: a second capture would find the camera busy.
            if not grabber.stopping and self._is_quiet(now_s):
                grabber.stop()
        elif now_s >= self._retry_s:
            self._grabber = self._start_grabber()
            self._retry_s = now_s + self._backoff_s
            self._backoff_s = min(2 * self._backoff_s, _BACKOFF_S[1])

    def _is_quiet(self, now_s: float) -> bool:
        """Whether the present grabber opened its camera and has delivered nothing for too long."""
        grabber = self._grabber
        if grabber.last_frame_s is not None:
            return now_s - grabber.last_frame_s > self._stall_s
        return grabber.opened_s is not None and now_s - grabber.opened_s > self._first_frame_s

    def close(self) -> None:
        """Release camera and microphone; does not wait for a driver that never returns."""
        self._closed = True
        self._wake.set()
        self._grabber.stop()
        if self._microphone:
            self._microphone.close()
        self._grabber.join(timeout=1.0)


def video_devices() -> dict[int, Path]:
    """N -> /dev/videoN of this machine (Linux), in their order."""
    found = {int(path.name[5:]): path for path in Path("/dev").glob("video*") if path.name[5:].isdigit()}
    return dict(sorted(found.items()))


def may_use(device: Path) -> bool:
    """Whether this user may open a device."""
    return os.access(device, os.R_OK | os.W_OK)


def _cameras_here() -> str:
    """The cameras of this machine, for messages."""
    if sys.platform != "linux":
        return "the system's settings list the cameras of this machine"
    names = ", ".join(map(str, video_devices().values()))
    return f"this machine has {names}" if names else "this machine has no /dev/video*"


def _what_to_do(index: int) -> str:
    device = Path(f"/dev/video{index}")
    if sys.platform != "linux" or (device.exists() and may_use(device)):
        return "close other programs that use it, or try another number: camera:N"
    if device.exists():
        return "allow access to it: sudo usermod -aG video $USER, then log in again"
    if video_devices():
        return "choose one of these: camera:N (a camera often has two numbers, and the lower one delivers)"
    return "plug a camera in (in a container: docker run --device /dev/video0), or run a file instead"
