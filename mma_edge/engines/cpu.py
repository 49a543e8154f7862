"""onnxruntime on the CPU: the engine that runs everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mma_edge.bundle import Bundle
from mma_edge.engines.base import OUTPUT, check_names, cpu_threads, run_failure
from mma_edge.engines.machine import instruction_sets, is_x86
from mma_edge.engines.session import import_onnxruntime, open_session
from mma_edge.errors import DependencyError
from mma_edge.precisions import preferred, require

VNNI = {"avx_vnni", "avx512_vnni", "amx_int8"}
"""Without one of them x86 adds two products of 8 bits in 16 (onnxruntime's guide to quantisation)."""


def probe() -> str | None:
    """None where onnxruntime can be imported, else why not."""
    try:
        import_onnxruntime()
    except DependencyError as error:
        return f"{error.what}: {error.hint}"
    return None


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


class OnnxCpuEngine:
    """An ONNX graph of a bundle in an onnxruntime session of the CPU provider alone."""

    backend = "cpu"

    def __init__(self, graph: Path, precision: str) -> None:
        self.precision, self.notes = precision, ()
        threads = cpu_threads()
        self._session, version = open_session(graph, threads)
        self.details = f"onnxruntime {version} CPU" + (
            f", {threads} thread{'s' if threads > 1 else ''}" if threads else ""
        )
        if precision == "int8" and is_x86() and (has := instruction_sets()) and not VNNI.intersection(has):
            self.notes = ("int8 without VNNI: sums of products may saturate, so answers may differ from fp32's",)
        if precision == "fp16" and is_x86():
            # Casts are put around every operator: half the file, none of the speed.
            self.details += ", fp16 computed in float32"
        check_names(
            graph,
            {node.name for node in self._session.get_inputs()},
            {node.name for node in self._session.get_outputs()},
        )

    def __call__(self, frames: np.ndarray, mel: np.ndarray) -> np.ndarray:
        try:
            logits = self._session.run([OUTPUT], {"frames": frames, "mel": mel})[0]
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise run_failure(error, self.details) from error
        return logits.astype(np.float32, copy=False)
