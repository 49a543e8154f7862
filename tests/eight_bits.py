"""The tiny bundle with int8, bf16 and fp8, whose grids are those of noise and whose gates are wide open."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import onnx
import pytest
from conftest import TINY
from streaming_bundle import SEEN

from mma_edge.bundle import Bundle, golden_inputs, write_manifest
from mma_export.graph import save_graph
from mma_export.precision.clips import RealClips
from mma_export.precision.grids import float_grid, quantize_weights, smooth, symmetric_grid, unsigned_grid
from mma_export.precision.half import HalfOptions, as_openvino, to_half
from mma_export.precision.int8 import quantize_for_cpu, quantize_static, sites_for_cpu, tensors_for_cpu
from mma_export.precision.parts import PartRecipe, Whole8
from mma_export.precision.sites import find_sites, inputs_of, observe
from mma_export.streaming import gate as streaming_gate
from mma_export.streaming import parts as streaming
from mma_export.streaming.parts import add_streaming
from mma_export.weights import share_weights
from mma_trainer.model import MMADFER

FP16 = HalfOptions("fp16")


def whole_of(proto: onnx.ModelProto) -> Whole8:
    """What a search would have found: one product stays in float32."""
    clips = RealClips(*golden_inputs(7, TINY.image_size, 4), None, "noise")
    sites = find_sites(proto)
    smoothed, smoothed_sites = smooth(proto, sites, observe(proto, inputs_of(sites), clips))
    own = sites_for_cpu(smoothed, smoothed_sites)
    on_grids = tensors_for_cpu(smoothed, own)
    ranges = observe(smoothed, inputs_of(smoothed_sites) | on_grids, clips)
    return Whole8(
        proto,
        sites,
        smoothed,
        smoothed_sites,
        quantize_weights(smoothed, smoothed_sites),
        {name: symmetric_grid(ranges[name]) for name in inputs_of(smoothed_sites)},
        {name: unsigned_grid(ranges[name]) for name in on_grids},
        own,
        {smoothed_sites[3].node},
        {own[2].node},
    )


def with_eight_bits(
    known: Bundle, protos: dict[str, onnx.ModelProto], whole: Whole8, model: MMADFER, folder: Path
) -> Bundle:
    """A copy of the bundle of the parts `protos` in `folder`, with more precisions and the parts in all of them."""
    shutil.copytree(known.folder, folder)
    static = quantize_static(whole.smoothed, whole.smoothed_sites, whole.symmetric, whole.weights, whole.kept)
    cpu = quantize_for_cpu(whole.smoothed, whole.own, whole.unsigned, whole.weights, whole.cpu_kept)
    half, fp8 = HalfOptions("bf16", products_only=True), _in_fp8(whole)
    names = ("int8", "int8-cpu", "int8-tensorrt", "bf16", "fp8")
    files = {name: folder / f"model.{name}.onnx" for name in names}
    save_graph(static, files["int8"], half_storage=False)
    for graph, name in ((cpu, "int8-cpu"), (to_half(static, FP16), "int8-tensorrt")):
        share_weights(graph, files["int8"])
        save_graph(graph, files[name], half_storage=False)
    save_graph(to_half(fp8.static(whole.proto), FP16), files["fp8"], half_storage=False)
    save_graph(to_half(whole.proto, half), files["bf16"])
    recipes = [
        PartRecipe("int8", "int8", files["int8"], whole.static, half_storage=False),
        PartRecipe("int8-cpu", "int8", files["int8-cpu"], whole.for_cpu, half_storage=False),
        PartRecipe(
            "int8-tensorrt",
            "int8",
            files["int8-tensorrt"],
            lambda part: to_half(whole.static(part), FP16),
            half_storage=False,
        ),
        PartRecipe("fp8", "fp8", files["fp8"], lambda part: to_half(fp8.static(part), FP16), half_storage=False),
        PartRecipe(
            "bf16",
            "bf16",
            files["bf16"],
            lambda part: to_half(part, half),
            judged=lambda part: to_half(part, dataclasses.replace(half, emulate=True)),
            on_openvino=lambda part: to_half(part, as_openvino()),
        ),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "write_parts", lambda *args: protos)
        patch.setattr(streaming_gate, "collect_clips", lambda *args: SEEN)
        patch.setattr(streaming_gate, "REQUIRED_AGREEMENT", 0.0)
        patch.setattr(streaming_gate, "MIN_TOP1_AGREEMENT", dict.fromkeys(("int8", "bf16", "fp8"), 0.0))
        entries = add_streaming(model, folder, folder / "model.fp32.onnx", recipes, report=lambda line: None)
    manifest = json.loads(json.dumps(known.manifest))
    own = {"cpu_file": "model.int8-cpu.onnx", "tensorrt_file": "model.int8-tensorrt.onnx"}
    for name in ("int8", "bf16", "fp8"):
        entry = {"file": f"model.{name}.onnx", "parity": {}, "tolerance": 1.0}
        manifest["precisions"][name] = entry | own if name == "int8" else entry
    return write_manifest(folder, {**manifest, "streaming": entries})


def _in_fp8(whole: Whole8) -> Whole8:
    """What would have been found in E4M3: matrix products only."""
    clips = RealClips(*golden_inputs(7, TINY.image_size, 4), None, "noise")
    ranges = observe(whole.smoothed, inputs_of(whole.smoothed_sites), clips)
    grids = {name: float_grid(found) for name, found in ranges.items()}
    products = [site for site in whole.smoothed_sites if site.op_type == "MatMul"]
    others = {site.node for site in whole.smoothed_sites} - {site.node for site in products}
    weights = quantize_weights(whole.smoothed, products, e4m3=True)
    return dataclasses.replace(whole, weights=weights, symmetric=grids, own=[], kept=others)
