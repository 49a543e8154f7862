"""A child process that computes on demand, seen from the parent: orders go down a pipe, answers come back."""

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
from pathlib import Path

from mma_edge.engines.cache import CACHE_VARIABLE
from mma_edge.errors import BackendError

OPEN_TIMEOUT_S = 1800
"""Building an engine or compiling a model may take many minutes on a small board."""
TURN_TIMEOUT_S = 1800
END_TIMEOUT_S = 20


class Worker:
    """One `grid_child`; close it, or use it in a `with`."""

    def __init__(self, request: dict, environment: dict[str, str] | None = None) -> None:
        """Start it and wait until it is ready.

        Attributes:
            facts: what it says of itself once it is open. pid: of its process.

        Raises:
            BackendError: it cannot run, in its own words, or it died or hung.
        """
        paths = os.pathsep.join(path for path in sys.path if path)
        self._errors = tempfile.TemporaryFile(mode="w+b")  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mma_benchmarks.grid.child", json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONPATH": paths, **(environment or {})},
        )
        self.pid = self._process.pid
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.facts = self._answer(OPEN_TIMEOUT_S)["ready"]
        except BaseException:
            self.close()
            raise

    def turn(self, calls: int) -> list[float]:
        """Milliseconds of `calls` calls, one after the other."""
        return self._ask({"calls": calls})["ms"]

    def finish(self) -> dict:
        """Its last words: logits and memory, or the peaks. It is closed afterwards."""
        try:
            return self._ask({"finish": True})
        finally:
            self.close()

    def close(self) -> None:
        """End it, and wait for its end: its memory is needed."""
        if self._process.stdin and not self._process.stdin.closed:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _ask(self, order: dict) -> dict:
        with contextlib.suppress(OSError):  # it may be gone; why is found out below
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        return self._answer(TURN_TIMEOUT_S)

    def _answer(self, timeout_s: float) -> dict:
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty as error:
            self._process.kill()
            raise BackendError(f"no answer within {timeout_s:.0f} s") from error
        if line is None:
            raise BackendError(self._cause_of_death())
        answer = json.loads(line)
        if "error" in answer:
            raise BackendError(answer["error"])
        return answer

    def _cause_of_death(self) -> str:
        code = self._process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            why = f"the process was ended by {name}"
            return why + (", most likely for want of memory" if name == "SIGKILL" else "")
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace").strip()
        last = (text.splitlines() or ["no message"])[-1]
        return f"the process ended with exit code {code} ({last[:200]})"

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)


def cache_environment(folder: Path) -> dict[str, str]:
    """Variables that give child processes empty caches of their own below `folder`."""
    names = {"XDG_CACHE_HOME": "cache", "TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
    if os.environ.get(CACHE_VARIABLE) != "off":  # who wants no cache is measured without one
        names[CACHE_VARIABLE] = "cache/mma-edge"
    return {name: str(folder / part) for name, part in names.items()}
