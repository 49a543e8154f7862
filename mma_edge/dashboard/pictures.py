"""Makes the small JPEGs that pages show, in a thread of its own: one for all viewers, none while nobody wants one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import cv2

from mma_edge.dashboard.board import Shown
from mma_edge.errors import first_line
from mma_edge.sources.picture import scaled
from mma_edge.types import PIXEL_DIGITS, TIME_DIGITS, Face, Frame, Notify

LONGEST_SIDE = 640
"""In pixels. The model sees crops of the whole picture; this one is for people."""
PERIOD_S = 0.08
"""Between two pictures of a source: 12.5 a second, every second one of a camera with 25."""
QUALITY = 80
_END_S = 1.0


class Pictures:
    """Takes frames from any thread, at once; hands the newest of each source to `show` when somebody wants it."""

    def __init__(self, wanted: Callable[[], bool], show: Callable[[str, Shown], None], say: Notify) -> None:
        """`wanted` says whether anybody waits for a picture; to be followed by `poke` when it becomes true. `say` takes
        once for each source that a picture could not be made."""
        self._wanted, self._show, self._say = wanted, show, say
        self._failed: set[str] = set()
        self._wake = threading.Condition()
        self._waiting: dict[str, tuple[Frame, tuple[Face, ...]]] = {}
        self._due_s: dict[str, float] = {}
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="mma-edge-pictures", daemon=True)
        self._thread.start()

    def put(self, source: str, frame: Frame, faces: Sequence[Face]) -> None:
        """The newest frame of a source replaces one that waits."""
        with self._wake:
            self._waiting[source] = frame, tuple(faces)
            self._wake.notify()

    def poke(self) -> None:
        """Look again whether a picture is wanted."""
        with self._wake:
            self._wake.notify()

    def close(self) -> None:
        with self._wake:
            self._ended = True
            self._wake.notify()
        self._thread.join(_END_S)

    def _run(self) -> None:
        while (taken := self._next()) is not None:
            source, frame, faces = taken
            try:
                self._show(source, _shown(source, frame, faces))
            except Exception as error:  # whatever a library says to one picture, those after it are shown
                if source not in self._failed:
                    self._failed.add(source)
                    self._say(f"{source}: a picture cannot be shown: {first_line(error)}")

    def _next(self) -> tuple[str, Frame, tuple[Face, ...]] | None:
        """The frame of which a picture is due first, as soon as it is; None at the end."""
        with self._wake:
            while not self._ended:
                wait_s = None
                if self._waiting and self._wanted():
                    source = min(self._waiting, key=lambda name: self._due_s.get(name, 0.0))
                    wait_s = self._due_s.get(source, 0.0) - time.monotonic()
                    if wait_s <= 0:
                        # From when it was due, if that is not long ago: else each would be a little later still.
                        late_s = -wait_s if -wait_s < PERIOD_S else 0.0
                        self._due_s[source] = time.monotonic() - late_s + PERIOD_S
                        return source, *self._waiting.pop(source)
                self._wake.wait(wait_s)
        return None


def _shown(source: str, frame: Frame, faces: Sequence[Face]) -> Shown:
    image = cv2.cvtColor(scaled(frame.picture, LONGEST_SIDE), cv2.COLOR_RGB2BGR)
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    height, width = frame.picture.shape[:2]
    found = [
        {"track_id": face.track_id, "box": [round(value, PIXEL_DIGITS) for value in face.box], "score": face.score}
        for face in faces
    ]
    facts = {
        "source": source,
        "time_s": round(frame.time_s, TIME_DIGITS),
        "arrived": time.time() - (time.monotonic() - frame.arrival_s),  # wall clock, for measurements
        "size": [width, height],
        "faces": found,
    }
    return Shown(facts, jpeg.tobytes(), frame.arrival_s)
