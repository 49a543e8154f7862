"""What a process holds and has to give back. Its own module: processes that import it need nothing of conftest."""

from __future__ import annotations

import os
import time


def held() -> tuple[int, int]:
    """Threads and file descriptors of this process."""
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))


def returns_to(before: tuple[int, int], limit_s: float = 5.0) -> bool:
    """Whether no more threads and descriptors are held than before, after a while."""
    deadline_s = time.monotonic() + limit_s
    while any(now > then for now, then in zip(held(), before, strict=True)):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.05)
    return True
