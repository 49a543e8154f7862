"""The one interface of all engines, and what their modules have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np

from mma_edge.errors import (
    BackendError,
    BundleError,
    DependencyError,
    MMAEdgeError,
    UsageError,
    first_line,
    out_of_memory,
)

INPUTS = {"frames": "uint8", "mel": "float32"}
OUTPUT = "logits"
THREADS_VARIABLE = "MMA_EDGE_THREADS"
"""Environment variable: how many CPU threads one inference may use; unset, the library takes every core."""


class Engine(Protocol):
    """A graph ready to run on one device."""

    backend: str  # what really runs: "cpu", "cuda", "openvino" or "tensorrt"
    precision: str  # of the graph: "fp32", "fp16", ...
    details: str  # one line for people: library, version, device, threads
    max_batch: int | None  # from so many clips on, a larger batch gains nothing, or runs in parts; None: not known
    notes: tuple[str, ...]  # what the user should know about the choice, e.g. why no better backend; set on opening

    def __call__(self, frames: np.ndarray, mel: np.ndarray) -> np.ndarray:
        """frames uint8 (N, 16, S, S, 3), mel float32 (N, 512, 128) -> logits float32 (N, C)."""


class Part(Protocol):
    """One graph of a model in parts (see `mma_edge.streaming`), ready to run on one device."""

    shapes: dict[str, tuple[int | None, ...]]  # of the inputs; None where a dimension may have any size
    max_clips: int | None  # how many clips, with 16 frames each, one call takes; None: any number
    frame_counts: tuple[int, ...] | None  # how many single frames a call may have, ascending; None: any number

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Arrays by the names of the graph's inputs -> the same of its outputs, which are the caller's to keep."""


def cpu_threads() -> int:
    """MMA_EDGE_THREADS, or 0: the library decides; UsageError where the variable is not a positive integer."""
    text = os.environ.get(THREADS_VARIABLE, "")
    if not text:
        return 0
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{THREADS_VARIABLE} is {text!r}", "a positive integer", f"unset {THREADS_VARIABLE}")
    return int(text)


def why_unusable(attempt: Callable[[], object]) -> str | None:
    """None when `attempt` succeeds, else its BackendError or DependencyError with the remedy: for a `probe`."""
    try:
        attempt()
    except (BackendError, DependencyError) as error:
        return f"{error.what}: {error.hint}"
    return None


def check_names(graph: object, inputs: Iterable[str], outputs: Iterable[str]) -> None:
    """BundleError unless a graph has the contract's inputs and output."""
    inputs, outputs = sorted(inputs), sorted(outputs)
    if (inputs, outputs) != (sorted(INPUTS), [OUTPUT]):
        expected, hint = f"inputs {sorted(INPUTS)} and output {OUTPUT}", "export it with mma-export"
        raise BundleError(f"{graph} has inputs {inputs} and outputs {outputs}", expected, hint)


def run_failure(error: BaseException, details: str) -> MMAEdgeError:
    """The error to raise when a library fails during an inference."""
    return out_of_memory(error, f"to run on {details}") or BackendError(
        f"{details} failed during an inference: {first_line(error)}", hint="see mma-edge doctor, or use --backend cpu"
    )
