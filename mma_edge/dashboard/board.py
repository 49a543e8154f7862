"""What pages show: the newest of everything, and the answers of the last minutes. Any thread writes, viewers read."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

KEPT_S, MOST_ANSWERS = 300.0, 4000
"""Answers that a page gets which is opened later, or falls behind: of so many seconds, and at most so many."""
HEADER = struct.Struct("<dII")
"""Of a message: wall-clock time in seconds, its number, bytes of the JSON text that follows. Behind the text come the
JPEGs of its `frames`, in their order, each of so many `bytes` as the text says."""


@dataclass(frozen=True, eq=False, slots=True)
class Shown:
    """A picture as pages get it, with what goes with it: one is never sent without the other."""

    facts: dict[str, Any]  # source, time_s, arrived, size, faces
    jpeg: bytes
    arrival_s: float  # of the frame, `time.monotonic()`


@dataclass(frozen=True, eq=False, slots=True)
class News:
    """What a viewer has not seen yet."""

    version: int  # of the board
    text: str
    jpegs: tuple[bytes, ...]
    arrival_s: float | None  # of the oldest picture in it

    def message(self, number: int) -> bytes:
        body = self.text.encode()
        return b"".join((HEADER.pack(time.time(), number, len(body)), body, *self.jpegs))


class Board:
    """Parts by name, each replaced by a newer one; a picture per source; answers. Every change has a number."""

    def __init__(self, on_change: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        """`on_change` is called after each change, by the thread that made it."""
        self._on_change, self._clock = on_change, clock
        self._lock = threading.Lock()
        self._version = 0
        self._parts: dict[str, tuple[int, str]] = {}
        self._pictures: dict[str, tuple[int, Shown]] = {}
        self._answers: deque[tuple[int, float, str]] = deque(maxlen=MOST_ANSWERS)

    def put(self, name: str, value: object) -> None:
        """Replace a part; one that is as it was is no news."""
        text = json.dumps(value)
        with self._lock:
            if self._parts.get(name, (0, ""))[1] == text:
                return
            self._version += 1
            self._parts[name] = self._version, text
        self._on_change()

    def show(self, source: str, shown: Shown) -> None:
        """Replace the picture of a source."""
        with self._lock:
            self._version += 1
            self._pictures[source] = self._version, shown
        self._on_change()

    def answer(self, record: dict[str, Any]) -> None:
        """Add a record, as it is in the records' file."""
        text, now_s = json.dumps(record), self._clock()
        with self._lock:
            self._version += 1
            self._answers.append((self._version, now_s, text))
            while now_s - self._answers[0][1] > KEPT_S:
                self._answers.popleft()
        self._on_change()

    def since(self, version: int) -> News | None:
        """All that is newer than a version, 0: all; None where nothing is."""
        with self._lock:
            if version >= self._version:
                return None
            texts = [f'"{name}":{text}' for name, (number, text) in self._parts.items() if number > version]
            pictures = [shown for number, shown in self._pictures.values() if number > version]
            answers: list[str] = []
            for number, _, text in reversed(self._answers):
                if number <= version:
                    break
                answers.append(text)
            newest = self._version
        if answers:
            texts.append(f'"answers":[{",".join(reversed(answers))}]')
        if pictures:
            facts = [shown.facts | {"bytes": len(shown.jpeg)} for shown in pictures]
            texts.append(f'"frames":{json.dumps(facts)}')
        oldest_s = min((shown.arrival_s for shown in pictures), default=None)
        return News(newest, "{" + ",".join(texts) + "}", tuple(shown.jpeg for shown in pictures), oldest_s)
