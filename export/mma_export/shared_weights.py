"""Graphs whose weights stay where they already lie: in the file of another graph of the bundle.

An ONNX tensor may say "my bytes are in that file, from here on" (external data). The parts of a model for streaming
have all their weights in the whole graph's file, and the two int8 graphs have the same 8-bit weights, so the later
file holds little more than its nodes. The SHA-256 in the manifest keeps the offsets true.
"""

from __future__ import annotations

from pathlib import Path

import onnx
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
