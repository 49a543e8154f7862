"""The two int8 graphs: QDQ for TensorRT and OpenVINO, and one of onnxruntime's own integer operators for its CPU.

QDQ has QuantizeLinear and DequantizeLinear around the inputs and weights of products, symmetric throughout (zero
point 0): activations one scale per tensor, from real clips; weights one scale per output channel.

On onnxruntime's CPU products are quantised at each call, and the convolutions of a stem on grids from real clips. A
scale per call costs a pass over the activations, and saves the accuracy that a fixed one loses on other clips. On
processors with VNNI onnxruntime is faster this way than with the QDQ graph: 1.64 against 1.14 times fp32's speed. Its
integer convolution needs fixed grids for its input and its output: unsigned, with a zero point.

Everything between the products stays float32 in both.

QDQ is not left to onnxruntime's `quantize_static`: it writes the same operators and did as well on the default model,
but on a ViT-B at 112 pixels (random weights) its min-max ranges doubled the mean logit error (0.0075, not 0.0036; 23 of
24 answers kept), and it took 79 s, not 0.5 s, per graph of the search (two-core AMD EPYC with VNNI and BF16, no AMX).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx
import onnx_ir as ir

from mma_export.precision.grids import Grid, Weight8
from mma_export.precision.sites import Site
from mma_export.rewrite import Rewrite

PARTS = ("q", "scale", "zero")
"""8-bit numbers, their steps, their zero points: the operators' inputs in order, and the ends of our tensors' names."""


def quantize_static(
    proto: onnx.ModelProto,
    sites: list[Site],
    grids: Mapping[str, Grid],
    weights: Mapping[str, Weight8],
    kept: Collection[str] = (),
) -> onnx.ModelProto:
    """A copy of a float32 graph with QDQ at all sites but those named in `kept`.

    Args:
        grids: of what flows into the sites, symmetric.
        weights: as of `quantize_weights`.
    """
    rewrite, quantized = Rewrite(proto), {site.node: site for site in sites if site.node not in kept}
    for node in rewrite.nodes:
        if site := quantized.get(node.name):
            x, weight = node.inputs[0], weights[site.weight]
            node.replace_input_with(0, _on_grid(rewrite, x, f"{x.name}_dq", grids[site.activation]))
            node.replace_input_with(1, _dequantized(rewrite, site.weight, _parts(weight), weight.axis))
    return rewrite.finish()


def sites_for_cpu(proto: onnx.ModelProto, sites: list[Site]) -> list[Site]:
    """The sites that are worth it: not a patch embedding, which is too little work for what its rounding costs, and not
    a convolution of one channel, the sound's first: onnxruntime's integer one takes 410 us, its float one 56 us.
    """
    nodes = {node.name: node for node in Rewrite(proto).nodes}

    def is_worth_it(convolution: ir.Node) -> bool:
        return _overlaps(convolution) and convolution.inputs[1].shape[1] > 1

    return [site for site in sites if site.op_type == "MatMul" or is_worth_it(nodes[site.node])]


def tensors_for_cpu(proto: onnx.ModelProto, sites: list[Site]) -> dict[str, int]:
    """Tensors whose ranges the grids need, inputs and outputs of the convolutions -> axis of their channels."""
    nodes = {node.name: node for node in Rewrite(proto).nodes}
    convolutions = [site for site in sites if site.op_type == "Conv"]
    return {name: 1 for site in convolutions for name in (site.activation, _result(nodes[site.node]).name)}


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
        grids: of all `tensors_for_cpu`, unsigned.
        weights: as of `quantize_weights`.
    """
    rewrite, quantized = Rewrite(proto), {site.node: site for site in sites if site.node not in kept}
    for node in rewrite.nodes:
        if site := quantized.get(node.name):
            if site.op_type == "MatMul":
                _product_for_cpu(rewrite, node, weights[site.weight])
            else:
                _convolution_for_cpu(rewrite, node, site, grids, weights[site.weight])
    return rewrite.finish()


