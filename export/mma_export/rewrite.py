"""Rewrites of a traced graph that change how it is said, not what it computes."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import helper, numpy_helper


def rewrite_gelu(proto: onnx.ModelProto) -> int:
    """Say erf GELU as x * (1 + erf(x / sqrt 2)) * 0.5, the form that onnxruntime recognises and fuses.

    The exporter says x * (0.5 * (1 + erf(x / sqrt 2))), which no version of onnxruntime tried here fuses:
    five passes over the widest activations instead of one. Halving is exact, so is the change.

    Returns:
        The number of GELUs.
    """
    graph = proto.graph
    consumers = consumers_of(graph)
    scalars = _scalars(graph)
    count = 0
    for erf in [node for node in graph.node if node.op_type == "Erf"]:
        add = _only(consumers, erf, "Add")
        half = add and _only(consumers, add, "Mul")
        last = half and _only(consumers, half, "Mul")
        if last is None or not any(math.isclose(scalars.get(name, 0.0), 0.5) for name in half.input):
            continue
        x = next(name for name in last.input if name != half.output[0])
        constant = next(name for name in half.input if name != add.output[0])
        result = last.output[0]
        half.CopyFrom(helper.make_node("Mul", [x, add.output[0]], [half.output[0]], name=half.name))
        last.CopyFrom(helper.make_node("Mul", [half.output[0], constant], [result], name=last.name))
        count += 1
    return count


def consumers_of(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """Tensor name -> the nodes that read it."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def _only(consumers: dict[str, list[onnx.NodeProto]], node: onnx.NodeProto, op_type: str) -> onnx.NodeProto | None:
    readers = consumers.get(node.output[0], [])
    return readers[0] if len(readers) == 1 and readers[0].op_type == op_type else None


def _scalars(graph: onnx.GraphProto) -> dict[str, float]:
    found = {}
    for tensor in graph.initializer:
        if np.prod(tensor.dims, dtype=int) == 1 and tensor.data_type == onnx.TensorProto.FLOAT:
            found[tensor.name] = float(numpy_helper.to_array(tensor).item())
    return found
