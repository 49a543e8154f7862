"""Parts in 8 bits and in half: the whole graph's own arithmetic, its weights stored once, each mode behind its gate."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import TINY, one_line
from streaming_bundle import SEEN, stream_clips

from mma_edge.bundle import Bundle, golden_inputs, write_manifest
from mma_edge.bundle.streaming import MODES
from mma_edge.errors import BundleError
from mma_edge.recognizer import Recognizer
from mma_edge.streaming import StreamingRecognizer
from mma_export.graph import save_graph
from mma_export.precision.clips import RealClips, logits_of
from mma_export.precision.grids import quantize_weights, smooth, symmetric_grid, unsigned_grid
from mma_export.precision.half import HalfOptions, as_openvino, to_half
from mma_export.precision.int8 import quantize_for_cpu, quantize_static, sites_for_cpu, tensors_for_cpu
from mma_export.precision.parts import PartRecipe, Whole8
from mma_export.precision.sites import find_sites, inputs_of, observe
from mma_export.streaming import gate as streaming_gate
from mma_export.streaming import parts as streaming
from mma_export.streaming.parts import add_streaming, part_file
from mma_export.weights import share_weights
from mma_trainer.model import MMADFER

Streamed = tuple[Bundle, dict[str, onnx.ModelProto]]


@pytest.fixture(scope="module")
def whole(proto: onnx.ModelProto) -> Whole8:
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


@pytest.fixture(scope="module")
def bundle(streamed: Streamed, whole: Whole8, tiny_model: MMADFER, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny bundle with int8 and bf16, and its parts in all of them; the gates are wide open."""
    known, protos = streamed
    folder = shutil.copytree(known.folder, tmp_path_factory.mktemp("eight") / "bundle")
    static = quantize_static(whole.smoothed, whole.smoothed_sites, whole.symmetric, whole.weights, whole.kept)
    cpu = quantize_for_cpu(whole.smoothed, whole.own, whole.unsigned, whole.weights, whole.cpu_kept)
    half = HalfOptions("bf16", products_only=True)
    files = {name: folder / f"model.{name}.onnx" for name in ("int8", "int8-cpu", "bf16")}
    save_graph(static, files["int8"], half_storage=False)
    share_weights(cpu, files["int8"])
    save_graph(cpu, files["int8-cpu"], half_storage=False)
    save_graph(to_half(whole.proto, half), files["bf16"])
    recipes = [
        PartRecipe("int8", "int8", files["int8"], whole.static, half_storage=False),
        PartRecipe("int8-cpu", "int8", files["int8-cpu"], whole.for_cpu, half_storage=False),
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
        patch.setattr(streaming_gate, "MIN_TOP1_AGREEMENT", dict.fromkeys(("int8", "bf16"), 0.0))
        entries = add_streaming(tiny_model, folder, folder / "model.fp32.onnx", recipes, report=lambda line: None)
    manifest = json.loads(json.dumps(known.manifest))
    manifest["precisions"]["int8"] = {"file": "model.int8.onnx", "cpu_file": "model.int8-cpu.onnx", "parity": {}}
    manifest["precisions"]["bf16"] = {"file": "model.bf16.onnx", "parity": {}}
    for name in ("int8", "bf16"):
        manifest["precisions"][name]["tolerance"] = 1.0
    return write_manifest(folder, {**manifest, "streaming": entries})


def operators(*graphs: onnx.ModelProto) -> Counter:
    return Counter(node.op_type for graph in graphs for node in graph.graph.node)


def quantised_weights(graph: onnx.ModelProto) -> int:
    constants = {tensor.name for tensor in graph.graph.initializer}
    return sum(node.op_type == "DequantizeLinear" and node.input[0] in constants for node in graph.graph.node)


def test_every_product_of_the_whole_graph_in_8_bits_is_one_in_the_parts(streamed: Streamed, whole: Whole8) -> None:
    parts = streamed[1]
    stem, exact, rolling = (whole.static(parts[name]) for name in ("stem", "exact", "rolling"))
    assert quantised_weights(stem) + quantised_weights(exact) == len(whole.sites) - 1
    assert quantised_weights(exact) == quantised_weights(rolling)
    stem, exact, rolling = (whole.for_cpu(parts[name]) for name in ("stem", "exact", "rolling"))
    in_8_bits = [site for site in whole.own if site.node not in whole.cpu_kept]
    assert operators(stem, exact)["MatMulInteger"] == sum(site.op_type == "MatMul" for site in in_8_bits)
    assert operators(exact)["MatMulInteger"] == operators(rolling)["MatMulInteger"]


def test_exact_parts_on_fixed_grids_compute_what_the_whole_graph_computes(bundle: Bundle, whole: Whole8) -> None:
    """8-bit numbers on the same grids: the same ones, whatever they were computed with."""
    clips = stream_clips(1)
    expected = logits_of(bundle.graph("int8"), RealClips(clips[0].frames[None], clips[0].mel[None], None, ""))
    graphs = streaming._open(*(bundle.folder / part_file(part, "int8") for part in ("stem", "exact")))
    got = streaming.Streamer(graphs, "exact")(clips)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    without = logits_of(whole.proto, RealClips(clips[0].frames[None], clips[0].mel[None], None, ""))
    assert np.abs(without - expected).max() > 1e-3


def test_the_weights_in_8_bits_are_stored_once(bundle: Bundle) -> None:
    for name in ("int8", "int8-cpu"):
        graph = onnx.load(str(bundle.folder / part_file("exact", name)), load_external_data=False)
        shared = [tensor for tensor in graph.graph.initializer if tensor.external_data]
        assert {entry.value for tensor in shared for entry in tensor.external_data} >= {"model.int8.onnx"}
        assert not [tensor.name for tensor in graph.graph.initializer if len(tensor.raw_data) >= 1024]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("backend", "precision"), [("cpu", "int8"), ("openvino", "int8"), ("openvino", "bf16")])
