"""How a graph stores its weights: in half precision where that loses nothing, or in the file of another graph of the
bundle that has the same weights.

An ONNX tensor may say "my bytes are in that file, from this offset on" (external data). The parts of a model for
streaming have all their weights in the whole graph's file, and the two int8 graphs have the same 8-bit weights, so the
later file holds little more than its nodes. The SHA-256 in the manifest makes sure that the offsets stay right.

Written by hand on protobufs: onnx_ir writes external data to new files only, and a Cast per weight is no shorter in it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, set_external_data, uses_external_data

MIN_SHARED_BYTES = 1024
"""A smaller tensor stays in its file: the reference would be as long."""
MIN_HALF_VALUES = 256
"""A smaller tensor stays float32: a Cast for each would cost more than it saves."""


def share_weights(proto: onnx.ModelProto, whole: Path) -> int:
    """Let the tensors of `proto` whose bytes the files of the graph `whole` hold too point there.

    `proto` has to be saved beside `whole`. All other tensors, and those that are zero, keep their own bytes.

    Returns:
        The number of bytes saved.
    """
    stores = [(path, path.read_bytes()) for path in weight_files(whole)]
    saved, offsets = 0, dict.fromkeys((path for path, _ in stores), 0)
    for tensor in proto.graph.initializer:
        raw = tensor.raw_data
        # Zero points stay: whoever checks TensorRT's rules sees in this file alone that they are zero.
        if len(raw) < MIN_SHARED_BYTES or not np.frombuffer(raw, np.uint8).any():
            continue
        for path, content in stores:
            # Both graphs mostly have the order of the model's layers: search from the last find on, then everywhere.
            found = content.find(raw, offsets[path])
            found = found if found >= 0 else content.find(raw)
            if found < 0:
                continue
            set_external_data(tensor, location=path.name, offset=found, length=len(raw))
            tensor.ClearField("raw_data")
            saved += len(raw)
            offsets[path] = found + len(raw)
            break
    return saved


def weight_files(whole: Path) -> list[Path]:
    """The file of a graph, then the files beside it in which it keeps weights."""
    tensors = onnx.load(str(whole), load_external_data=False).graph.initializer
    outside = [ExternalDataInfo(tensor).location for tensor in tensors if uses_external_data(tensor)]
    return [whole, *(whole.parent / name for name in dict.fromkeys(outside))]


def store_half(proto: onnx.ModelProto) -> int:
    """Store every float32 initializer whose values are all exact in float16 as float16 and a Cast, in place.

    A released checkpoint holds its weights in float16 (`mma-train --half`); its graph computes in float32 and need not
    be twice that size on disk. Engines fold the Cast of a constant when they load it, so the numbers and the speed are
    those of the float32 file. TensorRT's parser does not where it is of a convolution's weights: for it,
    `mma-edge build` puts them back (see `mma_edge.engines.tensorrt.onnx_file.whole_kernels`).

    Returns:
        The number of bytes saved.
    """
    graph = proto.graph
    saved, casts = 0, []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < MIN_HALF_VALUES or not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, name + "_half"))
        casts.append(helper.make_node("Cast", [name + "_half"], [name], name=name + "_cast", to=TensorProto.FLOAT))
        saved += values.nbytes - half.nbytes
    for node in reversed(casts):
        graph.node.insert(0, node)
    return saved
