"""What live outputs have in common: a queue that never grows, and a thread of its own that empties it."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from typing import Any, Generic, TypeVar

from mma_edge.sinks import Follower
from mma_edge.types import Notify, ignore_notice

QUEUE = 256
"""So many messages wait for whoever is slow or away; then the oldest is left out."""
CLOSE_S = 2.0
"""Longest time for what is left at the end."""
Item = TypeVar("Item")


class Backlog(Generic[Item]):
    """A queue with a fixed room: when it is full, it loses its oldest item and counts it. For any threads."""

    def __init__(self, room: int = QUEUE) -> None:
        self.dropped = 0
        self._room = room
        self._items: deque[Item] = deque()
        self._lock = threading.Lock()

    def put(self, item: Item) -> bool:
        """Whether nothing was lost for it."""
        with self._lock:
            full = len(self._items) >= self._room
            if full:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            return not full

    def take(self) -> Item | None:
        """The oldest item, None where there is none."""
        with self._lock:
            return self._items.popleft() if self._items else None

    def put_back(self, item: Item) -> None:
        """What was taken and could not be sent is the oldest item again, if there is still room for it."""
        with self._lock:
            if len(self._items) < self._room:
                self._items.appendleft(item)
            else:
                self.dropped += 1

    def __len__(self) -> int:
        return len(self._items)


class QueuedFollower(Follower, Generic[Item]):
    """Its thread, `run`, sends what is put into the backlog. Losses are counted, and said with the 1st, the 10th, the
    100th, and at the end.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.backlog: Backlog[Item] = Backlog()
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
        """Send, until `_closing` is set."""

    @abstractmethod
    def wake(self) -> None:
        """Something is in the backlog, or it is over: end the wait of `run`. Returns at once."""

    def put(self, item: Item) -> None:
        """Queue an item; returns at once."""
        self.backlog.put(item)
        self.wake()
        if self.backlog.dropped >= self._say_at:
            self._say_at *= 10
            self.say(f"too slow or away: {_counted(self.backlog.dropped)} left out so far; the records are complete")

    def say(self, line: str) -> None:
        self._notify(f"{self.name}: {line}")

    def __exit__(self, *exc_info: object) -> None:
        self._closing.set()
        self.wake()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
            if self._thread.is_alive():
                self.say(f"still busy after {CLOSE_S:g} s and left to itself")
        if left := self.backlog.dropped + len(self.backlog):
            self.say(f"{self.sent} sent, {_counted(left)} left out")


def _counted(number: int) -> str:
    return "1 message was" if number == 1 else f"{number} messages were"
