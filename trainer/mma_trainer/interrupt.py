"""Ctrl-C and SIGTERM ask the loop to stop; it finishes its step, saves, and leaves."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


class StopRequest:
    """Set by the first SIGINT or SIGTERM. Alone, a second Ctrl-C stops at once, without saving.

    Under torchrun a Ctrl-C arrives twice, from the terminal and from torchrun, so only the first counts.
    """

    def __init__(self, insist: bool) -> None:
        self.signal: int | None = None
        self._insist = insist

    @property
    def made(self) -> bool:
        return self.signal is not None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the two signals over; only a main thread can, others leave them as they are."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def leave(self) -> None:
        """End the program as the signal asked: 130 for Ctrl-C, 143 for SIGTERM."""
        if self.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    def _receive(self, number: int, _frame: object) -> None:
        if self.made and self._insist and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or number
