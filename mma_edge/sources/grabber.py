"""The thread that owns a camera. It makes all calls into the driver, because each of them may block."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

import numpy as np

from mma_edge.sources.live import FRAMES_KEPT, LATE_S

_PAUSE_S = 0.02
"""Pause after a failed grab: an unplugged camera fails at once, again and again."""
_COARSE = 16
"""Every so many rows and columns of two pictures are compared before the whole pictures are."""
_STAMP_AGE_S = 0.5
"""A driver's time stamp is believed up to this age: a picture does not take longer to arrive."""


class Capture(Protocol):
    """An open device, used by one thread. Names are those of `cv2.VideoCapture`."""

    def isOpened(self) -> bool: ...  # noqa: N802 (OpenCV's name)
    def grab(self) -> bool: ...
    def retrieve(self) -> tuple[bool, np.ndarray | None]: ...
    def release(self) -> None: ...
    def stamp_s(self) -> float | None:
        """When the picture that was grabbed last was taken, on `time.monotonic()`; None where nobody knows."""


class Device(Protocol):
    """What a `mma_edge.sources.camera.CameraSource` takes its pictures from."""

    name: str  # for records: "camera:0"
    title: str  # for messages: "camera 0"
    close_s: float  # how long closing it is waited for
    may_repeat: bool  # its picture may stay the same for ever, as a test pattern's; one of a camera never does

    def open(self) -> Capture:
        """Open it; may block. MMAEdgeError where the reason is known."""

    def expected(self) -> str:
        """What would have been right, where it cannot be opened."""

    def what_to_do(self) -> str:
        """And what to do next."""


class Grabber(threading.Thread):
    """Opens one capture, keeps its newest frames, releases it when stopped."""

    def __init__(
        self,
        open_capture: Callable[[], Capture],  # called in the thread
        clock: Callable[[], float],  # monotonic seconds
        sleep: Callable[[float], None],
        on_frame: Callable[[], None],  # called after each frame, to wake the reader
        on_overwrite: Callable[[], None],  # called when an unread frame is overwritten
        may_repeat: bool = True,  # the same picture again counts as one that came
    ) -> None:
        # A daemon: a driver that never returns must not keep the program alive.
        super().__init__(name="camera-grabber", daemon=True)
        self._open_capture, self._clock, self._sleep = open_capture, clock, sleep
        self._on_frame, self._on_overwrite, self._may_repeat = on_frame, on_overwrite, may_repeat
        self._previous: np.ndarray | None = None
        self._lock = threading.Lock()
        self._frames: deque[tuple[np.ndarray, float]] = deque()
        self._stop_asked = threading.Event()
        self.ready = threading.Event()  # set once the capture is open or has failed to open
        self.opened_s: float | None = None  # clock when the camera was open, None before that and if opening failed
        # Clock of the newest frame that shows that the camera lives, None before the first: a driver may deliver the
        # last picture of a dead camera again and again, so that one alone, or the same again, shows nothing.
        self.last_frame_s: float | None = None
        self.repeated = False  # the newest frame was the same as the one before it, and no covered camera's
        self.size = (0, 0)  # (width, height) of the newest frame
        self.error: Exception | None = None  # what `open_capture` raised, if it did

    def run(self) -> None:
        """The thread: open, grab until stopped, release."""
        capture = None
        try:
            capture = self._open_capture()
            if capture.isOpened():
                self.opened_s = self._clock()
                self.ready.set()
                while not self._stop_asked.is_set():
                    if not self._grab_one(capture):
                        self._sleep(_PAUSE_S)
        except Exception as error:  # whatever a driver raises ends this thread, never the program
            self.error = error
        finally:
            self.ready.set()
            if capture is not None:
                with contextlib.suppress(Exception):  # the device may be gone already
                    capture.release()

    def _grab_one(self, capture: Capture) -> bool:
        if not capture.grab():
            return False
        # The time of the grab, not of the decoding that follows; better, that of the driver.
        time_s, stamp_s = self._clock(), capture.stamp_s()
        if stamp_s is not None and 0 <= time_s - stamp_s < _STAMP_AGE_S:
            time_s = stamp_s
        good, image = capture.retrieve()
        if not good or image is None or image.size == 0:
            return False
        lives = self._may_repeat or self._shows_life(image)
        with self._lock:
            if self._stop_asked.is_set():
                return True
            self._frames.append((image, time_s))
            if len(self._frames) > FRAMES_KEPT:
                self._frames.popleft()
                self._on_overwrite()
            if lives:
                self.last_frame_s = time_s
            self.size = (image.shape[1], image.shape[0])
        self._on_frame()
        return True

    def _shows_life(self, image: np.ndarray) -> bool:
        """Whether it differs from the picture before it: a sensor's noise always does. One of a single colour may
        stay: the camera is covered."""
        previous, self._previous = self._previous, image
        covered = _same(image, image[:1, :1])
        self.repeated = previous is not None and not covered and _same(previous, image)
        return covered or not (previous is None or self.repeated)

    def next_s(self) -> float | None:
        """Capture time of the frame that `take` would return, None if it would return none."""
        with self._lock:
            self._pass_over_late()
            return self._frames[0][1] if self._frames else None

    def take(self) -> tuple[np.ndarray, float] | None:
        """The oldest frame that is not late, else the newest: BGR uint8 (H, W, 3) and its capture time on the clock."""
        with self._lock:
            self._pass_over_late()
            return self._frames.popleft() if self._frames else None

    def _pass_over_late(self) -> None:
        while len(self._frames) > 1 and self._clock() - self._frames[0][1] > LATE_S:
            self._frames.popleft()
            self._on_overwrite()

    def clear(self) -> None:
        """Forget the frames."""
        with self._lock:
            self._frames.clear()

    def stop(self) -> None:
        """Ask the thread to release the camera and end; does not wait for it."""
        with self._lock:
            self._stop_asked.set()
            self._frames.clear()

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stop_asked.is_set()


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two pictures are equal; `other` may be a single pixel. Most that differ do so in every part."""
    if one.shape != other.shape and other.shape[:2] != (1, 1):
        return False
    return bool((one[::_COARSE, ::_COARSE] == other[::_COARSE, ::_COARSE]).all() and (one == other).all())
