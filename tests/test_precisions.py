"""Each precision computes what float32 computes, near enough, or is refused: the gate is no formality."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import TINY, export, failure_line, make_model, one_line
from onnx import TensorProto, helper, numpy_helper

import mma_edge
from mma_edge.bundle import golden_inputs, read_bundle
from mma_edge.engines.tensorrt.onnx_file import read_graph
from mma_edge.engines.tensorrt.rules import require_rules
from mma_edge.errors import BackendError, BundleError, DataError, ParityError, UsageError
from mma_export.cli import main
from mma_export.precision.clips import RealClips, folder_clips, logits_of
from mma_export.precision.half import FORMATS, HalfOptions, as_openvino, half_tensors, options_of, rounded, to_half
from mma_export.precision.sites import Largest, check_overflow, find_sites, largest_value
from mma_export.precision.write import GateOptions
from mma_export.rewrite import fuse_attention
from mma_export.weights import weight_files
from mma_trainer.weights.checkpoint import Checkpoint, read_checkpoint


@pytest.fixture
def tiny(tiny_checkpoint: Path) -> Checkpoint:
    return read_checkpoint(tiny_checkpoint)


def types_of(graph: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(graph).graph
    return {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}


def operators(graph: onnx.ModelProto) -> Counter:
    return Counter(node.op_type for node in graph.graph.node)


def test_gelu_is_said_as_onnxruntime_fuses_it(proto: onnx.ModelProto, tmp_path: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    left = operators(onnx.load(tmp_path / "optimised.onnx"))
    assert operators(proto)["Erf"] > 4 and left["Erf"] == 0 and left["BiasGelu"] + left["Gelu"] > 4


def test_the_last_layer_mixes_only_what_is_read(proto: onnx.ModelProto) -> None:
    """The last exchange's way up has one row per frame, the ones before it have one per token."""
    model = make_model(TINY)
    shapes = {}
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    for value in inferred.value_info:
        shapes[value.name] = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    up = [
        shapes[node.output[0]]
        for node in proto.graph.node
        if node.op_type == "MatMul"
        and shapes.get(node.output[0], [0])[-1] == TINY.width
        and shapes.get(node.input[0], [0])[-1] == TINY.bottleneck_width
    ]
    assert len(up) == 2 * len(model.fusion)
    assert sorted(shape[-2] == 1 for shape in up) == [False] * (2 * len(model.fusion) - 2) + [True] * 2


@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_half_is_typed_in_the_graph(kind: str, proto: onnx.ModelProto, tmp_path: Path) -> None:
    graph = to_half(proto, options_of(kind))
    onnx.save(graph, tmp_path / "half.onnx")
    onnx.checker.check_model(str(tmp_path / "half.onnx"), full_check=True)
    types, half = types_of(graph), {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[kind]
    for node in graph.graph.node:
        if node.op_type == "MatMul":
            assert types[node.output[0]] == half, node.name
        if node.op_type in ("Softmax", "ReduceMean"):
            assert types[node.output[0]] == TensorProto.FLOAT, node.name
        if node.op_type == "LayerNormalization":
            attributes = {attribute.name: attribute.i for attribute in node.attribute}
            assert attributes.get("stash_type", 1) == TensorProto.FLOAT  # of its statistics
            assert types[node.output[0]] == (TensorProto.FLOAT16 if kind == "fp16" else TensorProto.FLOAT), node.name
    assert types["logits"] == TensorProto.FLOAT
    assert [value.type.tensor_type.elem_type for value in graph.graph.input] == [TensorProto.UINT8, TensorProto.FLOAT]
    assert {entry.domain for entry in graph.opset_import} == {""}


def test_softmax_can_be_half_too(proto: onnx.ModelProto) -> None:
    types = types_of(graph := to_half(proto, options_of("fp16", softmax_half=True)))
    assert {types[n.output[0]] for n in graph.graph.node if n.op_type == "Softmax"} == {TensorProto.FLOAT16}


def test_attention_can_be_one_operator(proto: onnx.ModelProto, clips: RealClips, reference: np.ndarray) -> None:
    fused = fuse_attention(proto)
    onnx.checker.check_model(fused, full_check=True)
    before, after = operators(proto), operators(fused)
    assert after["Attention"] == before["Softmax"] > 0 and after["Softmax"] == 0
    assert after["MatMul"] == before["MatMul"] - 2 * after["Attention"]
    np.testing.assert_allclose(logits_of(fused, clips), reference, atol=1e-4)
    half = to_half(fused, options_of("fp16"))
    types = types_of(half)
    assert {types[n.output[0]] for n in half.graph.node if n.op_type == "Attention"} == {TensorProto.FLOAT16}
    assert np.abs(logits_of(half, clips) - reference).max() < 0.05


def test_fp16_answers_as_float32(proto: onnx.ModelProto, clips: RealClips, reference: np.ndarray) -> None:
    logits = logits_of(to_half(proto, options_of("fp16")), clips)
    difference = np.abs(logits - reference).max()
    assert 0 < difference < 0.05  # it is another format, and a near one


def test_rounding_imitated_in_float32_is_as_large_as_the_rounding(
    proto: onnx.ModelProto, clips: RealClips, reference: np.ndarray
) -> None:
    """Fused kernels round in fewer places, so the two differ; their errors are of one size, bfloat16's of another."""
    real, imitated, coarse = (
        np.abs(logits_of(to_half(proto, options), clips) - reference).mean()
        for options in (
            HalfOptions("fp16"),
            HalfOptions("fp16", emulate=True),
            HalfOptions("bf16", products_only=True, emulate=True),
        )
    )
    assert 0.4 * real < imitated < 2.5 * real
    assert coarse > 2 * imitated


def test_bfloat16_bits_are_those_of_the_format() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, -3.0e38, 0.0, 1e-40], np.float32)
    held = rounded(values, FORMATS["bf16"])
    bits = held.view(np.uint32)
    assert not (bits & 0xFFFF).any()  # a bfloat16 is the upper half of a float32
    tensor = helper.make_tensor("x", TensorProto.BFLOAT16, values.shape, (bits >> 16).astype("<u2").tobytes(), raw=True)
    np.testing.assert_array_equal(numpy_helper.to_array(tensor).astype(np.float32), held)
    # Halfway cases go to the even neighbour.
    assert held[1:3].tolist() == [1.0, 1.015625]


