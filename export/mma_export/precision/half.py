"""A float32 graph in half precision, strongly typed: what is computed in which format stands in the graph.

With float16, matrix products and convolutions are half, and everything elementwise between them, LayerNormalization
too: its statistics are float32 by the operator's own definition (`stash_type` 1). Softmax and means stay float32, and
so do the inputs, their preparation and the output. A quantised graph becomes half around its 8-bit products. With
bfloat16, whose mantissa has 8 bits, products alone are half, and their results are widened at once. Convolutions stay
float32 there: ONNX has them in bfloat16 from opset 22 only.

TensorRT, onnxruntime on CUDA and OpenVINO run such a file as it stands: no builder flag is needed or heeded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from mma_export.rewrite import Rewrite

FORMATS = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
PRODUCTS = {"MatMul", "Gemm", "Conv", "Attention"}
KEPT_FLOAT = {"Softmax", "ReduceMean", "ReduceSum", "Pow", "Sqrt", "Reciprocal"}
QUANTIZERS = {"QuantizeLinear", "DequantizeLinear"}
QUANTIZED_OPSET = 19  # the first in which their scales may be half
SMALLEST_SCALE = 2.0**-24  # that float16 has, besides 0
# Their outputs have the format of their first input, whatever it is.
_MOVES = {"Reshape", "Transpose", "Slice", "Squeeze", "Unsqueeze", "Expand", "Gather", "Split", "Identity", "Flatten"}


@dataclass(frozen=True)
class HalfOptions:
    """How a graph is made half.

    Attributes:
        kind: "fp16" or "bf16".
        softmax_half: Softmax in half, too.
        products_only: everything but products in float32.
        emulate: round to the format and compute in float32: the same numbers, up to the order of sums, on a processor
            without such products. Without `products_only` convolutions are rounded to bfloat16, too.
    """

    kind: str = "fp16"
    softmax_half: bool = False
    products_only: bool = False
    emulate: bool = False


def options_of(kind: str, softmax_half: bool = False) -> HalfOptions:
    """What ships for "fp16" or "bf16"."""
    return HalfOptions(kind, softmax_half, products_only=kind == "bf16")


def as_openvino(softmax_half: bool = False) -> HalfOptions:
    """A float32 or QDQ graph as OpenVINO computes it where the processor has bfloat16: everything is rounded but
    norms, Softmax, means and integers.
    """
    return HalfOptions("bf16", softmax_half, emulate=True)


def to_half(proto: onnx.ModelProto, options: HalfOptions) -> onnx.ModelProto:
    """A half-precision copy of a float32 graph (opset 18, types and shapes as traced, weights in float32)."""
    return _Converter(proto, options).convert()


def half_tensors(proto: onnx.ModelProto, options: HalfOptions) -> set[str]:
    """Names of the computed tensors of the float32 graph that are half in the converted one."""
    converter = _Converter(proto, options)
    converter.convert()
    return converter.half


class _Converter:
    """Walks the graph once, in order; knows the format of every float tensor it has passed.

    Attributes:
        half: names of the computed tensors that are half now.
    """

    def __init__(self, proto: onnx.ModelProto, options: HalfOptions) -> None:
        self.rewrite, self.options, self.format = Rewrite(proto), options, FORMATS[options.kind]
        self.half: set[str] = set()
        graph = self.rewrite.graph
        known = (*graph.inputs, *graph.initializers.values())
        self.floats = {value.name for value in known if value.dtype == ir.DataType.FLOAT}
        self.after_product: set[str] = set()

    def convert(self) -> onnx.ModelProto:
        for node in self.rewrite.nodes:
            self._convert_node(node)
        for value in tuple(self.rewrite.graph.outputs):
            if value.name in self.half and not self.options.emulate:
                readers = tuple(value.uses())
                self.rewrite.put_behind(value, f"{value.name}_half", self._widened)
                for reader, index in readers:  # inside it stays half
                    reader.replace_input_with(index, value)
        return self.rewrite.finish()

    def _convert_node(self, node: ir.Node) -> None:
        floats = [value for value in node.inputs if value is not None and value.name in self.floats]
        outputs = {value.name for value in node.outputs}
        casts_to_float = node.op_type == "Cast" and node.attributes["to"].value == ir.DataType.FLOAT
        if node.op_type in QUANTIZERS:
            self._convert_quantizer(node)
            return
        if not floats or (node.op_type == "Cast" and not casts_to_float):
            # Not about floats, or where floats begin (a Cast of the frames).
            self.floats |= outputs if casts_to_float else set()
            return
        in_half = self._wants_half(node, floats)
        if node.op_type in PRODUCTS or any(value.name in self.after_product for value in floats):
            self.after_product |= outputs
        for index, value in enumerate(node.inputs):
            if value is not None and value.name in self.floats:
                node.replace_input_with(index, self._as(value, in_half))
        self.floats |= outputs
        if in_half:
            self.half |= outputs
            if self.options.emulate and node.op_type not in _MOVES:
                for value in node.outputs:
                    self.rewrite.put_behind(value, f"{value.name}_exact", self._rounded)

    def _convert_quantizer(self, node: ir.Node) -> None:
        """No Cast stands beside it: the type of a scale is that of the numbers on the real side."""
        real = node.inputs[0] if node.op_type == "QuantizeLinear" else node.outputs[0]
        if real is node.outputs[0]:
            self.floats.add(real.name)
            if not self.options.emulate:  # else it stands for integers, which no format of floats rounds
                self.half.add(real.name)
        if real.name in self.half and not self.options.emulate:
            scale = node.inputs[1]
            values = np.maximum(scale.const_value.numpy(), SMALLEST_SCALE).astype(self.format.numpy())
            node.replace_input_with(1, self.rewrite.constant(f"{scale.name}_{self.options.kind}", values))
            self.rewrite.graph.opset_imports[""] = QUANTIZED_OPSET

    def _wants_half(self, node: ir.Node, floats: list[ir.Value]) -> bool:
        everything = self.options.emulate and not self.options.products_only
        if node.op_type == "Conv" and self.options.kind == "bf16" and not everything:
            return False  # ONNX knows no bfloat16 convolution before opset 22
        if node.op_type in PRODUCTS:
            return True
        if node.op_type == "Softmax":
            return self.options.softmax_half
        if node.op_type in KEPT_FLOAT or (node.op_type == "LayerNormalization" and self.options.kind == "bf16"):
            return False
        computed = [value.name for value in floats if value.const_value is None]
        if not any(name in self.after_product for name in computed):
            return False  # preparation of the inputs
        if self.options.products_only and node.op_type not in _MOVES:
            return False
        if node.op_type == "Concat":
            return any(name in self.half for name in computed)
        return all(name in self.half for name in computed)

    def _as(self, value: ir.Value, half: bool) -> ir.Value:
        """The tensor in the wanted format."""
        if value.const_value is not None:
            return self._constant(value) if half else value
        if (value.name in self.half) == half or _is_integer(value):
            return value
        if self.options.emulate:
            # What is half is a float32 tensor with rounded values.
            return self._rounded(value, f"{value.name}_rounded") if half else value
        return self._narrowed(value) if half else self._widened(value, f"{value.name}_fp32")

    def _narrowed(self, value: ir.Value) -> ir.Value:
        return self.rewrite.add("Cast", [value], f"{value.name}_{self.options.kind}", to=self.format)

    def _widened(self, value: ir.Value, name: str) -> ir.Value:
        return self.rewrite.add("Cast", [value], name, to=ir.DataType.FLOAT)

    def _rounded(self, value: ir.Value, name: str) -> ir.Value:
        return self._widened(self._narrowed(value), name)

    def _constant(self, value: ir.Value) -> ir.Value:
        values = value.const_value.numpy()
        stored = rounded(values, self.format) if self.options.emulate else values.astype(self.format.numpy())
        return self.rewrite.constant(f"{value.name}_{self.options.kind}", stored)


def _is_integer(value: ir.Value) -> bool:
    """Whether a product with this operand is one of integers."""
    return value.producer() is not None and value.producer().op_type == "DequantizeLinear"


def rounded(values: np.ndarray, format_: ir.DataType) -> np.ndarray:
    """float32 values as the format can hold them, rounded to nearest even, in float32."""
    return values.astype(format_.numpy()).astype(np.float32)
