"""Which precision runs on which backend, in what order of preference, and why another does not: the one table.

The guide docs/precision.md shows the same table to people; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass

from mma_edge.errors import BackendError

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
"""What a bundle may hold, in the order of its manifest."""
MIN_TOP1_AGREEMENT = {"fp16": 0.995, "bf16": 0.995, "int8": 0.98}
"""Share of real clips with float32's answer, below which neither a graph nor an engine is kept."""
BY_NAME = ("int8",)
"""Taken only when asked for while the bundle has another: the accuracy it costs is the user's to give away."""


@dataclass(frozen=True)
class Runs:
    """A backend computes in a precision.

    Attributes:
        rank: its place, from 1, when nobody asks for a precision.
        needs: what the hardware must have: of a GPU the least compute capability (major, minor), of a processor
            OpenVINO's word for the ability; None: nothing.
    """

    rank: int
    needs: tuple[int, int] | str | None = None


@dataclass(frozen=True)
class Refused:
    """A backend does not compute in a precision: why, and what to do instead."""

    why: str
    instead: str


# Backends in the order in which `auto` tries them: the fastest first. Compute capabilities are those of the CUDA
# programming guide's table of arithmetic; TensorRT itself may ask for more.
TABLE: dict[str, dict[str, Runs | Refused]] = {
    # fp16 is at home on every GPU that TensorRT 10.3 runs on.
    "tensorrt": {"fp32": Runs(2, (5, 0)), "fp16": Runs(1, (5, 3)), "bf16": Runs(3, (8, 0)), "int8": Runs(4, (6, 1))},
    "cuda": {
        "fp32": Runs(2),
        "fp16": Runs(1),
        "bf16": Runs(3, (8, 0)),
        # The provider would compute a quantised graph in float, slower than fp16.
        "int8": Refused(
            "onnxruntime's CUDA provider does not compute in int8", "use --precision fp16, or --backend tensorrt"
        ),
    },
    "openvino": {"fp32": Runs(2, "FP32"), "fp16": Runs(3, "FP16"), "bf16": Runs(1, "BF16"), "int8": Runs(4, "INT8")},
    "cpu": {
        "fp32": Runs(1),
        "fp16": Runs(2),
        "bf16": Refused(
            "onnxruntime has no bf16 kernels for the CPU",
            "use --precision fp32, or --backend openvino on a processor with bf16",
        ),
        "int8": Runs(3),
    },
}
BACKENDS = tuple(TABLE)
BACKEND_CHOICES = ("auto", *BACKENDS)
"""What a person may ask for; "auto": the first that really works."""
GPU_BACKENDS = ("tensorrt", "cuda")


def preferred(backend: str) -> tuple[str, ...]:
    """What a backend computes in, the best first."""
    ranks = {name: cell.rank for name, cell in TABLE[backend].items() if isinstance(cell, Runs)}
    return tuple(sorted(ranks, key=ranks.get))


def require(backend: str, precision: str) -> Runs:
    """How a backend computes in a precision; BackendError where it does not, with the reason."""
    cell = TABLE[backend][precision]
    if isinstance(cell, Refused):
        raise BackendError(cell.why, f"one of {', '.join(preferred(backend))}", cell.instead)
    return cell