def test_an_overflow_to_come_is_found_on_real_clips(proto: onnx.ModelProto, clips: RealClips) -> None:
    names = half_tensors(proto, options_of("fp16"))
    before = largest_value(proto, names, clips.spread(2))
    check_overflow(before)
    loud = onnx.ModelProto()
    loud.CopyFrom(proto)
    site = find_sites(loud)[-1]
    weight = next(t for t in loud.graph.initializer if t.name == site.weight)
    weight.CopyFrom(numpy_helper.from_array(1e6 * numpy_helper.to_array(weight), weight.name))
    after = largest_value(loud, names, clips.spread(2))
    assert after.value > 1e4 * before.value
    with pytest.raises(ParityError, match="65504") as error:
        check_overflow(after)
    assert "bf16" in one_line(error.value)
    with pytest.raises(ParityError):
        check_overflow(Largest(float("nan"), "x"))


def test_a_folder_without_faces_is_one_line(tmp_path: Path) -> None:
    for folder, words in ((tmp_path / "none", "is not a folder"), (tmp_path, "no videos")):
        with pytest.raises(DataError, match=words) as error:
            folder_clips(folder, 16, ("happy",), 4)
        one_line(error.value)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match="no face was found in 1 videos"):
        folder_clips(tmp_path, 16, ("happy",), 4)


def test_a_bundle_with_all_precisions_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: Checkpoint, traced: None
) -> None:
    monkeypatch.setattr("mma_export.precision.write.SEARCHED_AGREEMENT", 1.1)  # no search gets there
    gate = GateOptions(count=10, keep_going=True, fused_attention=True)
    bundle = export(tiny, tmp_path / "bundle", ("fp16", "bf16", "int8", "fp8"), gate=gate)
    assert read_graph(bundle.graph("fp16")).opset == 23 and read_graph(bundle.graph("fp8")).opset == 19
    with pytest.raises(BundleError, match=r"TensorRT 10\.3 does not take .*before TensorRT 10\.14"):
        require_rules(bundle.graph("fp16"), (10, 3), "")
    assert bundle.precisions == ("fp32", "fp16", "bf16", "int8", "fp8")
    for name, entry in bundle.manifest["precisions"].items():
        assert name == "fp32" or entry["parity"]["clips"] == 10
    assert "on another processor" in bundle.manifest["precisions"]["int8"]["parity"]["note"]
    frames, mel = golden_inputs(4, TINY.image_size, 3)
    exact = mma_edge.load(bundle.folder, "cpu").predict(frames, mel)
    for precision in ("fp16", "int8"):
        near = mma_edge.load(bundle.folder, "cpu", precision).predict(frames, mel)
        assert 0 < np.abs(near - exact).max() < 0.2
    # The int8 graphs have the same weights, once on disk.
    for graph in (bundle.cpu_graph("int8"), bundle.tensorrt_graph("int8")):
        assert weight_files(graph) == [graph, bundle.graph("int8")]
    hashes, own = bundle.manifest["files"], bundle.tensorrt_graph("int8").name
    whole = hashlib.sha256((hashes[own] + hashes["model.int8.onnx"]).encode()).hexdigest()
    assert bundle.onnx_sha256(bundle.tensorrt_graph("int8")) == whole  # a plan is of both files
    assert bundle.onnx_sha256(bundle.graph("fp8")) == hashes["model.fp8.onnx"]
    for precision, products in (("int8", {TensorProto.INT8}), ("fp8", {TensorProto.FLOAT8E4M3FN})):
        graph = onnx.load(bundle.tensorrt_graph(precision))
        check_that_no_cast_stands_beside_a_quantizer(graph, products)


