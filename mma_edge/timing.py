"""Where the time of a run goes: milliseconds per stage, collected only when somebody asks."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

Timer = Callable[[str], AbstractContextManager]
"""Takes a stage's name; its duration is that of the `with` block."""


def no_timer(stage: str) -> AbstractContextManager:
    """The `Timer` of ordinary runs: a camera that runs for weeks must not collect durations."""
    return nullcontext()


class StageTimer:
    """Durations in milliseconds per stage name, one entry per call."""

    def __init__(self) -> None:
        self.durations_ms: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.durations_ms[stage].append(1000 * (time.perf_counter() - start))
