"""A live camera with its microphone: only the newest frames count, and a camera that went away is reopened."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import cv2

from mma_edge.errors import DeviceError, MMAEdgeError
from mma_edge.sources.base import Event, Source, SourceStats
from mma_edge.sources.devices.portaudio import OpenStream, open_default_input
from mma_edge.sources.grabber import Device, Grabber
from mma_edge.sources.microphone import Microphone
from mma_edge.sources.notices import Notices
from mma_edge.types import Frame, Notify, ignore_notice

_TICK_S = 0.05
"""Longest wait for data before the devices are checked."""
_BACKOFF_S = (0.5, 5.0)
"""First and longest pause between attempts to reopen a camera."""


class CameraSource(Source):
    """A device's pictures and a microphone, merged in order of arrival.

    `time_s` counts from the first call of `events()`, for frames and sound alike.
    """

    live = True
    has_video = True

    def __init__(
        self,
        device: Device,
        notify: Notify = ignore_notice,  # takes the notices (no microphone, camera stalled, camera back)
        audio: bool = True,  # False does not open the microphone
        *,
        stall_s: float = 1.9,  # after this time without a frame, or with the same one, the camera is reopened
        first_frame_s: float = 5.0,  # the same for the first frame after opening; some cameras take seconds to start
        give_up_s: float = 60.0,  # after this time without a frame comes DeviceError
        open_timeout_s: float = 15.0,  # longest wait for the camera to open at the start
        # The outside world; tests replace it.
        open_stream: OpenStream = open_default_input,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = device.name
        self.stats = SourceStats()
        self._device, self._notify = device, Notices(notify, clock)
        self._stall_s, self._first_frame_s, self._give_up_s = stall_s, first_frame_s, give_up_s
        self._clock, self._sleep = clock, sleep
        self._wake = threading.Event()
        self._stalled_s: float | None = None  # since when no frames come; None while they come
        self._retry_s, self._backoff_s = 0.0, _BACKOFF_S[0]
        self._resumed = threading.Event()
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
        callbacks = self._wake.set, self._count_overwritten
        grabber = Grabber(self._device.open, self._clock, self._sleep, *callbacks, self._device.may_repeat)
        grabber.start()
        return grabber

    def _count_overwritten(self) -> None:
        if self._started:  # before that nobody could read it
            self.stats.dropped_frames += 1

    def _check_opened(self, timeout_s: float) -> None:
        expected = self._device.expected()
        if not self._grabber.ready.wait(timeout_s):
            hint = "unplug it and plug it in again"
            raise DeviceError(f"{self._device.title} did not answer for {timeout_s:g} s", expected, hint)
        if self._grabber.opened_s is None:
            error = self._grabber.error
            if isinstance(error, MMAEdgeError):
                raise error
            what = f"{self._device.title} cannot be opened" + (f" ({error})" if error else "")
            raise DeviceError(what, expected, self._device.what_to_do()) from error

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
        self._grabber.clear()  # older than the start
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
        """The oldest sound or frame, whichever waits longer; late frames give way to newer ones."""
        frame_s = self._grabber.next_s()
        sound_s = self._microphone.oldest_arrival_s() if self._microphone else None
        if sound_s is not None and (frame_s is None or sound_s <= frame_s):
            return self._microphone.take(start_s)
        taken = self._grabber.take()
        if taken is None:
            return None
        image, time_s = taken
        return Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), time_s - start_s, time_s)

    def _watch_camera(self) -> None:
        """Notice a stall, reopen with growing pauses, say when frames are back, and give up in the end."""
        now_s, grabber = self._clock(), self._grabber
        self._notify.poll()
        slept = self._resumed.is_set()
        self._resumed.clear()
        if self._stalled_s is None:
            if slept or self._is_quiet(now_s):
                self._stalled_s = grabber.last_frame_s or grabber.opened_s or now_s
                if not slept:
                    what = "delivers the same picture again and again" if grabber.repeated else "delivers no frames"
                    self._notify(f"{self._device.title} {what}: reopening it, for up to {self._give_up_s:g} s")
                grabber.stop()
                self._retry_s, self._backoff_s = now_s, _BACKOFF_S[0]
        elif grabber.last_frame_s is not None and not grabber.stopping:
            width, height = grabber.size
            away_s = grabber.last_frame_s - self._stalled_s
            self._notify(f"{self._device.title} is back after {away_s:.1f} s ({width}x{height})")
            self.stats.reopened += 1
            self._stalled_s = None
        elif now_s - self._stalled_s > self._give_up_s:
            what = f"{self._device.title} stopped delivering and did not come back in {self._give_up_s:g} s"
            hint = "check its cable and start again"
            if grabber.repeated:
                hint = "a virtual camera that shows a still picture: 'gst:v4l2src device=/dev/videoN'"
            raise DeviceError(what, self._device.expected(), hint)
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

    def resume(self) -> None:
        self._resumed.set()
        self._wake.set()

    def close(self) -> None:
        """Release camera and microphone; does not wait for a driver that never returns."""
        self._closed = True
        self._wake.set()
        self._grabber.stop()
        if self._microphone:
            self._microphone.close()
        self._grabber.join(timeout=self._device.close_s)
