"""INT8 for onnxruntime's CPU: products quantised on the fly, convolutions by ranges seen on real clips.

A dynamic scale per call costs a pass over the activations and saves what a fixed one loses on the next clip; on
processors with VNNI onnxruntime is faster so than with the QDQ graph (see docs/precision.md). Written by
onnxruntime's own quantiser; all operators are of the ONNX standard.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from mma_export.clips import RealClips
from mma_export.sites import Site

_MATMUL_ONLY = {"MatMulConstBOnly": True}  # products of two activations are attention: little to gain, much to lose


class _Reader(CalibrationDataReader):
    def __init__(self, clips: RealClips) -> None:
        self._feeds: Iterator[dict] = (
            {"frames": clips.frames[row : row + 1], "mel": clips.mel[row : row + 1]} for row in range(len(clips))
        )

    def get_next(self) -> dict | None:
        return next(self._feeds, None)


def is_stem(proto: onnx.ModelProto, site: Site) -> bool:
    """Whether a convolution overlaps its neighbours; a patch embedding is too little work to be worth its rounding."""
    node = next(node for node in proto.graph.node if node.name == site.node)
    attributes = {attribute.name: list(attribute.ints) for attribute in node.attribute}
    return attributes.get("kernel_shape") != attributes.get("strides")


def quantize_for_cpu(
    proto: onnx.ModelProto, sites: list[Site], clips: RealClips, kept: Collection[str] = ()
) -> onnx.ModelProto:
    """A copy of a float32 graph for onnxruntime's CPU, 8 bits at all sites but those named in `kept`."""
    chosen = [site for site in sites if site.node not in kept]
    convolutions = [site.node for site in chosen if site.op_type == "Conv" and is_stem(proto, site)]
    products = [site.node for site in chosen if site.op_type == "MatMul"]
    quiet = logging.getLogger()
    level = quiet.level
    quiet.setLevel(logging.ERROR)  # it advises a pre-processing that this graph has had
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            before, after = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
            onnx.save(proto, before)
            if convolutions:
                quantize_static(
                    before,
                    after,
                    _Reader(clips),
                    quant_format=QuantFormat.QDQ,
                    op_types_to_quantize=["Conv"],
                    nodes_to_quantize=convolutions,
                    per_channel=True,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                )
                before, after = after, Path(folder) / "both.onnx"
            if products:
                quantize_dynamic(
                    before,
                    after,
                    op_types_to_quantize=["MatMul"],
                    nodes_to_quantize=products,
                    per_channel=True,
                    weight_type=QuantType.QInt8,
                    extra_options=_MATMUL_ONLY,
                )
                before = after
            quantized = onnx.load(before)
    finally:
        quiet.setLevel(level)
    standard = [entry for entry in quantized.opset_import if entry.domain in ("", "ai.onnx")]
    del quantized.opset_import[:]
    quantized.opset_import.extend(standard)
    return quantized