def check_that_no_cast_stands_beside_a_quantizer(graph: onnx.ModelProto, formats: set[int]) -> None:
    """TensorRT would not take the product for a quantised one."""
    makers = {name: node for node in graph.graph.node for name in node.output}
    types = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    quantizers = [node for node in graph.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert quantizers and {types[node.input[2]] for node in quantizers} == formats
    halves = [node for node in quantizers if types[node.input[1]] == TensorProto.FLOAT16]
    assert {node.op_type for node in halves} == {"QuantizeLinear", "DequantizeLinear"}
    for node in graph.graph.node:
        found = {makers[name].op_type for name in node.input if name in makers}
        assert node.op_type != "QuantizeLinear" or "Cast" not in found, node.name
        assert node.op_type != "Cast" or "DequantizeLinear" not in found, node.name
        if node.op_type == "DequantizeLinear":
            assert types[node.input[1]] == TensorProto.FLOAT16, node.name


def wrong(graph: onnx.ModelProto, options: HalfOptions) -> onnx.ModelProto:
    half = to_half(graph, options)
    half.graph.node[-1].output[0] = "wrong"
    half.graph.node.append(helper.make_node("Neg", ["wrong"], ["logits"], name="neg"))
    return half


def wrong_in_fp16(graph: onnx.ModelProto, options: HalfOptions) -> onnx.ModelProto:
    return (wrong if options.kind == "fp16" else to_half)(graph, options)


def test_a_precision_that_fails_its_gate_costs_the_others_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_checkpoint: Path, traced: None, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("mma_export.precision.write.to_half", wrong_in_fp16)
    words = ["--checkpoint", tiny_checkpoint, "--precision", "fp16", "bf16", "--gate-clips", 8, "--no-engine"]
    words = [str(word) for word in (*words, "--output", tmp_path / "b")]
    assert main(words) == ParityError.exit_code
    said = capsys.readouterr()
    assert "fp16, top-1 agreement 0.0% on 8 clips" in said.err and "--keep-going" in said.err
    assert said.err.count("\n") == 1 and "fp16: not written" in said.out and "bf16: 0." in said.out
    bundle = read_bundle(tmp_path / "b")
    assert bundle.precisions == ("fp32", "bf16") and not list(bundle.folder.glob("*fp16*"))
    assert main([*words, "--overwrite", "--keep-going"]) == 0
    assert "top-1 agreement 0.0%" in read_bundle(tmp_path / "b").manifest["precisions"]["fp16"]["failed"]


def test_bf16_that_openvino_rounds_too_much_is_there_for_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: Checkpoint, traced: None
) -> None:
    asked: list[HalfOptions] = []

    def choose(graph: onnx.ModelProto, options: HalfOptions) -> onnx.ModelProto:
        asked.append(options)
        return (wrong if options == as_openvino() else to_half)(graph, options)

    monkeypatch.setattr("mma_export.precision.write.to_half", choose)
    bundle = export(tiny, tmp_path / "b", "bf16", gate=GateOptions(count=8))
    assert as_openvino() in asked
    assert bundle.failed("bf16", "tensorrt") is None and "top-1" in bundle.failed("bf16", "openvino")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--precision", "fp4"], "fp4"),
        (["--precision", "fp16,int4"], "int4"),
        (["--clips", "a", "--data", "b"], "--clips and --data"),
        (["--gate-clips", "0"], "--gate-clips 0"),
    ],
)
def test_options_that_make_no_sense_are_one_line(argv: list[str], words: str, capsys: pytest.CaptureFixture) -> None:
    assert main(argv) == UsageError.exit_code
    assert words in failure_line(capsys)


def test_the_command_says_what_it_made_and_what_it_could_not(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tiny_checkpoint: Path,
    traced: None,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr("mma_edge.engines.tensorrt.build.build_plans", no_gpu)
    words = ["--checkpoint", tiny_checkpoint, "--precision", "fp16,bf16", "--gate-clips", 4, "--keep-going"]
    words += ["--output", tmp_path / "b", "--triton", tmp_path / "models"]
    assert main([str(word) for word in words]) == 0
    said = capsys.readouterr().out
    assert "no TensorRT engine of fp16, bf16: no GPU here" in said and "top1 agreement: 1" in said
    assert f"mma-edge run sample --bundle {tmp_path / 'b'}" in said
    assert (tmp_path / "models" / "tiny-fp16" / "1" / "model.onnx").is_file()


def no_gpu(*_: object, **__: object) -> Path:
    raise BackendError("no GPU here", hint="use a GPU")
