"""Visitors who send what no page of ours sends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

MAX_BAD = 20
"""Bad messages of one visitor before it is shown out."""


class BadMessageError(ValueError):
    """A visitor sent what no page of ours sends; the text says what, and holds nothing of it."""


class Complaints:
    """Says each kind of bad message once, and counts the others."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.counts: Counter[str] = Counter()

    def add(self, what: str) -> None:
        self.counts[what] += 1
        if self.counts[what] == 1:
            self._say(f"a visitor sent {what}; more of this is counted, not told")
