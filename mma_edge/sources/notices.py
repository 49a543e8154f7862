"""Says what happens to a live source, but does not fill a log that is kept for weeks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from mma_edge.types import Notify

EVERY_S = 60.0
"""A source that comes and goes all the time gets one line in this time."""
AT_ONCE = 3
"""So many lines come without a pause: lost, back, lost again."""


class Notices:
    """A `Notify` for one source. Lines beyond the limit are counted; the newest of them comes when its time has come,
    so that the last line always says how things are."""

    def __init__(self, notify: Notify, clock: Callable[[], float] = time.monotonic) -> None:
        self._notify, self._clock = notify, clock
        self._lock = threading.Lock()
        self._left = float(AT_ONCE)
        self._counted_s = clock()
        self._held: str | None = None
        self._num_left_out = 0

    def __call__(self, line: str) -> None:
        """Say it now or, where there were too many, later. From any thread."""
        with self._lock:
            if self._held is not None:
                self._num_left_out += 1
            self._held = line
        self.poll()

    def poll(self) -> None:
        """Say what was held back, if it is time; to be called now and then."""
        with self._lock:
            now_s = self._clock()
            self._left = min(float(AT_ONCE), self._left + (now_s - self._counted_s) / EVERY_S)
            self._counted_s = now_s
            if self._held is None or self._left < 1:
                return
            line, count = self._held, self._num_left_out
            self._held, self._num_left_out = None, 0
            self._left -= 1
        more = f" ({count} notices before this one were left out)" if count else ""
        self._notify(line + more)
