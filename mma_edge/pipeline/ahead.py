"""Stages of a pipeline that work at the same time, each in a thread of its own, with short queues between them.

Python's lock is no obstacle: decoding, resizing and the networks release it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class _End:
    """The last thing in a queue: there are no more items, or an error instead of them."""

    error: BaseException | None


def ahead(items: Iterator[Item], room: int, name: str) -> Iterator[Item]:
    """The same items in the same order, made by a thread that works at most `room` items ahead of the reader.

    An error of `items` is raised here, after the items that came before it. When this generator is closed, or reader or
    `items` fail, the thread closes `items` and ends; it has ended when `close` returns. Nothing starts before the first
    item is asked for.

    Args:
        items: read and closed by the thread alone. room: at least 1. name: of the thread, for debuggers.
    """
    waiting: queue.Queue[Item | _End] = queue.Queue(room)
    stopped = threading.Event()

    def work() -> None:
        error = None
        try:
            for item in items:
                waiting.put(item)
                if stopped.is_set():
                    break
        except BaseException as caught:  # whatever it is, the reader gets it
            error = caught
        finally:
            # An iterator that is no generator holds nothing to close.
            getattr(items, "close", lambda: None)()
        if not stopped.is_set():
            waiting.put(_End(error))

    # A daemon: a decoder that never returns must not keep the program alive.
    thread = threading.Thread(target=work, name=f"mma-edge-{name}", daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        # Room for the one item that the thread may still put before it looks at `stopped`.
        while not waiting.empty():
            waiting.get_nowait()
        thread.join()
