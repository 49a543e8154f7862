"""A child process that speaks JSON, one object per line: the one protocol of every process that this project starts.

What may be killed for want of memory, brings a library that must not stay, or is measured alone runs in a process of
its own: `python -m MODULE REQUEST`, where REQUEST is a JSON object. The child tells what it has to say on its private
stdout, whatever its libraries print; orders, if there are any, come on stdin. Its own errors arrive as they were
raised. The child's side is `serve`, the parent's `Child`.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mma_edge import errors
from mma_edge.errors import MMAEdgeError

Message = dict[str, Any]
Tell = Callable[[Message], None]
"""Sends one message to the parent; from any thread."""

DONE, ERROR = "done", "error"
END_TIMEOUT_S = 20
"""Time to end once stdin is closed, before the child is killed."""


class ChildDiedError(Exception):
    """The child ended without an answer.

    Attributes:
        status: its exit status, -N where signal N ended it.
        last_words: last line of what it wrote to stderr, "" if nothing.
    """

    def __init__(self, status: int, last_words: str) -> None:
        self.status, self.last_words = status, last_words
        super().__init__(self.describe())

    def describe(self) -> str:
        """How it ended, in words."""
        if self.status < 0:
            name = signal.Signals(-self.status).name
            cause = ", most likely for want of memory" if name == "SIGKILL" else ""
            return f"the process was ended by {name}{cause}"
        return f"the process ended with exit code {self.status} ({self.last_words[:200] or 'no message'})"


class ChildTimeoutError(Exception):
    """The child gave no answer in time, and was killed."""


class Child:
    """A running child; close it, or use it in a `with`: it is gone afterwards, and its memory free.

    Args:
        command: what `python` is to run, e.g. ("-m", "mma_benchmarks.grid.child").
        request: what `serve` hands to the child's work.
        environment: variables to set, or with None to leave out.
    """

    def __init__(
        self, command: tuple[str, ...], request: Message, environment: Mapping[str, str | None] | None = None
    ) -> None:
        # The same places to import from as this process, whatever folder the child starts in.
        paths = os.pathsep.join(path for path in sys.path if path)
        variables = {**os.environ, "PYTHONPATH": paths, **(environment or {})}
        self._errors = tempfile.TemporaryFile(mode="w+b")  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            [sys.executable, *command, json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env={name: value for name, value in variables.items() if value is not None},
        )
        self.pid = self._process.pid
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close(at_once=exception[0] is not None)

    def message(self, timeout_s: float | None = None) -> Message:
        """The next one.

        Raises:
            MMAEdgeError: what the child raised, of the same class. ChildDiedError: it ended without another word.
            ChildTimeoutError: it said nothing for so long.
        """
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty as error:
            self._process.kill()
            raise ChildTimeoutError(f"no answer within {timeout_s:g} s") from error
        if line is None:
            self._lines.put(None)
            raise self._death()
        message = json.loads(line)
        if ERROR in message:
            failure = message[ERROR]
            raise getattr(errors, failure["kind"])(failure["what"], failure["expected"], failure["hint"])
        return message

    def ask(self, order: Message, timeout_s: float | None = None) -> Message:
        """The answer to an order; raises as `message` does."""
        with contextlib.suppress(OSError):  # it may be gone; why is found out below
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        return self.message(timeout_s)

    def result(self, follow: Tell = lambda message: None, timeout_s: float | None = None) -> Any:
        """What the child's work returned; every message before goes to `follow`. Raises as `message` does."""
        while DONE not in (message := self.message(timeout_s)):
            follow(message)
        return message[DONE]

    def close(self, at_once: bool = False) -> None:
        """End it and wait for its end: its memory is needed. Safe to call twice.

        Args:
            at_once: kill it; otherwise it is asked to end, and killed when it does not.
        """
        if at_once:
            self._process.kill()
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(END_TIMEOUT_S)
        self._process.stdout.close()
        self._errors.close()

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _death(self) -> ChildDiedError:
        status = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        return ChildDiedError(status, next((line.strip() for line in reversed(lines) if line.strip()), ""))


def serve(work: Callable[[Message, Tell], Any], argv: list[str] | None = None) -> int:
    """The child's side: does `work(request, tell)` and tells what it returns; the exit code.

    An MMAEdgeError is told to the parent; anything else ends the child with a traceback, whose last line the parent
    finds.
    """
    # Libraries print to stdout as they like: what the parent reads goes through a copy of it, the rest to stderr.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    lock = threading.Lock()

    def tell(message: Message) -> None:
        with lock, contextlib.suppress(BrokenPipeError):  # the parent is gone: nobody is left to hear it
            channel.write(json.dumps(message) + "\n")

    try:
        tell({DONE: work(json.loads((argv or sys.argv)[-1]), tell)})
    except MMAEdgeError as error:
        failure = {"what": error.what, "expected": error.expected, "hint": error.hint}
        tell({ERROR: {"kind": type(error).__name__, **failure}})
        return 1
    return 0


def orders() -> Iterator[Message]:
    """In the child: what the parent asks for, until it closes the pipe."""
    return map(json.loads, sys.stdin)
