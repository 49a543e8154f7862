"""INT8 as QDQ: QuantizeLinear and DequantizeLinear around the inputs and weights of products, as TensorRT and OpenVINO
want it.

Symmetric throughout (zero point 0): activations one scale per tensor, from real clips, clipped where the squared error
is least; weights one scale per output channel. Everything between the products stays float32.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from mma_export.precision.sites import Range, Site, weights_of
from mma_export.rewrite import GraphWriter

LEVELS = 127
CLIP_SHARES = np.linspace(0.2, 1.0, 33)
TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Weight8:
    """A weight on an 8-bit grid per output channel.

    Attributes:
        values: int8, the weight's shape.
        scales: float32 (channels,).
        axis: of the channels.
    """

    values: np.ndarray
    scales: np.ndarray
    axis: int


def quantize_static(
    proto: onnx.ModelProto,
    sites: list[Site],
    scales: dict[str, float],
    weights: dict[str, Weight8],
    kept: Collection[str] = (),
) -> onnx.ModelProto:
    """A copy of a float32 graph with QDQ at all sites but those named in `kept`.

    Args:
        scales: as of `activation_scales`.
        weights: as of `quantize_weights`.
    """
    writer = GraphWriter(proto)
    by_node = {site.node: site for site in sites if site.node not in kept}
    done = set()
    for node in proto.graph.node:
        site = by_node.get(node.name)
        if site is None:
            writer.keep(node)
            continue
        if site.activation not in done:
            on_grid(writer, site.activation, f"{site.activation}_dq", np.float32(scales[site.activation]), np.int8(0))
        if site.weight not in done:
            dequantize_weight(writer, site.weight, weights[site.weight])
        done |= {site.activation, site.weight}
        writer.keep(node, {0: f"{site.activation}_dq", 1: f"{site.weight}_dq"})
    return writer.finish()


def quantize_weights(proto: onnx.ModelProto, sites: list[Site]) -> dict[str, Weight8]:
    """Weight -> the same in 8 bits; every graph of a search has them."""
    found = {}
    values = weights_of(proto, sites)
    for site in sites:
        scales = weight_scales(values[site.weight], site.channel_axis)
        found[site.weight] = Weight8(
            integers(values[site.weight], scales, site.channel_axis), scales, site.channel_axis
        )
    return found


def activation_scales(ranges: dict[str, Range]) -> dict[str, float]:
    """Activation -> step of its 8-bit grid; the search for each takes a while, a graph needs them once."""
    return {name: activation_scale(seen) for name, seen in ranges.items()}


def activation_scale(seen: Range) -> float:
    """Step of a symmetric 8-bit grid for a tensor: the one with the least squared error on what was seen of it."""
    largest = max(seen.largest, TINY)
    steps = CLIP_SHARES * largest / LEVELS
    errors = [
        float(np.mean((seen.samples - np.clip(np.rint(seen.samples / step), -LEVELS, LEVELS) * step) ** 2))
        for step in steps
    ]
    return float(steps[int(np.argmin(errors))])


def most_suspect(sites: list[Site], ranges: dict[str, Range], scales: dict[str, float], count: int) -> list[Site]:
    """At most `count` sites, those whose activations lose most by rounding, relative to their size."""

    def loss(site: Site) -> float:
        seen, step = ranges[site.activation].samples, scales[site.activation]
        rounded = np.clip(np.rint(seen / step), -LEVELS, LEVELS) * step
        # Not squared: one outlier would excuse the loss of all others.
        return float(np.abs(rounded - seen).sum() / max(np.abs(seen).sum(), TINY))

    return sorted(sites, key=loss, reverse=True)[:count]


def weight_scales(weight: np.ndarray, channel_axis: int) -> np.ndarray:
    """Step per output channel, float32 (channels,)."""
    others = tuple(axis for axis in range(weight.ndim) if axis != channel_axis)
    return np.maximum(np.abs(weight).max(axis=others), TINY).astype(np.float32) / LEVELS


def integers(weight: np.ndarray, scales: np.ndarray, channel_axis: int) -> np.ndarray:
    """int8 weights on the grid of their channels."""
    shape = [1] * weight.ndim
    shape[channel_axis] = -1
    return np.clip(np.rint(weight / scales.reshape(shape)), -LEVELS, LEVELS).astype(np.int8)


def smooth(proto: onnx.ModelProto, sites: list[Site], ranges: dict[str, Range], strength: float = 0.5) -> int:
    """Move large channels from activations into weights where a LayerNormalization stands before the product.

    In place; what the graph computes stays the same. SmoothQuant (Xiao et al. 2023): channel j of the norm's scale
    and offset is divided by s_j and row j of the weights multiplied by it, s_j = max|x_j|^a / max|w_j|^(1-a). The
    ranges do not hold any more: look again.

    Returns:
        The number of norms that were changed.
    """
    graph = proto.graph
    constants = {t.name: t for t in graph.initializer}
    readers: dict[str, list[Site | None]] = {}
    by_node = {site.node: site for site in sites}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(by_node.get(node.name))
    count = 0
    for norm in [node for node in graph.node if node.op_type == "LayerNormalization"]:
        fed = readers.get(norm.output[0], [])
        if len(fed) != 1 or fed[0] is None or norm.output[0] not in ranges:
            continue
        site, seen = fed[0], ranges[norm.output[0]]
        node = next(node for node in graph.node if node.name == site.node)
        weight = numpy_helper.to_array(constants[node.input[1]])
        rows = np.maximum(np.abs(weight).max(axis=1), TINY)
        factor = np.maximum(seen.per_channel, TINY) ** strength / rows ** (1 - strength)
        # Powers of two divide and multiply without rounding.
        factor = np.exp2(np.rint(np.log2(factor / np.median(factor)))).astype(np.float32)
        for index in (1, 2):
            values = numpy_helper.to_array(constants[norm.input[index]]) / factor
            norm.input[index] = _add(graph, f"{norm.name}_smooth_{index}", values)
        node.input[1] = _add(graph, f"{site.node}_smooth", weight * factor[:, None])
        sites[sites.index(site)] = Site(site.node, site.op_type, site.activation, node.input[1])
        count += 1
    drop_unused_constants(graph)
    return count


def drop_unused_constants(graph: onnx.GraphProto) -> None:
    """Initializers that no node reads."""
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    if len(kept) == len(graph.initializer):
        return
    kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def weight_constants(writer: GraphWriter, name: str, weight: Weight8) -> tuple[str, str, str]:
    """The names of an 8-bit weight's integers, scales and zero points."""
    return (
        writer.constant(f"{name}_q", weight.values),
        writer.constant(f"{name}_scale", weight.scales),
        writer.constant(f"{name}_zero", np.zeros(len(weight.scales), np.int8)),
    )


def dequantize_weight(writer: GraphWriter, name: str, weight: Weight8) -> None:
    """NAME_dq, float32, from NAME_q in the file."""
    writer.add("DequantizeLinear", weight_constants(writer, name, weight), f"{name}_dq", axis=weight.axis)


def on_grid(writer: GraphWriter, name: str, result: str, scale: np.float32, zero: np.int8 | np.uint8) -> None:
    """QuantizeLinear and DequantizeLinear: `result` is the tensor `name` on an 8-bit grid of the zero point's type."""
    # Scalars: a vector of one would be a scale per channel.
    grid = [writer.constant(f"{result}_scale", scale), writer.constant(f"{result}_zero", zero)]
    writer.add("QuantizeLinear", [name, *grid], f"{result}_q")
    writer.add("DequantizeLinear", [f"{result}_q", *grid], result)


def _add(graph: onnx.GraphProto, name: str, values: np.ndarray) -> str:
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
    return name
