"""Records on stdout, for the next program of a pipe."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from mma_edge.errors import OutputError
from mma_edge.types import Emotion, Notify, ignore_notice

STDOUT = "-"
"""Its name as an `--output`."""
_LOOK_S = 0.2
_FIRST_S = 2.0
"""That a reader keeps the run waiting is said after so many seconds in all, and again after ten times as many."""
_PIECE = getattr(select, "PIPE_BUF", 512)
"""So many bytes go into a pipe at once or not at all, without waiting, where it says that it takes some."""


class StdoutSink(AbstractContextManager):
    """One JSON object per line, each handed over at once. A slow reader is waited for: no record is left out.

    A reader that went away (`head -1`) ends the run: `write` raises BrokenPipeError.
    """

    def __init__(self, notify: Notify = ignore_notice) -> None:
        """OutputError where the process has no stdout."""
        try:
            self._file = sys.stdout.fileno()
            os.fstat(self._file)
        except (AttributeError, OSError, ValueError) as error:
            raise OutputError("--output - and stdout is closed", "a stdout", "or write to a file") from error
        self.count, self.left_out, self.waited_s = 0, 0, 0.0
        self._notify, self._say_s, self._until_s = notify, _FIRST_S, float("inf")
        self.on_wait: Callable[[], None] = lambda: None
        """Called now and then while the reader is waited for: the thread is not stuck."""

    def write(self, emotion: Emotion) -> None:
        data = (json.dumps(emotion.to_dict()) + "\n").encode()
        try:
            while data:
                if not self._takes():
                    self.left_out += 1
                    return
                data = data[os.write(self._file, data[:_PIECE]) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            what = f"cannot write to stdout after {self.count} records: {error.strerror}"
            raise OutputError(what, hint="give --output a file") from error
        self.count += 1

    def hurry(self, rest_s: float) -> None:
        """The run is to end: from now on wait for the reader for no longer than this, in all."""
        self._until_s = time.monotonic() + rest_s

    def _takes(self) -> bool:
        """Wait until the reader takes more; False where it has not in the time that is left."""
        if not hasattr(select, "poll"):  # Windows: there writing itself waits
            return True
        poll = select.poll()
        poll.register(self._file, select.POLLOUT)
        start_s = time.monotonic()
        while not poll.poll(1000 * max(0.0, min(_LOOK_S, self._until_s - start_s))):
            self.on_wait()
            now_s = time.monotonic()
            self.waited_s, start_s = self.waited_s + now_s - start_s, now_s
            if now_s >= self._until_s:
                return False
            if self.waited_s >= self._say_s:
                self._say_s *= 10
                what = f"the reader of --output - has kept the run waiting for {self.waited_s:.0f} s"
                self._notify(f"{what}: no record is lost, but of a live source come fewer")
        return True

    def __exit__(self, *exc_info: object) -> None:
        if self.left_out:
            self._notify(f"the reader of --output - did not take the last {self.left_out} records")
