"""Where a graph can be quantised (products and convolutions with constant weights), and what its tensors hold on real
clips.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from mma_edge.engines.session import open_session
from mma_edge.errors import ParityError
from mma_export.precision.clips import RealClips
from mma_export.rewrite import Rewrite

SAMPLES_PER_CLIP = 4096
"""Values kept of each tensor and clip: enough to choose a clipping point, few enough for hundreds of tensors."""
TENSORS_PER_RUN = 80
"""Tensors fetched at once: about 1.3 GB for ViT-B at 224 pixels."""
FLOAT16_MAX = 65504.0
"""The largest float16; an engine says nothing when an activation overflows."""
OVERFLOW_MARGIN = 4.0
"""Other clips may be louder and brighter than those that were looked at."""


@dataclass(frozen=True)
class Site:
    """One product with constant weights.

    Attributes:
        node: its name, unique in the graph.
        op_type: "MatMul" or "Conv".
        activation: name of the tensor that flows in.
        weight: name of its initializer: (K, N) of a MatMul, (O, I, ...) of a Conv.
    """

    node: str
    op_type: str
    activation: str
    weight: str

    @property
    def channel_axis(self) -> int:
        """Axis of the output channels in the weight."""
        return 1 if self.op_type == "MatMul" else 0


@dataclass(frozen=True, eq=False)
class Range:
    """What was seen of a tensor on real clips.

    Attributes:
        lowest, highest: of all values.
        per_channel: float32 (channels,), the largest absolute value of each channel (see `observe`).
        samples: float32, some of its values.
    """

    lowest: float
    highest: float
    per_channel: np.ndarray
    samples: np.ndarray

    @property
    def largest(self) -> float:
        """Of all absolute values."""
        return max(-self.lowest, self.highest)


def find_sites(proto: onnx.ModelProto) -> list[Site]:
    """All sites of a graph, in its order. A Gemm (the classifier) is too small to be worth it."""
    constants = {t.name: t for t in proto.graph.initializer if t.data_type == TensorProto.FLOAT}
    return [
        Site(node.name, node.op_type, node.input[0], node.input[1])
        for node in proto.graph.node
        if node.op_type in ("MatMul", "Conv")
        and node.input[1] in constants
        and node.input[0] not in constants
        and (node.op_type == "Conv" or len(constants[node.input[1]].dims) == 2)
    ]


def weights_of(proto: onnx.ModelProto, sites: list[Site]) -> dict[str, np.ndarray]:
    """Weight name -> float32 values."""
    wanted = {site.weight for site in sites}
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer if t.name in wanted}


def inputs_of(sites: list[Site]) -> dict[str, int]:
    """What flows into the sites: tensor -> axis of its channels."""
    return {site.activation: (1 if site.op_type == "Conv" else -1) for site in sites}


def observe(proto: onnx.ModelProto, tensors: Mapping[str, int], clips: RealClips) -> dict[str, Range]:
    """Run the graph on real clips and note what its tensors hold.

    Args:
        tensors: name -> axis of the channels.
    """
    names, rng = list(tensors), np.random.default_rng(0)
    ranges: dict[str, Range] = {}
    for start in range(0, len(names), TENSORS_PER_RUN):
        group = names[start : start + TENSORS_PER_RUN]
        rewrite = Rewrite(proto)
        session, _ = open_session(rewrite.finish([rewrite.values[name] for name in group]).SerializeToString())
        lows: dict[str, np.ndarray] = {}
        highs: dict[str, np.ndarray] = {}
        samples: dict[str, list[np.ndarray]] = {name: [] for name in group}
        for row in range(len(clips)):
            for name, tensor in zip(group, session.run(group, clips.feed(row)), strict=True):
                others = tuple(axis for axis in range(tensor.ndim) if axis != tensors[name] % tensor.ndim)
                lows[name] = np.minimum(lows.get(name, np.inf), tensor.min(axis=others))
                highs[name] = np.maximum(highs.get(name, -np.inf), tensor.max(axis=others))
                samples[name].append(rng.choice(tensor.reshape(-1), SAMPLES_PER_CLIP))
        for name in group:
            low, high = lows[name], highs[name]
            per_channel = np.maximum(np.abs(low), np.abs(high)).astype(np.float32)
            ranges[name] = Range(float(low.min()), float(high.max()), per_channel, np.concatenate(samples[name]))
    return ranges


@dataclass(frozen=True)
class Largest:
    """The largest absolute value that any of the tensors reached, and in which."""

    value: float
    tensor: str


def largest_value(proto: onnx.ModelProto, names: set[str], clips: RealClips) -> Largest:
    """Largest absolute value of the named float tensors of a graph over real clips.

    The maxima are computed inside the graph: all tensors of ViT-B together do not fit into the memory of many machines.
    """
    ordered = [name for node in proto.graph.node for name in node.output if name in names]
    rewrite = Rewrite(proto)
    sizes = [rewrite.add("Abs", [rewrite.values[name]], f"{name}_abs") for name in ordered]
    maxima = [rewrite.add("ReduceMax", [size], f"{size.name}_max", keepdims=0) for size in sizes]
    session, _ = open_session(rewrite.finish(maxima).SerializeToString())
    largest = dict.fromkeys(ordered, 0.0)
    for row in range(len(clips)):
        for name, value in zip(ordered, session.run(None, clips.feed(row)), strict=True):
            largest[name] = max(largest[name], float(value))
    tensor = max(largest, key=largest.get)
    return Largest(largest[tensor], tensor)


def check_overflow(largest: Largest) -> None:
    """ParityError where float16 would be too small, with OVERFLOW_MARGIN to spare."""
    if not largest.value * OVERFLOW_MARGIN <= FLOAT16_MAX:
        raise ParityError(
            f"activations of {largest.value:.0f} ({largest.tensor}) on real clips come too near to float16's 65504",
            f"at most {FLOAT16_MAX / OVERFLOW_MARGIN:.0f}",
            "export bf16 instead, whose range is float32's",
        )