def _product_for_cpu(rewrite: Rewrite, node: ir.Node, weight: Weight8) -> None:
    (x, w), output = node.inputs, node.outputs[0]
    parts = [f"{x.name}_{part}" for part in PARTS]
    rewrite.add("DynamicQuantizeLinear", [x], *parts)
    numbers, scale, zero = (rewrite.values[part] for part in parts)
    w_numbers, w_scales, w_zeros = _constants(rewrite, w.name, *_parts(weight))
    sums = rewrite.add("MatMulInteger", [numbers, w_numbers, zero, w_zeros], f"{output.name}_sums")
    sums = rewrite.add("Cast", [sums], f"{output.name}_float", to=ir.DataType.FLOAT)
    scales = rewrite.add("Mul", [scale, w_scales], f"{output.name}_scales")  # in the order that onnxruntime fuses
    output.replace_all_uses_with(rewrite.add("Mul", [sums, scales], f"{output.name}_product"))


def _convolution_for_cpu(
    rewrite: Rewrite, node: ir.Node, site: Site, grids: Mapping[str, Grid], weight: Weight8
) -> None:
    x, w, *biases = node.inputs
    sum_scales = np.float32(grids[site.activation].scale) * weight.scales
    for bias in biases:
        # On the grid of the sums, without which onnxruntime does not take its integer kernel.
        numbers = np.rint(bias.const_value.numpy() / sum_scales)
        if np.abs(numbers).max() >= 2**31:  # of a channel without weights: the convolution stays float32
            return
        parts = (numbers.astype(np.int32), sum_scales, np.zeros(len(numbers), np.int32))
        node.replace_input_with(2, _dequantized(rewrite, f"{node.name}_bias", parts, 0))
    if x.producer() is None or x.producer().op_type != "DequantizeLinear":
        node.replace_input_with(0, _on_grid(rewrite, x, f"{x.name}_dq", grids[site.activation]))
    node.replace_input_with(1, _dequantized(rewrite, w.name, _parts(weight), weight.axis))
    # What comes out, after its Relu, goes on from the grid to all that read it.
    result = _result(node)
    grid = grids[result.name]
    rewrite.put_behind(result, f"{result.name}_raw", lambda raw, name: _on_grid(rewrite, raw, name, grid))


def _on_grid(rewrite: Rewrite, x: ir.Value, name: str, grid: Grid) -> ir.Value:
    """`x` through QuantizeLinear and DequantizeLinear, called `name`."""
    # Scalars: a vector of one would be a scale per channel.
    constants = [rewrite.constant(f"{name}_scale", np.float32(grid.scale)), rewrite.constant(f"{name}_zero", grid.zero)]
    numbers = rewrite.add("QuantizeLinear", [x, *constants], f"{name}_q")
    return rewrite.add("DequantizeLinear", [numbers, *constants], name)


def _dequantized(rewrite: Rewrite, name: str, parts: tuple[np.ndarray, ...], axis: int) -> ir.Value:
    """NAME_dq, float32, from the constants NAME_q, NAME_scale and NAME_zero in the file."""
    return rewrite.add("DequantizeLinear", _constants(rewrite, name, *parts), f"{name}_dq", axis=axis)


def _constants(rewrite: Rewrite, name: str, *parts: np.ndarray) -> list[ir.Value]:
    return [rewrite.constant(f"{name}_{part}", values) for part, values in zip(PARTS, parts, strict=True)]


def _parts(weight: Weight8) -> tuple[np.ndarray, ...]:
    return weight.values, weight.scales, np.zeros(len(weight.scales), weight.values.dtype)


def _result(convolution: ir.Node) -> ir.Value:
    """The tensor that its grid is for: of a Relu that alone reads the convolution, else its own output."""
    readers = convolution.outputs[0].consumers()
    end = readers[0] if len(readers) == 1 and readers[0].op_type == "Relu" else convolution
    return end.outputs[0]


def _overlaps(convolution: ir.Node) -> bool:
    attributes = {name: attribute.value for name, attribute in convolution.attributes.items()}
    return attributes.get("kernel_shape") != attributes.get("strides")
