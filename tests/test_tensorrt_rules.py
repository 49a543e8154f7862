"""No graph is exported that TensorRT refuses, and one that it would refuse is named before anything is built."""

from __future__ import annotations

from pathlib import Path

import fake_gpu
import fake_tensorrt
import numpy as np
import onnx
import pytest
from conftest import make_model, one_line
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from mma_edge import cli
from mma_edge.bundle import DEFAULT_BUNDLE, Bundle, read_bundle, sha256
from mma_edge.bundle.manifest import REEXPORT, read_manifest, write_signed
from mma_edge.engines.tensorrt import child as tensorrt_child
from mma_edge.engines.tensorrt.onnx_file import TYPES, read_graph, whole_kernels
from mma_edge.engines.tensorrt.plan import MIN_TENSORRT
from mma_edge.engines.tensorrt.rules import broken_rules, require_rules
from mma_edge.engines.tensorrt.target import BuildOptions, Target
from mma_edge.errors import BundleError, ParityError
from mma_export.graph import check_for_tensorrt, check_graph, save_graph, trace
from mma_export.precision.clips import RealClips
from mma_export.precision.grids import quantize_weights, symmetric_grid
from mma_export.precision.half import options_of, to_half
from mma_export.precision.int8 import quantize_static
from mma_export.precision.sites import find_sites, inputs_of, observe
from mma_trainer.model import MMADFER

U8, F16, F32, F64 = TensorProto.UINT8, TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE


def graph_of(
    *nodes: onnx.NodeProto, reads: int = U8, makes: int = F32, opset: int = 18, **constants: np.ndarray
) -> onnx.ModelProto:
    """A graph from x (2, 3) to y; its nodes are named after their first outputs."""
    for node in nodes:
        node.name = node.output[0]
    x, y = (helper.make_tensor_value_info(name, kind, None) for name, kind in (("x", reads), ("y", makes)))
    weights = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(helper.make_graph(list(nodes), "g", [x], [y], weights), opset_imports=opsets)


def broken(tmp_path: Path, graph: onnx.ModelProto, version: tuple[int, int] = MIN_TENSORRT) -> list[str]:
    """What TensorRT of a version refuses of a graph."""
    (tmp_path / "g.onnx").write_bytes(graph.SerializeToString())
    return [str(rule) for rule in broken_rules(read_graph(tmp_path / "g.onnx"), version)]


node, cast = helper.make_node, helper.make_node("Cast", ["x"], ["float"], to=F32)
OLD_DEFECT = graph_of(node("Transpose", ["x"], ["turned"], perm=[1, 0]), node("Cast", ["turned"], ["y"], to=F32))
ZERO, ONE, SCALE = np.zeros((), np.int8), np.ones((), np.int8), np.ones((), np.float32)
KERNEL = np.ones((1, 1, 1), np.float16)


def test_the_reader_sees_what_onnx_sees(streaming_bundle: Bundle) -> None:
    for path in streaming_bundle.folder.glob("*.onnx"):
        model, graph = onnx.load(str(path), load_external_data=False), read_graph(path)
        assert graph.opset == model.opset_import[0].version == 18
        expected = [(n.name, n.op_type, tuple(n.input), tuple(n.output)) for n in model.graph.node]
        assert [(n.name, n.op_type, n.inputs, n.outputs) for n in graph.nodes] == expected and expected
        types = {t.name: TYPES[t.data_type] for t in model.graph.initializer}
        assert {name: constant.type for name, constant in graph.constants.items()} == types
        inputs = {value.name: TYPES[value.type.tensor_type.elem_type] for value in model.graph.input}
        assert (graph.inputs, graph.outputs) == (inputs, tuple(value.name for value in model.graph.output))
    assert all(name.lower() == TYPES[number] for name, number in TensorProto.DataType.items() if number in TYPES)


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x3a\xff\xff\xff\xff\x0f", b"\x3a\x02\x0a\x7f"])
def test_what_is_no_onnx_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "g.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"g\.onnx is not an ONNX graph"):
        require_rules(tmp_path / "g.onnx", MIN_TENSORRT, REEXPORT)


def test_every_exported_graph_keeps_the_rules(
    streaming_bundle: Bundle, proto: onnx.ModelProto, clips: RealClips, tmp_path: Path
) -> None:
    sites = find_sites(proto)
    ranges = observe(proto, inputs_of(sites), clips.spread(2))
    grids = {name: symmetric_grid(seen) for name, seen in ranges.items()}
    int8 = quantize_static(proto, sites, grids, quantize_weights(proto, sites))
    onnx.save(int8, str(tmp_path / "int8.onnx"))
    for kind in ("fp16", "bf16"):
        for softmax_half in (False, True):
            save_graph(to_half(proto, options_of(kind, softmax_half)), tmp_path / f"{kind}-{softmax_half}.onnx")
    paths = [*tmp_path.glob("*.onnx"), *streaming_bundle.folder.glob("*.onnx")]
    assert len(paths) == 1 + 4 + 5
    for path in paths:
        check_for_tensorrt(path)
        graph = read_graph(path)
        readers = [node.op_type for node in graph.nodes if "frames" in node.inputs]
        assert set(readers) == ({"Cast"} if "frames" in graph.inputs else set()), path.name


