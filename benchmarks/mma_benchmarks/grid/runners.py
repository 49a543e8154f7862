"""What a cell of the grid can run: an engine of the runtime on a bundle, or the PyTorch model of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mma_edge.precisions import BACKEND_CHOICES, GPU_BACKENDS

EAGER, EAGER_CUDA, COMPILED, COMPILED_CUDA = "eager", "eager-cuda", "compiled", "compiled-cuda"
TORCH_RUNNERS = (EAGER, EAGER_CUDA, COMPILED, COMPILED_CUDA)
RUNNERS = (*BACKEND_CHOICES, *TORCH_RUNNERS)

Call = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""frames uint8 (N, 16, S, S, 3), mel float32 (N, 512, 128) -> logits (N, C); arrays of the processor."""


@dataclass(frozen=True)
class Opened:
    """A runner ready to be timed; runner and precision are what really runs."""

    call: Call
    device: str  # "cpu" or "cuda"
    image_size: int
    details: str  # one line: library, version, device
    runner: str
    precision: str
    flops_per_clip: int | None = None  # of the PyTorch model, None where an engine was opened


def device_of(runner: str) -> str:
    """Where a runner is meant to compute: "cuda" or "cpu"."""
    return "cuda" if runner in (*GPU_BACKENDS, EAGER_CUDA, COMPILED_CUDA) else "cpu"
