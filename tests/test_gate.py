"""What the gate judges with: sums that every processor shares, clips as hard as real ones, figures that chance moves
little.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_quantize import for_cpu, operators, symmetric_grids

from mma_edge.bundle import read_bundle
from mma_edge.engines import session
from mma_edge.engines.machine import may_saturate
from mma_edge.engines.session import open_session
from mma_export.precision.clips import RealClips, logits_of, made_clips, public_clips
from mma_export.precision.gate import MAX_UAR_LOSS, compare, expected_agreement
from mma_export.precision.grids import quantize_weights
from mma_export.precision.half import as_openvino, to_half
from mma_export.precision.int8 import quantize_static
from mma_export.precision.sites import find_sites, inputs_of, observe
from mma_trainer.labels import DFEW_LABELS


def product_of_integers(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """MatMulInteger of uint8 and int8 in a session as the engine and the gate open it."""
    zeros = [helper.make_tensor(name, kind, [], [0]) for name, kind in (("xz", 2), ("wz", 3))]
    node = helper.make_node("MatMulInteger", ["x", "w", "xz", "wz"], ["y"])
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "product",
        [value("x", TensorProto.UINT8, rows.shape)],
        [value("y", TensorProto.INT32, (len(rows), weights.shape[1]))],
        [numpy_helper.from_array(weights, "w"), *zeros],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return open_session(model.SerializeToString())[0].run(None, {"x": rows})[0]


def test_integer_products_do_not_saturate_on_any_processor() -> None:
    rows, weights = np.full((4, 64), 255, np.uint8), np.full((64, 32), 127, np.int8)
    assert (product_of_integers(rows, weights) == 64 * 255 * 127).all()  # two of its products exceed 16 bits


@pytest.mark.skipif(may_saturate(), reason="without VNNI there is one way only")
def test_a_processor_without_vnni_gives_the_same_answers(
    proto: onnx.ModelProto, clips: RealClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = for_cpu(proto, clips.spread(4))
    with_vnni = logits_of(graph, clips.spread(8))
    monkeypatch.setattr(session, "may_saturate", lambda: True)
    np.testing.assert_allclose(logits_of(graph, clips.spread(8)), with_vnni, atol=1e-5)


def test_bfloat16_around_integers_rounds_what_is_not_integer(
    proto: onnx.ModelProto, clips: RealClips, reference: np.ndarray
) -> None:
    sites = find_sites(proto)
    grids = symmetric_grids(observe(proto, inputs_of(sites), clips.spread(4)))
    graph = quantize_static(proto, sites, grids, quantize_weights(proto, sites))
    rounded = to_half(graph, as_openvino())
    assert operators(rounded)["Cast"] > operators(graph)["Cast"] + 10
    constants = [{t.name: t for t in one.graph.initializer} for one in (graph, rounded)]
    for node in rounded.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert all(constants[0][name] == constants[1][name] for name in node.input[1:])
        producers = {name: other.op_type for other in rounded.graph.node for name in other.output}
        if node.op_type == "MatMul" and "DequantizeLinear" in [producers.get(name) for name in node.input]:
            assert {producers.get(name) for name in node.input} == {"DequantizeLinear"}
    exact, near = (np.abs(logits_of(one, clips) - reference).mean() for one in (graph, rounded))
    assert exact != near < 0.3


def test_the_made_clips_show_many_faces_and_voices_and_lack_either() -> None:
    clips = made_clips(16, 60)
    faces, sounds = clips.frames.any(axis=(1, 2, 3, 4)), clips.mel.any(axis=(1, 2))
    assert {*zip(faces.tolist(), sounds.tolist(), strict=True)} == {(True, True), (True, False), (False, True)}
    seen = clips.frames[faces].reshape(faces.sum(), -1)
    heard = clips.mel[sounds].reshape(sounds.sum(), -1)
    for rows in (seen, heard):
        assert len(np.unique(rows, axis=0)) > 0.9 * len(rows)
    again = made_clips(16, 60)
    assert (again.frames == clips.frames).all() and (again.mel == clips.mel).all()
    calibration, gate = clips.halves()
    assert len(calibration) == len(gate) == 30


def test_the_expected_agreement_counts_every_error_against_every_margin() -> None:
    exact = np.array([[1.0, 0], [3, 0], [0, 5]], np.float32)
    assert expected_agreement(exact, exact) == 1
    other = exact.copy()
    other[2] = [1.5, 5]  # of nine pairs one turns the answer: this error at the first clip's margin
    assert compare(exact, other, made_up(3)).top1_agreement == 1
    assert expected_agreement(exact, other) == pytest.approx(8 / 9)
    assert "expected agreement 88.9% on 3 clips" in compare(exact, other, made_up(3)).problem("int8")
    assert expected_agreement(exact, np.full_like(exact, np.nan)) == 0


def made_up(count: int, labels: list[int] | None = None) -> RealClips:
    empty = np.zeros((count, 1))
    return RealClips(empty, empty, labels and np.array(labels), "made up")


def test_the_gate_judges_answers_not_only_numbers() -> None:
    exact = np.array([[2, 1], [2, 1], [1, 2], [1, 2]], np.float32)
    other = exact.copy()
    other[3] = [2.0, 1.9]
    clips = made_up(4, [0, 0, 1, 1])
    found = compare(exact, other, clips)
    assert (found.top1_agreement, found.uar_loss, found.uar_of_a_clip) == (0.75, 0.25, 0.25)
    assert "75.0%" in found.problem("int8") and found.problem("fp16")
    assert compare(exact, exact, clips).problem("fp16") is None
    assert compare(exact, np.full_like(exact, np.nan), clips).problem("int8")


def test_one_clip_on_the_border_does_not_decide_about_uar() -> None:
    exact = np.eye(2, dtype=np.float32)[[0] * 190 + [1] * 10]
    clips, lost = made_up(200, [0] * 190 + [1] * 10), exact.copy()
    lost[-1] = [1, 0]
    assert compare(exact, lost, clips).uar_loss > MAX_UAR_LOSS["int8"]
    assert compare(exact, lost, clips).problem("int8") is None
    lost[-2] = [1, 0]
    assert "UAR falls by 10.00 points" in compare(exact, lost, clips).problem("int8")
    assert dataclasses.replace(compare(exact, exact, clips), uar_loss=float("nan")).problem("int8")


def coarse(proto: onnx.ModelProto, levels: int) -> onnx.ModelProto:
    """A copy with all weights on one grid of so many levels per sign and tensor."""
    graph = onnx.ModelProto()
    graph.CopyFrom(proto)
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and values.ndim > 1 and values.size > 1000:
            step = np.abs(values).max().astype(np.float32) / levels
            on_grid = np.rint(values.astype(np.float32) / step) * step
            tensor.CopyFrom(numpy_helper.from_array(on_grid.astype(values.dtype), tensor.name))
    return graph


def test_made_clips_refuse_what_real_ones_refuse_or_the_next_coarser_one(shared_dir: Path) -> None:
    bundle = read_bundle()
    if bundle.labels != DFEW_LABELS:
        pytest.skip("the public sets have other classes than the default model")
    size, exact = bundle.image_size, onnx.load(bundle.graph("fp32"))
    sets = {
        "made": made_clips(size, 60),
        "real": public_clips(shared_dir / "data", size, DFEW_LABELS, 100),
    }
    expected = {name: logits_of(exact, clips) for name, clips in sets.items()}
    refused = dict.fromkeys(sets, 0)  # of graphs of ever fewer levels, the first that is refused
    for step, levels in enumerate((20, 14, 10, 7, 5), 1):
        graph = coarse(exact, levels)
        for name, clips in sets.items():
            if not refused[name] and compare(expected[name], logits_of(graph, clips), clips).problem("int8"):
                refused[name] = step
    assert refused["real"] and 1 <= refused["made"] <= refused["real"] + 1, refused
