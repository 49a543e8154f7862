"""How large activations get on real clips: float16 ends at 65504, and an engine says nothing when one overflows."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
from onnx import helper

from mma_edge.errors import ParityError
from mma_edge.onnxruntime_session import open_session
from mma_export.clips import RealClips
from mma_export.sites import with_outputs

FLOAT16_MAX = 65504.0
MARGIN = 4.0
"""Other clips are louder and brighter than those that were looked at."""


@dataclass(frozen=True)
class Largest:
    """The largest absolute value that any of the tensors reached, and in which."""

    value: float
    tensor: str


def largest_value(proto: onnx.ModelProto, names: set[str], clips: RealClips) -> Largest:
    """Largest absolute value of the named float tensors of a graph over real clips.

    The maxima are taken inside the graph: the tensors of ViT-B together are larger than many a memory.
    """
    ordered = [name for node in proto.graph.node for name in node.output if name in names]
    copy = with_outputs(proto, [f"{name}_max" for name in ordered])
    graph = copy.graph
    for name in ordered:
        graph.node.append(helper.make_node("Abs", [name], [f"{name}_abs"], name=f"{name}_abs"))
        graph.node.append(
            helper.make_node("ReduceMax", [f"{name}_abs"], [f"{name}_max"], name=f"{name}_max", keepdims=0)
        )
    session, _ = open_session(copy.SerializeToString())
    largest = dict.fromkeys(ordered, 0.0)
    for row in range(len(clips)):
        for name, value in zip(ordered, session.run(None, clips.feed(row)), strict=True):
            largest[name] = max(largest[name], float(value))
    tensor = max(largest, key=largest.get)
    return Largest(largest[tensor], tensor)


def check_overflow(largest: Largest) -> None:
    """ParityError where float16 would be too small, with a margin of MARGIN."""
    if not largest.value * MARGIN <= FLOAT16_MAX:
        raise ParityError(
            f"activations of {largest.value:.0f} ({largest.tensor}) on real clips come too near to float16's 65504",
            f"at most {FLOAT16_MAX / MARGIN:.0f}",
            "export bf16 instead, whose range is float32's",
        )