def test_tensorrt_is_handed_kernels_in_float32_that_the_file_has_in_float16(
    tiny_model: MMADFER, tmp_path: Path
) -> None:
    other = {"image_stem": (), "image_patch": 16, "image_norm": "frame", "audio_norm": "clip"}
    whole = trace(make_model(tiny_model.config.replace(**other)).half().float())
    save_graph(whole, tmp_path / "g.onnx")
    stored = read_graph(tmp_path / "g.onnx")
    assert [str(rule) for rule in broken_rules(stored, MIN_TENSORRT) if "which Cast makes" in str(rule)]
    check_for_tensorrt(tmp_path / "g.onnx")
    handed = onnx.load_from_string(whole_kernels(tmp_path / "g.onnx"))
    onnx.checker.check_model(handed, full_check=True)
    (tmp_path / "handed.onnx").write_bytes(handed.SerializeToString())
    read = read_graph(tmp_path / "handed.onnx")
    assert list(broken_rules(read, MIN_TENSORRT)) == []
    expanded = stored.with_whole_kernels()
    assert expanded.nodes == read.nodes
    assert {name: c.type for name, c in expanded.constants.items()} == {n: c.type for n, c in read.constants.items()}
    kernels = {node.input[1] for node in whole.graph.node if node.op_type == "Conv"}
    before, after = (
        {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer if t.name in kernels}
        for graph in (whole, handed)
    )
    assert before.keys() == after.keys() == kernels
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values, strict=True)
    assert whole_kernels(tmp_path / "handed.onnx") is None


def test_kernels_that_lie_in_another_file_are_found_there(tmp_path: Path) -> None:
    """The parts for streaming have their weights in the whole graph's file."""
    kernel = np.arange(300, dtype=np.float16).reshape(3, 1, 10, 10)
    graph = graph_of(node("Cast", ["k"], ["kernel"], to=F32), node("Conv", ["x", "kernel"], ["y"]), reads=F32, k=kernel)
    (tmp_path / "whole.onnx").write_bytes(b"before" + kernel.tobytes())
    tensor = graph.graph.initializer[0]
    set_external_data(tensor, "whole.onnx", offset=6, length=kernel.nbytes)
    tensor.ClearField("raw_data")
    (tmp_path / "g.onnx").write_bytes(graph.SerializeToString())
    handed = onnx.load_from_string(whole_kernels(tmp_path / "g.onnx"))
    assert [node.op_type for node in handed.graph.node] == ["Conv"]
    np.testing.assert_array_equal(
        numpy_helper.to_array(handed.graph.initializer[0]), kernel.astype(np.float32), strict=True
    )


def test_the_embedded_bundle_keeps_the_rules_and_has_a_digest() -> None:
    for path in DEFAULT_BUNDLE.glob("*.onnx"):
        require_rules(path, MIN_TENSORRT, REEXPORT)
    assert read_bundle().notes == ()


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        pytest.param(OLD_DEFECT, "node turned (Transpose) reads x, which is uint8", id="the old defect"),
        pytest.param(
            graph_of(node("Shape", ["x"], ["y"]), makes=TensorProto.INT64),
            "node y (Shape) reads x",
            id="Shape of uint8",
        ),
        pytest.param(
            graph_of(node("Cast", ["x"], ["small"], to=U8), node("Cast", ["small"], ["y"], to=F32), reads=F32),
            "node small (Cast) makes small, which is uint8",
            id="uint8 in between",
        ),
        pytest.param(
            graph_of(node("Erf", ["x"], ["y"]), reads=F64, makes=F64),
            "node y (Erf) reads x of type double: float, float16, bfloat16 are taken",
            id="a type that the operator lacks",
        ),
        pytest.param(
            graph_of(node("Cast", ["x"], ["y"], to=F64), makes=F64), "casts to double", id="a type for no one"
        ),
        pytest.param(
            graph_of(node("QuantizeLinear", ["x", "s"], ["y"]), reads=F32, makes=U8, opset=21, s=SCALE),
            "it has opset 21, and opsets 9 to 20 are taken",
            id="too new an opset",
        ),
        pytest.param(graph_of(cast, node("Einsum", ["float"], ["y"], equation="ij->ji")), "(Einsum)", id="an operator"),
        pytest.param(
            graph_of(cast, node("Gelu", ["float"], ["y"], domain="com.microsoft")),
            "node y (com.microsoft::Gelu) is an operator that is not known to be supported",
            id="an operator of others",
        ),
        pytest.param(
            graph_of(node("Attention", ["x", "x", "x"], ["y"]), reads=F16, makes=F16, opset=20),
            "not known to be supported before TensorRT 10.14",
            id="an operator of later versions",
        ),
        pytest.param(
            graph_of(
                node("Cast", ["k"], ["kernel"], to=F32), node("Conv", ["x", "kernel"], ["y"]), reads=F32, k=KERNEL
            ),
            "node y (Conv) reads kernel, which Cast makes: it must be a constant",
            id="a kernel behind a Cast",
        ),
        pytest.param(
            graph_of(node("ReduceMean", ["x", "x"], ["y"]), reads=F32), "reads x, which an input makes", id="axes"
        ),
        pytest.param(
            graph_of(
                node("QuantizeLinear", ["x", "s", "z"], ["q"]),
                node("DequantizeLinear", ["q", "s", "z"], ["y"]),
                reads=F32,
                s=SCALE,
                z=ONE,
            ),
            "node q (QuantizeLinear) has the zero point z: it must be the constant 0",
            id="a zero point",
        ),
        pytest.param(
            graph_of(node("LayerNormalization", ["x", "s"], ["y", "mean"]), reads=F32, s=np.ones(3, np.float32)),
            "node y (LayerNormalization) has more than one output",
            id="a second output",
        ),
    ],
)
def test_a_broken_rule_is_named_with_its_node(tmp_path: Path, graph: onnx.ModelProto, said: str) -> None:
    assert any(said in rule for rule in broken(tmp_path, graph)), broken(tmp_path, graph)


