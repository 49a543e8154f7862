"""Keeps the memory of a live run flat: one that goes on for weeks, while connections come and go.

Two things let it grow. The C library gives each thread a heap of its own, and what lies free in one is of no use to the
others. And a WebSocket that is gone leaves 16 kB in circles of references (aiohttp's connection, and exceptions), of
which Python's collector seldom frees those that lived for a while: 155 lay there at once, with ten visits a second.
docs/dashboard.md has what `mma-bench dashboard` measured.
"""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ARENAS = 2
"""Heaps for all threads: the main one, and one for all others."""
SWEEP_S = 10.0
"""How often the run's circles of references are looked for."""
_M_ARENA_MAX = -8  # malloc.h


def share_heaps() -> None:
    """Let the threads that begin from now on share ARENAS heaps, where the C library is glibc.

    What the user has set for it holds.
    """
    chosen = "MALLOC_ARENA_MAX" in os.environ or "arena_max" in os.environ.get("GLIBC_TUNABLES", "")
    if platform.libc_ver()[0] == "glibc" and not chosen:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS)


@contextmanager
def swept(every_s: float = SWEEP_S) -> Iterator[None]:
    """Until the block ends, free circles of references every so many seconds.

    What is there at its beginning, modules and the model, is not looked at again (`gc.freeze`): its 67,000 objects take
    0.1 s, in which no thread gets on, the 6,000 of a run with eight viewers a millisecond.
    """
    ended = threading.Event()

    def sweep() -> None:
        while not ended.wait(every_s):
            gc.collect()

    gc.collect()
    gc.freeze()
    thread = threading.Thread(target=sweep, name="mma-edge-memory", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        gc.unfreeze()