def test_each_engine_streams_its_own_precision(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, precision: str, mode: str
) -> None:
    if backend == "openvino":
        openvino = pytest.importorskip("mma_edge.engines.openvino")
        if precision not in openvino.native_precisions():
            pytest.skip(f"this processor has no {precision}")
    monkeypatch.setenv("MMA_EDGE_CACHE", str(tmp_path))
    recognizer = Recognizer.open(bundle.folder, backend, precision, mode)
    streaming_one = StreamingRecognizer(recognizer, mode)
    for clip in stream_clips(3):
        got, expected = (who.predict_clips([clip])[0].probabilities for who in (streaming_one, recognizer))
        np.testing.assert_allclose(got, expected, atol=0.1)
    assert bundle.parts("openvino", "bf16", mode).rest == part_file(mode)
    assert bundle.parts("cpu", "int8", mode).rest == part_file(mode, "int8-cpu")


def test_a_mode_that_rounding_spoils_is_refused_for_that_precision_alone(bundle: Bundle, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle.folder, tmp_path / "refused")
    manifest = json.loads(json.dumps(bundle.manifest))
    manifest["streaming"]["int8"]["rolling"]["failed_on"] = {"openvino": "where it rounds to bf16, 90.0% of 46 windows"}
    changed = write_manifest(folder, manifest)
    with pytest.raises(BundleError, match=r"rolling in int8 on openvino: where it rounds to bf16") as caught:
        changed.parts("openvino", "int8", "rolling")
    one_line(caught.value)
    changed.parts("cpu", "int8", "rolling")
    changed.parts("openvino", "fp32", "rolling")


def test_a_precision_that_answers_otherwise_fails_the_gate_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_gate, "collect_clips", lambda *args: SEEN)
    logits = np.eye(3, dtype=np.float32)
    windows = streaming_gate.Windows(lambda frames, mel: logits[:1], 16, streaming_gate.PartsGate())
    monkeypatch.setattr(streaming_gate, "Streamer", lambda *args: lambda clips: logits[1:2])
    found = windows.judge_exact(None, "int8")
    assert "0.0% of" in found["refused"] and "98% that are required" in found["refused"]
    monkeypatch.setattr(streaming_gate, "Streamer", lambda *args: lambda clips: logits[:1])
    assert "refused" not in windows.judge_exact(None, "int8")
