"""The one table of which precision runs on which backend, in what order of preference, and why others do not.

The guide docs/precision.md shows the same table; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass

from mma_edge.errors import BackendError

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
"""The precisions that a bundle may hold, in the order of its manifest."""
MIN_TOP1_AGREEMENT = {"fp16": 0.995, "bf16": 0.995, "int8": 0.98, "fp8": 0.98}
"""Least share of real clips with float32's answer; below it neither a graph nor an engine is kept."""
BY_NAME = ("int8", "fp8")
"""Taken only when asked for, unless the bundle has nothing else: only the user may decide to lose accuracy."""


@dataclass(frozen=True)
class Runs:
    """A backend computes in a precision."""

    rank: int  # place in the order of preference, from 1, when no precision is asked for
    # What the hardware must have: a GPU's least compute capability, OpenVINO's name of a processor's; None: nothing.
    needs: tuple[int, int] | str | None = None


@dataclass(frozen=True)
class Refused:
    """A backend does not compute in a precision: why not, and what to do instead."""

    why: str
    instead: str


def _refused_fp8(who: str, other: str) -> Refused:
    return Refused(f"{who} in fp8", f"use --precision {other}, or --backend tensorrt")


# Backends in the order in which `auto` tries them: the fastest first. The compute capabilities are from the CUDA
# programming guide's table of arithmetic; TensorRT itself may need more.
TABLE: dict[str, dict[str, Runs | Refused]] = {
    # fp16 is native on every GPU that TensorRT 10.3 supports.
    "tensorrt": {
        "fp32": Runs(2, (5, 0)),
        "fp16": Runs(1, (5, 3)),
        "bf16": Runs(3, (8, 0)),
        "int8": Runs(4, (6, 1)),
        "fp8": Runs(5, (8, 9)),
    },
    "cuda": {
        "fp32": Runs(2),
        "fp16": Runs(1),
        "bf16": Runs(3, (8, 0)),
        # The provider would compute a quantised graph in float, slower than fp16.
        "int8": Refused(
            "onnxruntime's CUDA provider does not compute in int8", "use --precision fp16, or --backend tensorrt"
        ),
        "fp8": _refused_fp8("onnxruntime's CUDA provider does not compute", "fp16"),
    },
    "openvino": {
        "fp32": Runs(2, "FP32"),
        "fp16": Runs(3, "FP16"),
        "bf16": Runs(1, "BF16"),
        "int8": Runs(4, "INT8"),
        "fp8": _refused_fp8("OpenVINO does not compute on processors", "int8"),
    },
    "cpu": {
        "fp32": Runs(1),
        "fp16": Runs(2),
        "bf16": Refused(
            "onnxruntime has no bf16 kernels for the CPU",
            "use --precision fp32, or --backend openvino on a processor with bf16",
        ),
        "int8": Runs(3),
        "fp8": _refused_fp8("onnxruntime does not compute on the CPU", "int8"),
    },
}
BACKENDS = tuple(TABLE)
BACKEND_CHOICES = ("auto", *BACKENDS)
"""What a person may ask for; "auto": the first that really works."""
GPU_BACKENDS = ("tensorrt", "cuda")


def preferred(backend: str) -> tuple[str, ...]:
    """The precisions that a backend computes in, the best first."""
    ranks = {name: cell.rank for name, cell in TABLE[backend].items() if isinstance(cell, Runs)}
    return tuple(sorted(ranks, key=ranks.get))


def require(backend: str, precision: str) -> Runs:
    """The table's entry for a backend and a precision; BackendError with the reason where it is refused."""
    cell = TABLE[backend][precision]
    if isinstance(cell, Refused):
        raise BackendError(cell.why, f"one of {', '.join(preferred(backend))}", cell.instead)
    return cell
