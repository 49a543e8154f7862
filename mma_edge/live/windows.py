"""The windows that are due and wait for the engine: of each face only the newest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mma_edge.types import Clip

MOST_WAIT_S, WAIT_PER_HOP = 0.02, 0.1
"""Longest time for which a window waits for those of other sources, in seconds and as a share of the hop."""


@dataclass(frozen=True, eq=False, slots=True)
class DueWindow:
    """A clip that is due."""

    source: int  # number of its source
    clip: Clip
    due_s: float  # `time.monotonic()`


class DueWindows:
    """Between the threads of the sources, which put windows in, and that of the engine, which takes them in batches.

    A window that was not taken when the next one of its face is due is replaced by it: an engine that is too slow
    answers less often, never later.
    """

    def __init__(self, sources: int, hop_s: float, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`sources`: how many there are; `most`: how many windows the engine takes at once."""
        self.wait_s = min(MOST_WAIT_S, WAIT_PER_HOP * hop_s) if sources > 1 else 0.0
        self._open, self._most, self._clock = set(range(sources)), most, clock
        self._changed = threading.Condition()
        self._waiting: dict[tuple[int, int | None], DueWindow] = {}
        self._closed = False

    def put(self, source: int, clips: Iterable[Clip]) -> int:
        """Add what is due; returns how many windows it replaced."""
        replaced = 0
        with self._changed:
            for clip in clips:
                key = (source, clip.track_id)
                replaced += key in self._waiting
                # It keeps the place of the one it replaces, so that no face is overtaken for ever.
                self._waiting[key] = DueWindow(source, clip, self._clock())
            self._changed.notify_all()
        return replaced

    def end(self, source: int) -> None:
        """There are no more windows of this source."""
        with self._changed:
            self._open.discard(source)
            self._changed.notify_all()

    def forget(self) -> None:
        """Forget the windows that wait."""
        with self._changed:
            self._waiting.clear()

    def close(self) -> None:
        """Forget all windows; who waits for one gets None."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def take(self) -> list[DueWindow] | None:
        """The windows for one call of the engine, those that wait longest first; None when no more will come.

        Waits for the first, and from then on for at most `wait_s` for those of other sources.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed or not self._open)
            if self._closed or not self._waiting:
                return None
            first_s = min(window.due_s for window in self._waiting.values())
            self._changed.wait_for(self._complete, max(0.0, first_s + self.wait_s - self._clock()))
            keys = list(self._waiting)[: self._most]
            return [self._waiting.pop(key) for key in keys]

    def _complete(self) -> bool:
        return self._closed or len(self._waiting) >= self._most or self._open <= {source for source, _ in self._waiting}
