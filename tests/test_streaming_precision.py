"""Parts in 8 bits and in half: the whole graph's own arithmetic, its weights stored once, each mode behind its gate."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import TINY, one_line
from onnx import TensorProto
from streaming_bundle import SEEN, stream_clips

from mma_edge.bundle import Bundle, write_manifest
from mma_edge.bundle.streaming import MODES
from mma_edge.engines.machine import may_saturate
from mma_edge.errors import BundleError
from mma_edge.recognizer import Recognizer
from mma_edge.streaming import Streamer, StreamingRecognizer
from mma_export.graph import check_for_tensorrt, save_graph
from mma_export.precision.clips import RealClips, logits_of
from mma_export.precision.parts import Whole8
from mma_export.precision.write import GateOptions, PrecisionWriter
from mma_export.streaming import gate as streaming_gate
from mma_export.streaming import parts as streaming
from mma_export.streaming.parts import part_file

Streamed = tuple[Bundle, dict[str, onnx.ModelProto]]


@pytest.fixture(scope="module")
def whole(whole8: Whole8) -> Whole8:
    return whole8


@pytest.fixture(scope="module")
def bundle(eight_bits: Bundle) -> Bundle:
    return eight_bits


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


def test_what_the_writer_found_makes_parts_for_every_backend(
    streamed: Streamed, proto: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mma_export.precision.write.SEARCHED_AGREEMENT", 0.0)  # the first try is good enough
    golden = 0, np.zeros((1, len(TINY.labels)), np.float32)
    writer = PrecisionWriter(
        proto, tmp_path, TINY.image_size, TINY.labels, golden, GateOptions(count=4), lambda line: None
    )
    for precision in ("int8", "fp8"):
        writer.write(precision)
    recipes = {recipe.name: recipe for found in writer.recipes.values() for recipe in found}
    assert list(recipes) == ["int8", "int8-cpu", "int8-tensorrt", "fp8"]
    for name in ("int8-tensorrt", "fp8"):
        part = recipes[name].convert(streamed[1]["exact"])
        kinds = {tensor.data_type for tensor in part.graph.initializer}
        assert kinds >= {TensorProto.FLOAT16, TensorProto.INT8 if name == "int8-tensorrt" else TensorProto.FLOAT8E4M3FN}
        assert quantised_weights(part) > 10
        save_graph(part, tmp_path / f"{name}.part.onnx", half_storage=False)
        check_for_tensorrt(tmp_path / f"{name}.part.onnx")


def test_exact_parts_on_fixed_grids_compute_what_the_whole_graph_computes(bundle: Bundle, whole: Whole8) -> None:
    """8-bit numbers on the same grids: the same ones, whatever they were computed with."""
    clips = stream_clips(1)
    expected = logits_of(bundle.graph("int8"), RealClips(clips[0].frames[None], clips[0].mel[None], None, ""))
    graphs = streaming._open(*(bundle.folder / part_file(part, "int8") for part in ("stem", "exact")))
    got = Streamer(graphs, "exact")(clips)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    without = logits_of(whole.proto, RealClips(clips[0].frames[None], clips[0].mel[None], None, ""))
    assert np.abs(without - expected).max() > 1e-3


def test_the_weights_in_8_bits_are_stored_once(bundle: Bundle) -> None:
    for name in ("int8", "int8-cpu", "int8-tensorrt"):
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
    try:
        streaming_one = StreamingRecognizer(recognizer, mode)
    except BundleError as error:
        if (backend, precision, may_saturate()) != ("openvino", "int8", True):
            raise
        # Its note says so before: the self-test then keeps wrong answers away.
        assert "differ from the golden output" in one_line(error)
        pytest.skip("without VNNI OpenVINO adds 8-bit products in 16 bits")
    for clip in stream_clips(3):
        got, expected = (who.predict_clips([clip])[0].probabilities for who in (streaming_one, recognizer))
        np.testing.assert_allclose(got, expected, atol=0.1)
    assert bundle.parts("openvino", "bf16", mode).rest == part_file(mode)
    assert bundle.parts("cpu", "int8", mode).rest == part_file(mode, "int8-cpu")
    assert bundle.parts("tensorrt", "int8", mode).rest == part_file(mode, "int8-tensorrt")


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
