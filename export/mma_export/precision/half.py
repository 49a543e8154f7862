"""A float32 graph in half precision, strongly typed: what is computed in which format stands in the graph.

With float16, matrix products and convolutions are half, and everything elementwise between them;
LayerNormalization, Softmax and means stay float32, and so do the inputs, their preparation and the output. With
bfloat16, whose mantissa has 8 bits, products alone are half, and their results are widened at once. Convolutions stay
float32 there: ONNX has them in bfloat16 from opset 22 only.

TensorRT, onnxruntime on CUDA and OpenVINO run such a file as it stands: no builder flag is needed or heeded.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FORMATS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
PRODUCTS = {"MatMul", "Gemm", "Conv"}
KEPT_FLOAT = {"LayerNormalization", "Softmax", "ReduceMean", "ReduceSum", "Pow", "Sqrt", "Reciprocal"}
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
    """The float32 graph as OpenVINO computes it in bfloat16: everything rounded but norms, Softmax and means."""
    return HalfOptions("bf16", softmax_half, emulate=True)


def to_half(proto: onnx.ModelProto, options: HalfOptions) -> onnx.ModelProto:
    """A half-precision copy of a float32 graph (opset 18, types and shapes as traced, weights in float32)."""
    return _Converter(proto, options).convert()


def half_tensors(proto: onnx.ModelProto, options: HalfOptions) -> set[str]:
    """Names of the computed tensors of the float32 graph that are half in the converted one."""
    converter = _Converter(proto, options)
    converter.convert()
    return converter.half & {name for node in proto.graph.node for name in node.output}


class _Converter:
    """Walks the graph once, in order; knows the format of every float tensor it has passed."""

    def __init__(self, proto: onnx.ModelProto, options: HalfOptions) -> None:
        self.source, self.options = proto.graph, options
        self.format = FORMATS[options.kind]
        self.constants = {t.name: t for t in proto.graph.initializer if t.data_type == TensorProto.FLOAT}
        self.half: set[str] = set()  # computed float tensors that are half now
        self.floats = set(self.constants) | {
            value.name for value in proto.graph.input if value.type.tensor_type.elem_type == TensorProto.FLOAT
        }
        self.casts: dict[tuple[str, bool], str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.new_constants: dict[str, TensorProto] = {}
        self.after_product: set[str] = set()
        self.model = onnx.ModelProto()
        self.model.CopyFrom(proto)

    def convert(self) -> onnx.ModelProto:
        for node in self.source.node:
            self._convert_node(node)
        graph = self.model.graph
        outputs = {value.name for value in graph.output}
        for name in outputs & self.half:
            self._rename_output(name)
        del graph.node[:]
        graph.node.extend(self.nodes)
        self._keep_used_constants()
        del graph.value_info[:]
        return self.model

    def _convert_node(self, node: onnx.NodeProto) -> None:
        node = copy.deepcopy(node)
        floats = [name for name in node.input if name in self.floats]
        if not floats or (node.op_type == "Cast" and not _casts_to_float(node)):
            self._keep(node)
            return
        in_half = self._wants_half(node, floats)
        for index, name in enumerate(node.input):
            if name in self.floats:
                node.input[index] = self._as(name, in_half)
        if node.op_type in PRODUCTS or any(name in self.after_product for name in floats):
            self.after_product.update(node.output)
        self.floats.update(node.output)
        if not in_half:
            self.nodes.append(node)
            return
        self.half.update(node.output)
        if self.options.emulate and node.op_type not in _MOVES:
            self._rounded(node)
        else:
            self.nodes.append(node)

    def _keep(self, node: onnx.NodeProto) -> None:
        """Not about floats, or where floats begin (a Cast of the frames)."""
        if node.op_type == "Cast" and _casts_to_float(node):
            self.floats.update(node.output)
        self.nodes.append(node)

    def _wants_half(self, node: onnx.NodeProto, floats: list[str]) -> bool:
        everything = self.options.emulate and not self.options.products_only
        if node.op_type == "Conv" and self.options.kind == "bf16" and not everything:
            return False  # ONNX knows no bfloat16 convolution before opset 22
        if node.op_type in PRODUCTS:
            return True
        if node.op_type == "Softmax":
            return self.options.softmax_half
        if node.op_type in KEPT_FLOAT:
            return False
        computed = [name for name in floats if name not in self.constants]
        if not any(name in self.after_product for name in computed):
            return False  # preparation of the inputs
        if self.options.products_only and node.op_type not in _MOVES:
            return False
        if node.op_type == "Concat":
            return any(name in self.half for name in computed)
        return all(name in self.half for name in computed)

    def _as(self, name: str, half: bool) -> str:
        """The tensor in the wanted format, cast at most once."""
        if name in self.constants:
            return self._constant(name) if half else name
        if (name in self.half) == half:
            return name
        if self.options.emulate and not half:
            return name  # it is a float32 tensor with rounded values
        key = (name, half)
        if key not in self.casts:
            self.casts[key] = self._round(name) if self.options.emulate else self._cast(name, half)
        return self.casts[key]

    def _cast(self, name: str, half: bool) -> str:
        result = f"{name}_{self.options.kind if half else 'fp32'}"
        self.nodes.append(
            helper.make_node("Cast", [name], [result], name=result, to=self.format if half else TensorProto.FLOAT)
        )
        return result

    def _round(self, name: str, result: str | None = None) -> str:
        result = result or f"{name}_rounded"
        middle = f"{result}_{self.options.kind}"
        self.nodes.append(helper.make_node("Cast", [name], [middle], name=middle, to=self.format))
        self.nodes.append(helper.make_node("Cast", [middle], [result], name=result, to=TensorProto.FLOAT))
        return result

    def _rounded(self, node: onnx.NodeProto) -> None:
        """Compute in float32, then round every output."""
        outputs = list(node.output)
        for index, name in enumerate(outputs):
            node.output[index] = f"{name}_exact"
        self.nodes.append(node)
        for name in outputs:
            self._round(f"{name}_exact", name)

    def _constant(self, name: str) -> str:
        result = f"{name}_{self.options.kind}"
        if result not in self.new_constants:
            values = numpy_helper.to_array(self.constants[name])
            tensor = half_tensor(values, result, self.format)
            if self.options.emulate:
                tensor = numpy_helper.from_array(rounded(values, self.format), result)
            self.new_constants[result] = tensor
        return result

    def _rename_output(self, name: str) -> None:
        """The graph's output stays float32 under its own name."""
        for node in self.nodes:
            for names in (node.input, node.output):
                for index, other in enumerate(names):
                    if other == name:
                        names[index] = f"{name}_half"
        if self.options.emulate:
            self.nodes.append(helper.make_node("Identity", [f"{name}_half"], [name], name=f"{name}_out"))
        else:
            self.nodes.append(
                helper.make_node("Cast", [f"{name}_half"], [name], name=f"{name}_out", to=TensorProto.FLOAT)
            )

    def _keep_used_constants(self) -> None:
        graph = self.model.graph
        used = {name for node in self.nodes for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in used]
        kept += self.new_constants.values()
        del graph.initializer[:]
        graph.initializer.extend(kept)


def half_tensor(values: np.ndarray, name: str, format_: int) -> TensorProto:
    """Values float32 as a tensor in half precision, rounded to nearest even."""
    if format_ == TensorProto.FLOAT16:
        return numpy_helper.from_array(values.astype(np.float16), name)
    bits = _bfloat16_bits(values)
    return helper.make_tensor(name, TensorProto.BFLOAT16, values.shape, bits.tobytes(), raw=True)


def rounded(values: np.ndarray, format_: int) -> np.ndarray:
    """float32 values as the format can hold them, in float32."""
    if format_ == TensorProto.FLOAT16:
        return values.astype(np.float16).astype(np.float32)
    return (_bfloat16_bits(values).astype(np.uint32) << 16).view(np.float32).reshape(values.shape)


def _bfloat16_bits(values: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _casts_to_float(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "to" and attribute.i == TensorProto.FLOAT for attribute in node.attribute)
