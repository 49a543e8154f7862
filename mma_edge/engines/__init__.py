"""Engines behind one interface; `open_engine` picks one and proves that it computes the right thing."""

from __future__ import annotations

import numpy as np

from mma_edge.bundle import Bundle
from mma_edge.engines.base import Engine
from mma_edge.errors import BackendError, BundleError

BACKENDS = ("auto", "tensorrt", "cuda", "openvino", "cpu")
AVAILABLE = ("cpu",)
"""Backends this version has an engine for."""


def open_engine(bundle: Bundle, backend: str = "auto", precision: str | None = None) -> Engine:
    """The engine asked for, self-tested against the bundle's golden output.

    Raises:
        BackendError: unknown or unavailable backend, or a precision that the bundle lacks.
        BundleError: the engine does not reproduce the golden output.
    """
    if backend not in BACKENDS:
        raise BackendError(f"backend {backend!r}", f"one of {', '.join(BACKENDS)}")
    if backend not in ("auto", *AVAILABLE):
        raise BackendError(
            f"backend {backend} has no engine in this version",
            f"one of auto, {', '.join(AVAILABLE)}",
            "use --backend cpu",
        )
    if precision is None:
        precision = "fp32" if "fp32" in bundle.precisions else bundle.precisions[0]
    if precision not in bundle.precisions:
        raise BackendError(
            f"bundle {bundle.folder} has no precision {precision}",
            f"one of {', '.join(bundle.precisions)}",
            f"export it with mma-export --precision {precision}",
        )
    from mma_edge.engines.onnx_cpu import OnnxCpuEngine

    engine = OnnxCpuEngine(bundle.graph(precision), precision)
    self_test(engine, bundle)
    return engine


def self_test(engine: Engine, bundle: Bundle) -> float:
    """Largest difference from the golden logits; BundleError when above the bundle's tolerance."""
    frames, mel, expected, tolerance = bundle.golden
    logits = engine(frames, mel)
    # Not `difference > tolerance`: NaN must fail too.
    difference = float(np.abs(logits - expected).max()) if logits.shape == expected.shape else float("inf")
    if not difference <= tolerance:
        raise BundleError(
            f"{bundle.folder}: {engine.details} differs from the golden output by {difference:.2e}",
            f"at most {tolerance:.0e}",
            "update onnxruntime, or export the bundle again",
        )
    return difference
