"""Visitors: how long one stays, and what is done about one who sends what no page of ours sends."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable

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


async def until_first(*works: Awaitable[object]) -> None:
    """Until the first of a visitor's works ends; the others are cancelled, and have ended by then."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            with contextlib.suppress(ConnectionError):  # it is gone
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
