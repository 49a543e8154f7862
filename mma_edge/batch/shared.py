"""Clips of several files in one call of the engine, for engines that compute many at once: GPUs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mma_edge.pipeline import ClipPredictor
from mma_edge.types import Clip, Emotion

WAIT_S = 0.02
"""Longest time for which a file's clips wait for those of other files; meanwhile its next ones are being made."""


@dataclass(eq=False)
class _Call:
    """The clips of one file, and what became of them."""

    clips: Sequence[Clip]
    emotions: list[Emotion] = field(default_factory=list)
    error: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)


class SharedCalls(contextlib.AbstractContextManager):
    """Takes the place of the recognizer of several pipelines, each in a thread of its own."""

    def __init__(self, recognizer: ClipPredictor, most: int) -> None:
        """`most`: clips of one call."""
        self.labels, self.image_size = recognizer.labels, recognizer.image_size
        self.largest = 0
        """Clips in the largest call so far."""
        self._recognizer, self._most = recognizer, most
        self._changed = threading.Condition()
        self._waiting: list[_Call] = []
        self._open = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="mma-edge-engine", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def file(self) -> Iterator[None]:
        """While a file is read: nobody waits for the clips of files that are done."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def predict_clips(self, clips: Sequence[Clip]) -> list[Emotion]:
        """One Emotion per clip; waits for the call that they are part of, and raises its error."""
        call = _Call(clips)
        with self._changed:
            self._waiting.append(call)
            self._changed.notify_all()
        call.done.wait()
        if call.error is not None:
            raise call.error
        return call.emotions

    def __exit__(self, *exc_info: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _count(self, change: int) -> None:
        with self._changed:
            self._open += change
            self._changed.notify_all()

    def _run(self) -> None:
        while calls := self._next():
            self.largest = max(self.largest, sum(len(call.clips) for call in calls))
            if not self._predict(calls):
                for call in calls:  # each for itself: what is wrong with one is nothing to the others
                    self._predict([call])
            for call in calls:
                call.done.set()

    def _next(self) -> list[_Call]:
        """Those that wait longest, as many as go into one call, at least one; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            self._changed.wait_for(self._complete, WAIT_S)
            count, clips = 0, 0
            while count < len(self._waiting) and (not count or clips + len(self._waiting[count].clips) <= self._most):
                clips += len(self._waiting[count].clips)
                count += 1
            calls, self._waiting = self._waiting[:count], self._waiting[count:]
            return calls

    def _complete(self) -> bool:
        waiting = sum(len(call.clips) for call in self._waiting)
        return self._closed or waiting >= self._most or len(self._waiting) >= self._open

    def _predict(self, calls: Sequence[_Call]) -> bool:
        try:
            emotions = iter(self._recognizer.predict_clips([clip for call in calls for clip in call.clips]))
        except BaseException as error:  # whatever it is, the files get it
            calls[0].error = error
            return False
        for call in calls:
            call.error, call.emotions = None, [next(emotions) for _ in call.clips]
        return True
