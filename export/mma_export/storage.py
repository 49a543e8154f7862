"""Weights stored in half where that loses nothing."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SMALLEST = 256  # a Cast per scalar would cost more than it saves


def store_half(proto: onnx.ModelProto) -> int:
    """Store every float32 initializer whose values are all exact in float16 as float16 and a Cast.

    A released checkpoint holds its weights in float16 (`mma-train --half`); its graph computes in
    float32 and need not be twice that size on disk. Engines fold the Cast of a constant when they
    load it, so the numbers and the speed are those of the float32 file.

    Returns:
        Bytes saved.
    """
    graph = proto.graph
    saved, casts = 0, []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < SMALLEST or not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, name + "_half"))
        casts.append(helper.make_node("Cast", [name + "_half"], [name], name=name + "_cast", to=TensorProto.FLOAT))
        saved += values.nbytes - half.nbytes
    for node in reversed(casts):
        graph.node.insert(0, node)
    return saved
