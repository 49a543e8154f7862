"""Changes of an ONNX graph, on onnx_ir: the GELU that onnxruntime fuses, and what the conversions to half and to
8 bits are made with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.rewriter.pattern import RewriteRule, RewriteRuleSet


def _traced_gelu(op: Any, x: ir.Value, half: ir.Value, shifted: ir.Value) -> ir.Value:
    return op.Mul(x, op.Mul(half, shifted))


def _fused_gelu(op: Any, x: ir.Value, half: ir.Value, shifted: ir.Value) -> ir.Value:
    return op.Mul(op.Mul(x, shifted), half)


def _is_gelu(_: Any, half: ir.Value, shifted: ir.Value, **__: ir.Value) -> bool:
    """Whether `half` is 0.5 and `shifted` is Erf(...) + 1."""
    constant, add = half.const_value, shifted.producer()
    erf = add.inputs[0].producer() if add and add.op_type == "Add" else None
    is_half = constant is not None and constant.size == 1 and constant.numpy().item() == 0.5
    return is_half and erf is not None and erf.op_type == "Erf"


GELU = RewriteRuleSet([RewriteRule(_traced_gelu, _fused_gelu, _is_gelu)], commute=True)
"""Writes erf GELU as x * (1 + erf(x / sqrt 2)) * 0.5, the form that onnxruntime recognises and fuses.

The exporter writes x * (0.5 * (1 + erf(x / sqrt 2))), which no version of onnxruntime tried here fuses: five passes
over the widest activations instead of one. Halving is exact, so the results stay the same to the last bit.
"""


ATTENTION_OPSET = 23
"""The first with `Attention`."""


def fuse_attention(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with one ONNX `Attention` for each product, Softmax and product of attention: opset 23.

    Softmax in float32 whatever the rest is. onnxruntime's CUDA provider and TensorRT from 10.14 have fused kernels for
    it, where they would have to find the pattern else.
    """
    rewrite = Rewrite(proto)
    for node in rewrite.nodes:
        scores = node.inputs[0].producer() if node.op_type == "Softmax" else None
        readers = node.outputs[0].consumers() if scores is not None else ()
        if scores is None or scores.op_type != "MatMul" or [reader.op_type for reader in readers] != ["MatMul"]:
            continue
        (product,), (q, k_transposed) = readers, scores.inputs
        name, result = node.name, product.outputs[0]
        k = rewrite.add("Transpose", [k_transposed], f"{name}_k", perm=[0, 1, 3, 2])
        inputs = [q, k, product.inputs[1]]  # (N, heads, T, D) each
        attended = rewrite.add(
            "Attention", inputs, f"{name}_attended", scale=1.0, softmax_precision=int(ir.DataType.FLOAT)
        )
        result.replace_all_uses_with(attended)
        rewrite.graph.opset_imports[""] = ATTENTION_OPSET
    return rewrite.finish()


def shape_behind_cast(model: ir.Model) -> None:
    """Let each Shape of a uint8 input read the Cast of that input, in place.

    The exporter takes the size of a batch from where it comes in, but TensorRT lets a uint8 input into a Cast only.
    """
    for value in model.graph.inputs:
        readers = tuple(value.uses()) if value.dtype == ir.DataType.UINT8 else ()
        casts = [node.outputs[0] for node, _ in readers if node.op_type == "Cast"]
        for node, index in readers:
            if node.op_type == "Shape" and casts:
                node.replace_input_with(index, casts[0])
    model.graph.sort()


class Rewrite:
    """A copy of a graph to change. Nodes and constants are added by name; a name that is there already is not added
    again, so that several readers share one node.

    Args:
        source: it is left alone, and lends its weights until `finish`.
    """

    def __init__(self, source: onnx.ModelProto) -> None:
        self._model = ir.from_proto(source)
        self.graph = self._model.graph
        self.nodes = tuple(self.graph)
        """Those of the source, in its order."""
        self.values = ir.convenience.create_value_mapping(self.graph)
        """Tensors by name, constants among them."""

    def add(self, op_type: str, inputs: Sequence[ir.Value], *outputs: str, **attributes: Any) -> ir.Value:
        """Add a node named as its first output, and return that; `finish` brings it to its place."""
        if outputs[0] not in self.values:
            results = [ir.Value(name=name) for name in outputs]
            self.graph.append(ir.node(op_type, inputs, attributes, outputs=results, name=outputs[0]))
            self.values.update(zip(outputs, results, strict=True))
        return self.values[outputs[0]]

    def constant(self, name: str, values: np.ndarray) -> ir.Value:
        """Add a constant; a 0-d array is a scalar."""
        if name not in self.values:
            self.values[name] = ir.val(name, const_value=ir.tensor(values, name=name))
            self.graph.register_initializer(self.values[name])
        return self.values[name]

    def put_behind(self, value: ir.Value, renamed: str, make: Callable[[ir.Value, str], ir.Value]) -> None:
        """Let all that read `value`, the graph's outputs too, read what `make` adds behind it, under its old name.

        What is added has the type and shape of `value`.
        """
        name, readers = value.name, tuple(value.uses())
        value.name, self.values[renamed] = renamed, self.values.pop(name)
        result = make(value, name)
        result.type, result.shape = value.type, value.shape
        for reader, index in readers:
            reader.replace_input_with(index, result)
        self.graph.outputs[:] = [result if output is value else output for output in self.graph.outputs]

    def finish(self, outputs: Sequence[ir.Value] | None = None) -> onnx.ModelProto:
        """The graph, or the part of it that computes `outputs`: no node or constant that is not needed, in order."""
        if outputs is not None:
            self.graph.outputs[:] = outputs
        RemoveUnusedNodesPass()(self._model)
        self.graph.sort()
        proto = ir.to_proto(self._model)
        del proto.graph.value_info[:]
        return proto
