"""The one interface that every engine meets."""

from __future__ import annotations

from typing import Protocol

import numpy as np

INPUTS = {"frames": "uint8", "mel": "float32"}
OUTPUT = "logits"


class Engine(Protocol):
    """A graph ready to run on one device.

    Attributes:
        backend: what really runs: "cpu", "cuda", "openvino" or "tensorrt".
        precision: of the graph: "fp32", "fp16", ...
        details: one line for people: library, version, device, threads.
    """

    backend: str
    precision: str
    details: str

    def __call__(self, frames: np.ndarray, mel: np.ndarray) -> np.ndarray:
        """frames uint8 (N, 16, S, S, 3), mel float32 (N, 512, 128) -> logits float32 (N, C)."""
        ...