def test_what_tensorrt_takes_breaks_no_rule(tmp_path: Path) -> None:
    parts = {"s": SCALE, "z": ZERO, "k": KERNEL.astype(np.int8)}
    quantized = [
        cast,
        node("QuantizeLinear", ["float", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["dq"]),
        node("DequantizeLinear", ["k", "s", "z"], ["kernel"]),
        node("Conv", ["dq", "kernel"], ["y"]),
    ]
    assert broken(tmp_path, graph_of(*quantized, **parts)) == []
    assert broken(tmp_path, graph_of(node("Cast", ["x"], ["y"], to=U8), reads=F32, makes=U8)) == []  # uint8 comes out
    attention = graph_of(node("Attention", ["x", "x", "x"], ["y"]), reads=F16, makes=F16, opset=23)
    newest = [
        version for version in ((10, 3), (10, 13), (10, 14), (11, 4)) if broken(tmp_path, attention, version) == []
    ]
    assert newest == [(10, 14), (11, 4)]


def defective(bundle: Path) -> Bundle:
    """The bundle with the graph of the old defect, its hashes right."""
    onnx.save(OLD_DEFECT, str(bundle / "model.fp32.onnx"))
    manifest = read_manifest(bundle)
    manifest["files"]["model.fp32.onnx"] = sha256(bundle / "model.fp32.onnx")
    write_signed(bundle / "manifest.json", manifest)
    return read_bundle(bundle)


def test_the_export_refuses_and_names_the_oldest_version(
    tiny_bundle: Path, tiny_model: MMADFER, tmp_path: Path
) -> None:
    model = onnx.load(str(tiny_bundle / "model.fp32.onnx"))
    next(node for node in model.graph.node if "frames" in node.input).input[0] = "turned"
    model.graph.node.insert(0, node("Transpose", ["frames"], ["turned"], name="turn", perm=range(5)))
    onnx.save(model, str(tmp_path / "g.onnx"))
    with pytest.raises(ParityError) as error:
        check_graph(tmp_path / "g.onnx", tiny_model)
    text = one_line(error.value)
    assert "TensorRT 10.3 does not take" in text and "node turn (Transpose) reads frames, which is uint8" in text


def test_a_build_refuses_before_any_work(
    bundle_copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    fake_gpu.into(monkeypatch)
    monkeypatch.setattr("mma_edge.engines.tensorrt.build.CHILD", ("/nowhere",))
    defective(bundle_copy)
    assert cli.main(["build", str(bundle_copy), "--precision", "fp32"]) == BundleError.exit_code
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "TensorRT 10.13 does not take" in error and "mma-export" in error
    assert "node turned (Transpose) reads x, which is uint8" in error
    assert not (bundle_copy / "engines").exists()


def test_the_stand_in_for_tensorrt_refuses_what_the_rules_refuse(
    bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_gpu.into(monkeypatch)
    options = BuildOptions(max_batch=1, workspace_mib=1)
    with pytest.raises(BundleError, match=r"TensorRT 10\.13\.3\.9 cannot read .*: node turned \(Transpose\): reads x"):
        target = Target(defective(bundle_copy), "fp32")
        tensorrt_child.compile_plan(fake_tensorrt, target, options, lambda message: None)
