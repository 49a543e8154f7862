"""INT8 for onnxruntime's CPU: products quantised at each call, the convolutions of a stem by ranges seen on real clips.

A scale per call costs a pass over the activations and saves what a fixed one loses on the next clip; for products
onnxruntime is faster so than with the QDQ graph on processors with VNNI (see docs/precision.md). Its integer
convolution wants fixed grids, of what flows in and of what comes out: unsigned, with a zero point.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from mma_export.precision.int8 import CLIP_SHARES, TINY, Weight8, dequantize_weight, on_grid, weight_constants
from mma_export.precision.sites import Range, Site
from mma_export.rewrite import GraphWriter, consumers_of

LEVELS = 255


@dataclass(frozen=True)
class Grid:
    """Unsigned 8-bit numbers for real ones: real = (number - zero) * scale."""

    scale: float
    zero: int

    def rounded(self, values: np.ndarray) -> np.ndarray:
        return (np.clip(np.rint(values / self.scale) + self.zero, 0, LEVELS) - self.zero) * self.scale


def grid_of(seen: Range) -> Grid:
    """The grid with the least squared error on what was seen of a tensor; zero is on it."""
    low, high = min(seen.lowest, 0.0), max(seen.highest, 0.0)
    grids = []
    for share in CLIP_SHARES:
        scale = float(max(share * (high - low), TINY)) / LEVELS
        grids.append(Grid(scale, int(np.clip(np.rint(-share * low / scale), 0, LEVELS))))
    errors = [float(np.mean((grid.rounded(seen.samples) - seen.samples) ** 2)) for grid in grids]
    return grids[int(np.argmin(errors))]


def sites_for_cpu(proto: onnx.ModelProto, sites: list[Site]) -> list[Site]:
    """Those worth it: not a patch embedding, which is too little work for its rounding."""
    nodes = {node.name: node for node in proto.graph.node}
    return [site for site in sites if site.op_type == "MatMul" or _overlaps(nodes[site.node])]


def tensors_for_cpu(proto: onnx.ModelProto, sites: list[Site]) -> dict[str, int]:
    """What has to be seen for the grids: inputs and outputs of the convolutions -> axis of their channels."""
    ends, convolutions = _ends(proto), [site for site in sites if site.op_type == "Conv"]
    return {name: 1 for site in convolutions for name in (site.activation, ends[site.node].output[0])}


def quantize_for_cpu(
    proto: onnx.ModelProto,
    sites: list[Site],
    grids: Mapping[str, Grid],
    weights: Mapping[str, Weight8],
    kept: Collection[str] = (),
) -> onnx.ModelProto:
    """A copy of a float32 graph for onnxruntime's CPU, 8 bits at all sites but those named in `kept`.

    Args:
        sites: as of `sites_for_cpu`.
        grids: of all `tensors_for_cpu`.
        weights: as of `quantize_weights`.
    """
    quantizer = _Quantizer(proto, sites, grids, weights)
    return quantizer.convert([site for site in sites if site.node not in kept and quantizer.has_bias_on_grid(site)])


class _Quantizer:
    def __init__(
        self, proto: onnx.ModelProto, sites: list[Site], grids: Mapping[str, Grid], weights: Mapping[str, Weight8]
    ) -> None:
        self.proto, self.grids, self.weights = proto, grids, weights
        self.writer = GraphWriter(proto)
        nodes, constants = (
            {item.name: item for item in items} for items in (proto.graph.node, proto.graph.initializer)
        )
        self.biases = {
            site.node: numpy_helper.to_array(constants[nodes[site.node].input[2]])
            for site in sites
            if site.op_type == "Conv" and len(nodes[site.node].input) > 2
        }
        self.done: set[str] = set()
        self.outputs: set[str] = set()

    def has_bias_on_grid(self, site: Site) -> bool:
        """Whether a convolution's bias fits into 32 bits; that of a channel without weights may not."""
        bias = self.biases.get(site.node)
        return bias is None or bool(np.abs(bias / self._sum_scales(site)).max() < 2**31)

    def convert(self, sites: list[Site]) -> onnx.ModelProto:
        by_node, ends = {site.node: site for site in sites}, _ends(self.proto)
        self.outputs = {ends[site.node].output[0] for site in sites if site.op_type == "Conv"}
        for node in self.proto.graph.node:
            site = by_node.get(node.name)
            # A convolution's result, after its Relu, goes on from the grid under its own name.
            name = node.output[0]
            raw = f"{name}_raw" if name in self.outputs else name
            if site is None:
                self.writer.keep(node, output=raw)
            elif site.op_type == "MatMul":
                self._product(site, name)
            else:
                self._convolution(node, site, raw)
            if name in self.outputs:
                self.done.add(name)
                self._on_grid(raw, name, self.grids[name])
        return self.writer.finish()

    def _product(self, site: Site, output: str) -> None:
        x, writer = site.activation, self.writer
        if x not in self.done:
            self.done.add(x)
            writer.add("DynamicQuantizeLinear", [x], f"{x}_q", f"{x}_scale", f"{x}_zero")
        values, scales, zeros = weight_constants(writer, site.weight, self.weights[site.weight])
        writer.add("MatMulInteger", [f"{x}_q", values, f"{x}_zero", zeros], f"{output}_sums")
        writer.add("Cast", [f"{output}_sums"], f"{output}_float", to=TensorProto.FLOAT)
        writer.add("Mul", [f"{x}_scale", scales], f"{output}_scale")  # in the order that onnxruntime fuses
        writer.add("Mul", [f"{output}_float", f"{output}_scale"], output)

    def _convolution(self, node: onnx.NodeProto, site: Site, output: str) -> None:
        x, w = site.activation, site.weight
        source = x if x in self.outputs else f"{x}_dq"
        if source not in self.done:
            self.done.add(source)
            self._on_grid(x, source, self.grids[x])
        if w not in self.done:
            self.done.add(w)
            dequantize_weight(self.writer, w, self.weights[w])
        inputs = {0: source, 1: f"{w}_dq"}
        if site.node in self.biases:
            # On the grid of the sums, without which onnxruntime does not take its integer kernel.
            bias, scales = self.biases[site.node], self._sum_scales(site)
            name = f"{node.name}_bias"
            parts = (np.rint(bias / scales).astype(np.int32), scales, np.zeros(len(scales), np.int32))
            constants = [
                self.writer.constant(f"{name}_{part}", values)
                for part, values in zip(("q", "scale", "zero"), parts, strict=True)
            ]
            inputs[2] = self.writer.add("DequantizeLinear", constants, f"{name}_dq", axis=0)
        self.writer.keep(node, inputs, output)

    def _sum_scales(self, site: Site) -> np.ndarray:
        """Step of the sums of each output channel, float32."""
        return np.float32(self.grids[site.activation].scale) * self.weights[site.weight].scales

    def _on_grid(self, name: str, result: str, grid: Grid) -> None:
        on_grid(self.writer, name, result, np.float32(grid.scale), np.uint8(grid.zero))


def _ends(proto: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Convolution -> the node whose output its grid is for: a Relu that alone reads it, else itself."""
    consumers = consumers_of(proto.graph)
    ends = {}
    for node in proto.graph.node:
        if node.op_type == "Conv":
            readers = consumers.get(node.output[0], [])
            ends[node.name] = readers[0] if len(readers) == 1 and readers[0].op_type == "Relu" else node
    return ends


def _overlaps(convolution: onnx.NodeProto) -> bool:
    attributes = {attribute.name: list(attribute.ints) for attribute in convolution.attribute}
    return attributes.get("kernel_shape") != attributes.get("strides")
