"""What live outputs have in common: a queue that never grows, and a thread of its own that empties it."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from typing import Any, Generic, TypeVar

from mma_edge.sinks import Follower
from mma_edge.types import Notify, ignore_notice

QUEUE = 256
"""So many messages wait for an output that is slow or away; then the oldest is left out."""
CLOSE_S = 2.0
"""Longest time for what is left at the end."""
Item = TypeVar("Item")


class QueuedFollower(Follower, Generic[Item]):
    """Hands items to a thread, which is `run`. A full queue loses its oldest item: counted, said with the 1st, the
    10th, the 100th, and at the end.
    """

    def __init__(self, queue: int = QUEUE) -> None:
        self.sent = self.dropped = 0
        self._items: deque[Item] = deque()
        self._room = queue
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._say_at = 1
        self._notify: Notify = ignore_notice
        self._thread: threading.Thread | None = None

    def begin(self, running: Any) -> None:
        self._notify = running.options.notify
        # A daemon: a library that never returns must not keep the program alive.
        self._thread = threading.Thread(target=self.run, name=f"mma-edge-{self.name.lstrip('-')}", daemon=True)
        self._thread.start()

    @abstractmethod
    def run(self) -> None:
        """Take items until `take` says that it is over."""

    def put(self, item: Item) -> None:
        """Queue an item; returns at once. From any thread."""
        with self._changed:
            full = len(self._items) >= self._room
            if full:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            say = full and self.dropped >= self._say_at
            if say:
                self._say_at *= 10
            self._changed.notify()
        self.wake()
        if say:
            self.say(f"too slow or away: {_counted(self.dropped)} left out so far; the records are complete")

    def wake(self) -> None:
        """Something is in the queue, or it is over: for a `run` that waits for something else, too."""

    def take(self, timeout_s: float) -> Item | None:
        """The oldest item, waited for so long; None where there is none."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closing.is_set(), timeout_s)
            return self._items.popleft() if self._items else None

    def put_back(self, item: Item) -> None:
        """What could not be sent is the oldest item again, if there is still room for it."""
        with self._changed:
            if len(self._items) < self._room:
                self._items.appendleft(item)
            else:
                self.dropped += 1

    def say(self, line: str) -> None:
        self._notify(f"{self.name}: {line}")

    def __exit__(self, *exc_info: object) -> None:
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        self.wake()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
            if self._thread.is_alive():
                self.say(f"still busy after {CLOSE_S:g} s and left to itself")
        left = self.dropped + len(self._items)
        if left:
            self.say(f"{self.sent} sent, {_counted(left)} left out")


def _counted(number: int) -> str:
    return "1 message was" if number == 1 else f"{number} messages were"
