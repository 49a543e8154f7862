"""onnxruntime on the CPU: the engine that runs everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mma_edge.bundle import Bundle
from mma_edge.bundle.streaming import Parts
from mma_edge.engines.base import OUTPUT, cpu_threads, run_failure, why_unusable
from mma_edge.engines.machine import is_x86, may_saturate
from mma_edge.engines.session import check_session, import_onnxruntime, open_session
from mma_edge.precisions import preferred, require


def probe() -> str | None:
    """None where onnxruntime can be imported, else why not."""
    return why_unusable(import_onnxruntime)


def usable(bundle: Bundle) -> tuple[str, ...]:
    """Precisions of the bundle that run here."""
    return tuple(precision for precision in bundle.precisions if precision in preferred("cpu"))


def open_engine(bundle: Bundle, precision: str) -> OnnxCpuEngine:
    """The bundle's graph for the CPU at this precision.

    Raises:
        BackendError: bf16, or too little memory. BundleError: the graph cannot be loaded.
        DependencyError: onnxruntime is not installed.
    """
    require("cpu", precision)
    return OnnxCpuEngine(bundle.cpu_graph(precision), precision)


def open_parts(bundle: Bundle, precision: str, parts: Parts) -> tuple[OnnxCpuPart, ...]:
    """The parts of the model for streaming, in the order of `parts.files`; raises as `open_engine` does."""
    require("cpu", precision)
    return tuple(OnnxCpuPart(bundle.folder / file) for file in parts.files.values())


class OnnxCpuPart:
    """A `Part` in an onnxruntime session that uses only the CPU provider."""

    max_clips = frame_counts = None

    def __init__(self, graph: Path | bytes, optimized: bool = True) -> None:
        self._session, version = open_session(graph, cpu_threads(), optimized)
        self._details = f"onnxruntime {version} CPU, the graphs of --streaming,"
        self._outputs = [node.name for node in self._session.get_outputs()]
        self.shapes = {
            node.name: tuple(size if isinstance(size, int) else None for size in node.shape)
            for node in self._session.get_inputs()
        }

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise run_failure(error, self._details) from error


class OnnxCpuEngine:
    """An ONNX graph of a bundle in an onnxruntime session that uses only the CPU provider."""

    backend = "cpu"
    max_batch = 4  # on two cores a clip of four takes 0.95 of the processor's time of a single one, of eight no less

    def __init__(self, graph: Path, precision: str) -> None:
        self.precision, self.notes = precision, ()
        threads = cpu_threads()
        self._session, version = open_session(graph, threads)
        self.details = f"onnxruntime {version} CPU"
        if threads:
            self.details += f", {threads} thread{'s' if threads > 1 else ''}"
        if precision == "int8" and may_saturate():
            self.details += ", int8 without VNNI"  # exact, but slower: see `open_session`
        if precision == "fp16" and is_x86():
            # onnxruntime puts casts around every operator: the file is half as large, but nothing is faster.
            self.details += ", fp16 computed in float32"
        check_session(graph, self._session)

    def __call__(self, frames: np.ndarray, mel: np.ndarray) -> np.ndarray:
        try:
            logits = self._session.run([OUTPUT], {"frames": frames, "mel": mel})[0]
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise run_failure(error, self.details) from error
        return logits.astype(np.float32, copy=False)
