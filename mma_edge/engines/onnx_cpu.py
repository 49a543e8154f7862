"""onnxruntime on the CPU: the engine that runs everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mma_edge.engines.base import INPUTS, OUTPUT
from mma_edge.errors import BundleError
from mma_edge.onnxruntime_session import open_session


class OnnxCpuEngine:
    """An ONNX graph of a bundle in an onnxruntime session of the CPU provider alone."""

    backend = "cpu"

    def __init__(self, graph: Path, precision: str) -> None:
        self.precision = precision
        self._session, version = open_session(graph)
        self.details = f"onnxruntime {version} CPU"
        found = {node.name for node in self._session.get_inputs()}, {node.name for node in self._session.get_outputs()}
        if found != (set(INPUTS), {OUTPUT}):
            raise BundleError(
                f"{graph} has inputs {sorted(found[0])} and outputs {sorted(found[1])}",
                f"inputs {sorted(INPUTS)} and output {OUTPUT}",
                "export it with mma-export",
            )

    def __call__(self, frames: np.ndarray, mel: np.ndarray) -> np.ndarray:
        return self._session.run([OUTPUT], {"frames": frames, "mel": mel})[0].astype(np.float32, copy=False)
