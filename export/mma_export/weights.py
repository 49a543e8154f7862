"""How a graph stores its weights: in half where that loses nothing, or where they already lie, in the file of another
graph of the bundle.

An ONNX tensor may say "my bytes are in that file, from here on" (external data). The parts of a model for streaming
have all their weights in the whole graph's file, and the two int8 graphs have the same 8-bit weights, so the later
file holds little more than its nodes. The SHA-256 in the manifest keeps the offsets true.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, set_external_data, uses_external_data

SMALLEST_BYTES = 1024
"""Below this a tensor stays in its file: the reference would be as long."""


def share_weights(proto: onnx.ModelProto, whole: Path) -> int:
    """Let the tensors of `proto` that the graph `whole` has too, byte for byte, point to where they lie.

    `proto` has to be saved beside `whole`. Tensors that are not there keep their own bytes.

    Returns:
        Bytes spared.
    """
    stores = [(path, path.read_bytes()) for path in weight_files(whole)]
    spared, offsets = 0, dict.fromkeys((path for path, _ in stores), 0)
    for tensor in proto.graph.initializer:
        raw = tensor.raw_data
        if len(raw) < SMALLEST_BYTES:
            continue
        for path, content in stores:
            # Both graphs have the order of the model's layers, mostly: go on from the last find, then from the start.
            found = content.find(raw, offsets[path])
            found = found if found >= 0 else content.find(raw)
            if found < 0:
                continue
            set_external_data(tensor, location=path.name, offset=found, length=len(raw))
            tensor.ClearField("raw_data")
            spared += len(raw)
            offsets[path] = found + len(raw)
            break
    return spared


def weight_files(whole: Path) -> list[Path]:
    """The file of a graph, and those beside it that it keeps weights in itself."""
    tensors = onnx.load(str(whole), load_external_data=False).graph.initializer
    outside = [ExternalDataInfo(tensor).location for tensor in tensors if uses_external_data(tensor)]
    return [whole, *(whole.parent / name for name in dict.fromkeys(outside))]


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
