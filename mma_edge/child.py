"""Child processes: those that speak JSON, one object per line, and programs of others (`Program`).

Work runs in its own process when it may be killed for lack of memory, needs a library that must not stay loaded, or is
measured alone: `python -m MODULE REQUEST`, where REQUEST is a JSON object. The child sends messages on its private
stdout, whatever its libraries print; orders, if any, come on stdin. An MMAEdgeError of the child is raised again in the
parent. The child's side is `serve`, the parent's `Child`.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import mma_edge.errors as errors
from mma_edge.errors import MMAEdgeError

Message = dict[str, Any]
Tell = Callable[[Message], None]
"""Sends one message to the parent; from any thread."""

DONE, ERROR = "done", "error"
END_TIMEOUT_S = 20
"""How long a child may take to end after its stdin was closed, before it is killed."""

_ORPHAN_S = 0.5
"""How often a child looks whether its parent lives, once its stdin has closed."""

PROGRAM_END_S = 3
"""How long a `Program` may take to end after it was asked to."""


class ChildDiedError(Exception):
    """The child ended without an answer: its exit status, -N where signal N ended it, and its last line on stderr."""

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


class Child(contextlib.AbstractContextManager):
    """A running child; close it, or use it in a `with`: afterwards it has ended and its memory is free."""

    def __init__(
        self,
        command: tuple[str, ...],  # arguments of `python`, e.g. ("-m", "mma_benchmarks.grid.child")
        request: Message,  # what `serve` passes to the child's work
        environment: Mapping[str, str | None] | None = None,  # variables to set, or to remove with None
    ) -> None:
        # The child imports from the same places as this process, whatever folder it starts in.
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

    def __exit__(self, *exception: object) -> None:
        self.close(at_once=exception[0] is not None)

    def message(self, timeout_s: float | None = None) -> Message:
        """The child's next message.

        Raises:
            MMAEdgeError: the child raised it, of the same class. ChildDiedError: the child ended without a message.
            ChildTimeoutError: no message came in this time.
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

    def send(self, order: Message) -> None:
        """Give it an order, which it reads with `orders`; waits for nothing."""
        with contextlib.suppress(OSError):  # the child may have ended; `message` finds out why
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()

    def ask(self, order: Message, timeout_s: float | None = None) -> Message:
        """The answer to an order; raises as `message` does."""
        self.send(order)
        return self.message(timeout_s)

    def result(self, follow: Tell = lambda message: None, timeout_s: float | None = None) -> Any:
        """What the child's work returned; every earlier message goes to `follow`. Raises as `message` does."""
        while DONE not in (message := self.message(timeout_s)):
            follow(message)
        return message[DONE]

    def kill(self) -> None:
        """End it at once, from any thread; whoever waits for a message gets ChildDiedError, and closes it."""
        self._process.kill()

    def close(self, at_once: bool = False) -> None:
        """End the child and wait until its memory is free. Safe to call twice.

        It is killed if `at_once`, or if it does not end when asked.
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


class Program(contextlib.AbstractContextManager):
    """Another program that writes data into a pipe. It ends with the thread that started it, however that ends.

    The pipe is not the program's stdout, where its libraries may print. Use it from one thread.
    """

    def __init__(self, command: Callable[[int], Sequence[str]]) -> None:
        """Start the command that `command` makes for the number of the file descriptor to write to."""
        self._errors = tempfile.TemporaryFile(mode="w+b")  # noqa: SIM115 - closed in close()
        self._pipe, theirs = os.pipe()
        # When the thread dies, even by a kill, the program is asked to end, and after some seconds it is killed. Where
        # these two are missing, it ends when it writes next.
        with_us = ["setpriv", "--pdeathsig", "INT", "timeout", "--kill-after", str(PROGRAM_END_S), "0"]
        with_us = with_us if shutil.which("setpriv") and shutil.which("timeout") else []
        try:
            self._process = subprocess.Popen(
                [*with_us, *command(theirs)],
                stdin=subprocess.DEVNULL,
                stdout=self._errors,
                stderr=self._errors,
                pass_fds=(theirs,),
                start_new_session=True,  # Ctrl-C is for this process, which then ends the program
            )
        except BaseException:
            os.close(self._pipe)
            self._errors.close()
            raise
        finally:
            os.close(theirs)
        self.pid = self._process.pid
        self._closed = False

    def read_into(self, room: memoryview, timeout_s: float) -> int | None:
        """Bytes read; 0 at the end of the data, None where none came in time."""
        if not select.select([self._pipe], [], [], timeout_s)[0]:
            return None
        return os.readv(self._pipe, [room])

    def last_words(self) -> list[str]:
        """What it said, lines with something in them."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        return [line.strip() for line in lines if line.strip()]

    def close(self) -> None:
        """Ask it to end as Ctrl-C does, kill it where it does not in `PROGRAM_END_S`; afterwards it is gone."""
        if self._closed:
            return
        self._closed = True
        os.close(self._pipe)
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(PROGRAM_END_S + 1)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)  # the session that it began
            self._process.wait()
        self._errors.close()

    def __exit__(self, *exception: object) -> None:
        self.close()


def serve(work: Callable[[Message, Tell], Any], argv: list[str] | None = None) -> int:
    """The child's side: calls `work(request, tell)`, sends the result, and returns the exit code.

    An MMAEdgeError is sent to the parent; any other error ends the child with a traceback, whose last line the parent
    reads.
    """
    # Libraries may print to stdout: so the messages go through a copy of it, and everything else to stderr.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    lock = threading.Lock()
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), name="parent", daemon=True).start()

    def tell(message: Message) -> None:
        with lock, contextlib.suppress(BrokenPipeError):  # the parent has ended: nobody reads this
            channel.write(json.dumps(message) + "\n")

    try:
        tell({DONE: work(json.loads((argv or sys.argv)[-1]), tell)})
    except MMAEdgeError as error:
        failure = {"what": error.what, "expected": error.expected, "hint": error.hint}
        tell({ERROR: {"kind": type(error).__name__, **failure}})
        return 1
    return 0


def _end_with_parent(parent: int) -> None:
    """End this process at once when its parent was killed: nobody is left to end it, and it may compute for hours."""
    if hasattr(select, "poll"):  # not on Windows
        hung_up = select.poll()
        hung_up.register(0, 0)  # nothing is read: what arrives are orders
        hung_up.poll()
    while os.getppid() == parent:  # it only closed the pipe, and waits for the end
        time.sleep(_ORPHAN_S)
    os._exit(1)


def orders() -> Iterator[Message]:
    """In the child: the parent's orders, until it closes the pipe."""
    return map(json.loads, sys.stdin)
