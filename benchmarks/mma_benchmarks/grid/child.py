"""One cell of the grid in a process of its own: opened once, it computes whenever it is told to. Both sides of it.

The child tells {"ready": facts}; then for each order {"calls": n} the milliseconds of the n calls; the order
{"finish": true} makes it return its logits and memory, or the peaks.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import mma_edge
from mma_benchmarks.grid.runners import TORCH_RUNNERS, Opened
from mma_benchmarks.machine.facts import peak_memory_mib
from mma_benchmarks.machine.matmul import MatmulPeak
from mma_edge.bundle import golden_inputs
from mma_edge.child import DONE, Child, ChildDiedError, ChildTimeoutError, Message, Tell, orders, serve
from mma_edge.engines.cache import CACHE_VARIABLE
from mma_edge.errors import BackendError, DependencyError, MMAEdgeError
from mma_edge.precisions import GPU_BACKENDS

PEAK = "peak"
INPUT_SEED = 1
UNCOUNTED_CALLS = 1
"""Before those that count, in each turn: caches and clocks have to come back."""
OPEN_TIMEOUT_S = 1800
"""Building an engine or compiling a model may take many minutes on a small board."""
TURN_TIMEOUT_S = 1800


class Worker(Child):
    """The child seen from the parent; `facts` is what it says of itself once it is open."""

    def __init__(self, request: Message, environment: dict[str, str] | None = None) -> None:
        """Start it and wait until it is ready.

        Raises:
            BackendError: here and in every method: it cannot run, in its own words, or it died or hung.
        """
        super().__init__(("-m", "mma_benchmarks.grid.child"), request, environment)
        try:
            self.facts = self.message(OPEN_TIMEOUT_S)["ready"]
        except BaseException:
            self.close(at_once=True)
            raise

    def message(self, timeout_s: float | None = None) -> Message:
        try:
            return super().message(timeout_s)
        except (MMAEdgeError, ChildDiedError, ChildTimeoutError) as error:  # however it fails, it is a row of the grid
            raise BackendError(str(error)) from error

    def turn(self, calls: int) -> list[float]:
        """Milliseconds of `calls` calls, one after the other."""
        return self.ask({"calls": calls}, TURN_TIMEOUT_S)["ms"]

    def finish(self) -> Message:
        """Logits and memory, or the peaks; it is closed afterwards."""
        with self:
            return self.ask({"finish": True}, TURN_TIMEOUT_S)[DONE]


def cache_environment(folder: Path) -> dict[str, str]:
    """Variables that give child processes empty caches of their own below `folder`."""
    names = {"XDG_CACHE_HOME": "cache", "TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
    if os.environ.get(CACHE_VARIABLE) != "off":  # where the cache was turned off, it stays off
        names[CACHE_VARIABLE] = "cache/mma-edge"
    return {name: str(folder / part) for name, part in names.items()}


def open_runner(runner: str, precision: str | None, bundle: str | None, checkpoint: str | None) -> Opened:
    """Load a model for timing by one of RUNNERS; precision None takes the backend's best, bundle None the default one.

    Raises:
        MMAEdgeError: it cannot run here, in one line.
    """
    if runner in TORCH_RUNNERS:
        try:
            from mma_benchmarks.grid.torch_model import open_torch
        except ImportError as error:
            raise DependencyError("torch is not installed", hint='pip install "mma-edge[train]"') from error
        return open_torch(runner, precision or "fp32", bundle, checkpoint)
    recognizer = mma_edge.load(bundle, runner, precision)
    device = "cuda" if recognizer.backend in GPU_BACKENDS else "cpu"
    details = recognizer.engine.details
    if recognizer.bundle.failed(recognizer.precision, recognizer.backend):
        details += f" ({recognizer.precision} missed its export gate)"
    return Opened(recognizer.engine, device, recognizer.image_size, details, recognizer.backend, recognizer.precision)


class Cell:
    """A runner and the clips it is timed on."""

    def __init__(self, asked: Message) -> None:
        self._opened = open_runner(asked["runner"], asked["precision"], asked["bundle"], asked["checkpoint"])
        # The same random clips for every runner: what they hold makes no difference to a transformer's speed.
        self._inputs = golden_inputs(INPUT_SEED, self._opened.image_size, asked["batch"])
        names = ("device", "details", "runner", "precision", "flops_per_clip")
        self.facts = {name: getattr(self._opened, name) for name in names}

    def turn(self, calls: int) -> Message:
        durations_ms = []
        for _ in range(UNCOUNTED_CALLS + calls):
            start = time.perf_counter()
            self._opened.call(*self._inputs)
            durations_ms.append(1000 * (time.perf_counter() - start))
        return {"ms": durations_ms[UNCOUNTED_CALLS:]}

    def finish(self) -> Message:
        logits = self._opened.call(*self._inputs)
        return {"logits": logits.tolist(), "peak_memory_mib": peak_memory_mib()}


class Peak:
    """The matrix product, in turns with the models."""

    def __init__(self, asked: Message) -> None:
        try:
            self._peak = MatmulPeak(asked["device"])
        except ImportError as error:
            raise DependencyError("torch is not installed", hint='pip install "mma-edge[train]"') from error
        self.facts = {"device": asked["device"]}

    def turn(self, calls: int) -> Message:
        for _ in range(calls):
            self._peak()
        return {"ms": []}

    def finish(self) -> Message:
        return {"peaks": {name: list(best) for name, best in self._peak().items()}}


def compute(asked: Message, tell: Tell) -> Message | None:
    """The child's work: open, then follow orders; None where the parent closes the pipe without `finish`."""
    try:
        start = time.perf_counter()
        worker = Peak(asked) if asked["runner"] == PEAK else Cell(asked)
        tell({"ready": {**worker.facts, "load_s": time.perf_counter() - start}})
        for order in orders():
            if "finish" in order:
                return worker.finish()
            tell(worker.turn(order["calls"]))
    except MMAEdgeError:
        raise
    except Exception as error:  # any error of a library: the row has one line for it
        raise BackendError(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
    return None


if __name__ == "__main__":
    sys.exit(serve(compute))
