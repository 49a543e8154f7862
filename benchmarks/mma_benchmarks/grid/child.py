"""One cell of the grid in a process of its own: opens, then computes whenever it is told to.

Speaks JSON, one object per line. First {"ready": facts} or {"error": words}; then for each {"calls": n} on stdin the
milliseconds of the n calls; {"finish": true} asks for the logits and the memory, and ends it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TextIO

from mma_benchmarks.machine.facts import peak_memory_mib
from mma_edge.errors import DependencyError, MMAEdgeError

PEAK = "peak"
UNCOUNTED_CALLS = 1
"""Before those that count, in each turn: caches and clocks have to come back."""


def main(request: str) -> int:
    replies = _private_stdout()
    asked = json.loads(request)
    try:
        start = time.perf_counter()
        worker = Peak(asked) if asked["runner"] == PEAK else Cell(asked)
        _say(replies, {"ready": {**worker.facts, "load_s": time.perf_counter() - start}})
    except MMAEdgeError as error:
        _say(replies, {"error": str(error)})
        return error.exit_code
    except Exception as error:  # a library's own; the row says it in one line, whatever it is
        _say(replies, {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})
        return 1
    for line in sys.stdin:
        order = json.loads(line)
        try:
            _say(replies, worker.finish() if "finish" in order else worker.turn(order["calls"]))
        except Exception as error:
            _say(replies, {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})
            return 1
        if "finish" in order:
            return 0
    return 0


class Cell:
    """A runner and the clips it is timed on."""

    def __init__(self, asked: dict) -> None:
        from mma_benchmarks.grid.runners import inputs_of, open_runner

        self._opened = open_runner(asked["runner"], asked["precision"], asked["bundle"], asked["checkpoint"])
        self._inputs = inputs_of(self._opened.image_size, asked["batch"])
        opened = self._opened
        names = ("device", "details", "runner", "precision", "flops_per_clip")
        self.facts = {name: getattr(opened, name) for name in names}

    def turn(self, calls: int) -> dict:
        durations_ms = []
        for _ in range(UNCOUNTED_CALLS + calls):
            start = time.perf_counter()
            self._opened.call(*self._inputs)
            durations_ms.append(1000 * (time.perf_counter() - start))
        return {"ms": durations_ms[UNCOUNTED_CALLS:]}

    def finish(self) -> dict:
        logits = self._opened.call(*self._inputs)
        return {"logits": logits.tolist(), "peak_memory_mib": peak_memory_mib()}


class Peak:
    """The matrix product, in turns with the models."""

    def __init__(self, asked: dict) -> None:
        try:
            from mma_benchmarks.machine.matmul import MatmulPeak

            self._peak = MatmulPeak(asked["device"])
        except ImportError as error:
            raise DependencyError("torch is not installed", hint='pip install "mma-edge[train]"') from error
        self.facts = {"device": asked["device"], "details": self._peak.details}

    def turn(self, calls: int) -> dict:
        for _ in range(calls):
            self._peak()
        return {"ms": []}

    def finish(self) -> dict:
        return {"peaks": {name: list(best) for name, best in self._peak().items()}}


def _private_stdout() -> TextIO:
    """The pipe to the parent; what libraries print goes to stderr from now on."""
    private = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return private


def _say(replies: TextIO, message: dict) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
