"""`--streaming` on TensorRT: plans of the parts, built and judged together, or one line with the command that helps.

On a stand-in for TensorRT, cuda-python and the driver (fake_tensorrt.py): no GPU has run this code yet.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import fake_cudart
import fake_gpu
import fake_tensorrt
import numpy as np
import pytest
from conftest import failure_line, one_line
from streaming_bundle import SEEN, stream_clips

import mma_edge
from mma_edge import cli
from mma_edge.bundle import Bundle, read_bundle
from mma_edge.bundle.streaming import MODES
from mma_edge.engines.cpu import OnnxCpuPart
from mma_edge.engines.session import open_session
from mma_edge.engines.tensorrt import child as tensorrt_child
from mma_edge.engines.tensorrt import engine as tensorrt
from mma_edge.engines.tensorrt import gate as tensorrt_gate
from mma_edge.engines.tensorrt import session as tensorrt_session
from mma_edge.engines.tensorrt.build import build_plans, existing_plans
from mma_edge.engines.tensorrt.gate import gate_inputs, window_inputs
from mma_edge.engines.tensorrt.layers import layers_of
from mma_edge.engines.tensorrt.plan import Plan, make_sidecar, this_machine
from mma_edge.engines.tensorrt.target import BuildOptions, Target, targets_of
from mma_edge.errors import BackendError, BundleError, DataError, ParityError
from mma_edge.recognizer import Recognizer
from mma_edge.streaming import Streamer, StreamingGraphs, StreamingRecognizer, choose_mode, open_graphs
from mma_export.streaming.parts import part_file

CLIPS = stream_clips(9)
OPTIONS = BuildOptions(max_batch=2)


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu.into(monkeypatch)


@pytest.fixture(scope="module")
def built_folder(streaming_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the plans of the whole model and of both modes; tests copy it."""
    folder = Path(shutil.copytree(streaming_bundle.folder, tmp_path_factory.mktemp("built") / "bundle"))
    with pytest.MonkeyPatch.context() as patch:
        fake_gpu.into(patch)
        for mode in (None, *MODES):
            build_plans(targets_of(read_bundle(folder), "fp32", mode), lambda: CLIPS, OPTIONS)
    return folder


@pytest.fixture
def built(built_folder: Path, tmp_path: Path) -> Bundle:
    return read_bundle(shutil.copytree(built_folder, tmp_path / "built"))


@pytest.fixture
def unbuilt(streaming_bundle: Bundle, tmp_path: Path) -> Bundle:
    return read_bundle(shutil.copytree(streaming_bundle.folder, tmp_path / "unbuilt"))


def remove(bundle: Bundle, mode: str) -> None:
    for target in targets_of(bundle, "fp32", mode):
        target.plan.unlink()


def change(target: Target, edit: Callable[[dict], object]) -> None:
    sidecar = json.loads(target.sidecar.read_text())
    edit(sidecar)
    target.sidecar.write_text(json.dumps(sidecar))


@pytest.mark.parametrize("mode", MODES)
def test_several_faces_stream_as_on_the_cpu(built: Bundle, mode: str) -> None:
    on_gpu, on_cpu = (
        StreamingRecognizer(mma_edge.load(built.folder, name, "fp32"), mode, 0.0) for name in ("tensorrt", "cpu")
    )
    tracks = [stream_clips(5, track=number, seed=number) for number in range(3)]  # the plans take two at once
    for clips in zip(*tracks, strict=True):
        got, expected = (who.predict_clips(clips) for who in (on_gpu, on_cpu))
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-4)
    assert on_gpu.stats == on_cpu.stats
    # Two faces, then one, with 16 frames and later with 2, of each: captured once, then launched.
    graphs = on_gpu.streamer.graphs
    stem, rest = graphs._stem, graphs._rest
    sizes = [dict(known) for known in rest._runner.session._graphs]
    assert {known["N"] for known in sizes} == {1, 2}
    if mode == "rolling":
        assert {(known["N"], known["M"]) for known in sizes} == {(2, 32), (1, 16), (2, 4), (1, 2)}
    profiles = {dict(known).get("N"): one._profile for known, one in rest._runner.session._contexts.items()}
    assert profiles == {1: 1, 2: 0}
    assert stem.frame_counts == (1, 2, 4, 8, 16, 32)
    for part in filter(None, (stem, rest, graphs._seeing)):
        part.close()
    on_gpu.recognizer.engine.close()
    assert fake_cudart.LIVE == {}


def test_the_sound_is_kept_on_the_gpu_as_on_the_cpu(built: Bundle) -> None:
    on_gpu, on_cpu = (
        Streamer(open_graphs(built, "rolling", name, "fp32")[0], "rolling", sound_age_s=1.0, clear=0.0)
        for name in ("tensorrt", "cpu")
    )
    for clips in zip(*(stream_clips(5, track=number, seed=number) for number in range(3)), strict=True):
        np.testing.assert_allclose(on_gpu(clips), on_cpu(clips), atol=1e-4)
    assert on_gpu.stats == on_cpu.stats and on_gpu.stats.sounds == 2 * 3
    assert {known["N"] for known in map(dict, on_gpu.graphs._seeing._runner.session._graphs)} == {1, 2}


def test_what_is_kept_ready_is_bounded(built: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_session, "MAX_CONTEXTS", 2)
    graphs, _ = open_graphs(built, "rolling", "tensorrt", "fp32")
    frames = CLIPS[0].frames
    first = graphs.stem(frames[:1])
    for count in (2, 4, 8):
        graphs.stem(frames[:count])
    held = graphs._stem._runner.session
    assert len(held._contexts) == len(held._graphs) == 2
    np.testing.assert_array_equal(graphs.stem(frames[:1]), first)
    del graphs, held
    gc.collect()
    assert fake_cudart.LIVE == {}


def test_the_sidecars_tell_that_the_parts_were_judged_together(built: Bundle) -> None:
    stem, rest, seeing = targets_of(built, "fp32", "rolling")
    sidecars = [json.loads(target.sidecar.read_text()) for target in (stem, rest, seeing)]
    assert stem.plan.name == "fp32.rolling.stem.plan" and rest.plan.name == "fp32.rolling.rest.plan"
    assert seeing.plan.name == "fp32.rolling.seeing.plan"
    assert sidecars[0]["gate"] == sidecars[1]["gate"] == sidecars[2]["gate"]
    gate = sidecars[0]["gate"]
    assert gate["plans"] == [sidecar["plan_sha256"] for sidecar in sidecars]
    assert gate["clips"] == 24 and gate["max_difference"] < 1e-3 and gate["reference"].startswith("fp32 parts on")
    assert gate["device_ms_per_clip"] == 5.0  # stem and rest, 2.5 ms each
    assert [profile["tokens"][1][0] for profile in sidecars[1]["profiles"]] == [4, 2]  # two new frames of each face
    assert [profile["mel"][2][0] for profile in sidecars[1]["profiles"]] == [2, 1]
    assert [profile["heard"][2][0] for profile in sidecars[2]["profiles"]] == [2, 1]
    assert [profile["frames"][2][0] for profile in sidecars[0]["profiles"]] == [32, 16]
    assert sidecars[0]["onnx_sha256"] == built.part_sha256("streaming.stem.onnx")
    assert rest.layers.is_file() and layers_of(rest).attentions > 0


@pytest.mark.parametrize(
    ("change_one", "said"),
    [
        pytest.param(lambda target: target.plan.unlink(), "has no TensorRT engine for fp32 in --streaming", id="none"),
        pytest.param(lambda target: change(target, lambda s: s.update(gpu="Thor")), "GPU Thor, here Orin", id="GPU"),
        pytest.param(
            lambda target: change(target, lambda s: s.update(onnx_sha256="0" * 64)), "the ONNX graph 0000", id="graph"
        ),
        pytest.param(
            lambda target: change(target, lambda s: s["gate"].update(plans=["0", "1"])), "of two builds", id="pair"
        ),
        pytest.param(lambda target: target.plan.write_bytes(b"other"), "SHA-256 differs", id="plan"),
    ],
)
@pytest.mark.parametrize("part", [0, 1, 2])
def test_parts_that_do_not_fit_are_one_line_with_the_command(
    built: Bundle, part: int, change_one: Callable[[Target], object], said: str
) -> None:
    change_one(targets_of(built, "fp32", "rolling")[part])
    with pytest.raises((BackendError, BundleError)) as error:
        open_graphs(built, "rolling", "tensorrt", "fp32")
    assert said in one_line(error.value)
    assert f"mma-edge build {built.folder} --precision fp32 --streaming rolling" in str(error.value)
    open_graphs(built, "exact", "tensorrt", "fp32")  # of other plans


def test_run_names_the_missing_build(built: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    remove(built, "rolling")
    argv = ["run", "sample", "--bundle", str(built.folder), "--backend", "tensorrt", "--streaming", "rolling"]
    assert cli.main(argv) == BackendError.exit_code
    line = failure_line(capsys)
    assert "in --streaming rolling" in line and "--precision fp32 --streaming rolling" in line


def test_auto_takes_the_mode_that_was_built_with_the_backend(built: Bundle) -> None:
    recognizer, notes = Recognizer.open(built.folder, "auto", None, "auto"), []
    assert recognizer.backend == "tensorrt"
    assert choose_mode(recognizer, "auto", notes.append) == "rolling" and notes == []
    remove(built, "rolling")
    assert choose_mode(recognizer, "auto", notes.append) == "exact"
    assert "in mode exact" in notes[0] and "mma-edge build" in notes[0] and "--streaming rolling" in notes[0]
    assert tensorrt.usable(built, "rolling") == () and tensorrt.usable(built, "exact") == ("fp32",)
    remove(built, "exact")
    assert choose_mode(recognizer, "auto", notes.append) is None
    elsewhere = Recognizer.open(built.folder, "auto", None, "rolling")  # whoever can
    assert elsewhere.backend != "tensorrt" and any("--streaming rolling" in note for note in elsewhere.engine.notes)


def build(bundle: Bundle, mode: str | None = "rolling", **options: object) -> None:
    build_plans(targets_of(bundle, "fp32", mode), lambda: CLIPS, BuildOptions(**options))


@pytest.mark.parametrize("mode", [None, "rolling"])
def test_attention_that_is_fused_wrongly_is_refused_and_comes_right_unfused(
    unbuilt: Bundle, monkeypatch: pytest.MonkeyPatch, mode: str | None
) -> None:
    monkeypatch.setenv("FAKE_TRT", "fusion=0.5")
    targets = targets_of(unbuilt, "fp32", mode)
    with pytest.raises(ParityError) as error:
        build(unbuilt, mode, max_batch=1)
    assert f"build it with attention unfused: {targets[0].command} --unfused" in one_line(error.value)
    assert list((unbuilt.folder / "engines").iterdir()) == []
    build(unbuilt, mode, max_batch=1, unfused=True)
    for target in targets:
        assert json.loads(target.sidecar.read_text())["builder"]["unfused"] is True
        assert layers_of(target).fused == 0 < layers_of(target).attentions
    assert existing_plans(targets, BuildOptions(max_batch=1, unfused=True))
    assert existing_plans(targets, BuildOptions(max_batch=1)) is None  # fused, as asked: built again
    if mode is None:
        assert "attention not fused" in tensorrt.open_engine(unbuilt, "fp32").details


def test_an_engine_that_is_wrong_without_fusion_names_no_way_that_was_taken(
    unbuilt: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_TRT", "perturb=0.5")
    with pytest.raises(ParityError) as error:
        build(unbuilt, max_batch=1, unfused=True)
    assert "--unfused" not in one_line(error.value) and "another --precision" in str(error.value)
    monkeypatch.setenv("FAKE_TRT", "no-mark")
    with pytest.raises(BackendError, match="does not keep"):
        build(unbuilt, max_batch=1, unfused=True)


def test_the_command_builds_the_parts_with_the_whole(
    unbuilt: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mma_edge.commands.setup.build.gate_clips", lambda bundle, mode=None: CLIPS)
    argv = ["build", str(unbuilt.folder), "--max-batch", "1", "--streaming", "auto", "--unfused"]
    assert cli.main([*argv, "--inspect"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for name in ("fp32.plan", "fp32.rolling.stem.plan", "fp32.rolling.rest.plan", "fp32.rolling.seeing.plan"):
        assert name in said
    assert "5.00 ms per update of stem and rest on the GPU" in said and "attention fused in 0 of" in said
    assert "--markDebug=" in said and "--minShapes=tokens:1x" in said and "exact" not in said
    assert cli.main(argv) == 0
    assert capsys.readouterr().out.count("--overwrite builds it again") == 4
    assert cli.main(["info", str(unbuilt.folder)]) == 0
    assert "fp32 --streaming rolling (for this device)" in " ".join(capsys.readouterr().out.split())
    assert cli.main([*argv[:-2], "both"]) == 2
    assert "--streaming both" in failure_line(capsys)


def test_a_bundle_without_parts_is_told_before_anything_is_built(
    bundle_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["build", str(bundle_copy), "--streaming", "auto"]) == BundleError.exit_code
    assert "mma-export --streaming" in failure_line(capsys)
    assert not (bundle_copy / "engines").exists()


def test_too_few_windows_are_one_line() -> None:
    with pytest.raises(DataError, match="8 windows of a face"):
        window_inputs(SEEN)


def compiled(target: Target) -> Plan:
    """A plan of the stand-in's, not gated."""
    target.plan.parent.mkdir(exist_ok=True)
    options = BuildOptions(max_batch=2, workspace_mib=1)
    target.plan.write_bytes(tensorrt_child.compile_plan(fake_tensorrt, target, options, lambda message: None))
    sidecar = make_sidecar(target, this_machine(fake_tensorrt), target.plan, options, {})
    return Plan(target, target.plan, target.plan.read_bytes(), options.max_batch, sidecar)


@pytest.fixture
def on_ada(eight_bits: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle with int8, whose weights lie in another file, and fp8, beside a GPU that computes both."""
    monkeypatch.setenv("FAKE_DEVICE", "Ada 8 9")
    return read_bundle(shutil.copytree(eight_bits.folder, tmp_path / "eight"))


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_plans_in_eight_bits_compute_what_their_graphs_say(
    on_ada: Bundle, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    (target,) = targets_of(on_ada, precision)
    assert target.graph.name == {"int8": "model.int8-tensorrt.onnx", "fp8": "model.fp8.onnx"}[precision]
    engine, inputs = tensorrt.TensorRTEngine(compiled(target)), gate_inputs(CLIPS)
    session, _ = open_session(target.graph, optimized=False)
    # Not a bit more: whichever batch it is computed in, a number may fall on either side of a step of the grid.
    np.testing.assert_allclose(engine(**inputs), session.run(["logits"], inputs)[0], atol=0.05)
    monkeypatch.setitem(tensorrt_gate.MIN_TOP1_AGREEMENT, precision, 0.5)  # the grids are those of noise
    figures = tensorrt_gate.check_engine(target, engine, inputs, OPTIONS)
    assert 1e-4 < figures["max_difference"] < 1  # it rounds, and no more than that
    monkeypatch.setenv("FAKE_TRT", "perturb=5")
    with pytest.raises(ParityError, match=f"the TensorRT engine for {precision}"):
        tensorrt_gate.check_engine(target, tensorrt.TensorRTEngine(compiled(target)), inputs, OPTIONS)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_parts_in_eight_bits_stream_as_their_graphs_do(on_ada: Bundle, precision: str, mode: str) -> None:
    targets = targets_of(on_ada, precision, mode)
    assert targets[1].graph.name == part_file(mode, "int8-tensorrt" if precision == "int8" else precision)
    on_gpu = Streamer(StreamingGraphs(*(tensorrt.TensorRTPart(compiled(target)) for target in targets)), mode)
    on_cpu = Streamer(StreamingGraphs(*(OnnxCpuPart(target.graph, optimized=False) for target in targets)), mode)
    for clip in CLIPS[:3]:
        np.testing.assert_allclose(on_gpu([clip]), on_cpu([clip]), atol=0.05)


def test_weights_that_are_not_beside_the_graph_are_one_line(on_ada: Bundle) -> None:
    (target,) = targets_of(on_ada, "int8")
    (on_ada.folder / "model.int8.onnx").unlink()
    with pytest.raises(BundleError) as error:
        tensorrt_child.compile_plan(fake_tensorrt, target, BuildOptions(workspace_mib=1), lambda message: None)
    assert "cannot read" in one_line(error.value) and "model.int8.onnx" in str(error.value)


def test_what_the_gpu_does_not_compute_is_refused_before_anything_is_built(
    on_ada: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_DEVICE", "Orin 8 7")
    argv = ["build", str(on_ada.folder), "--precision", "fp8", "--streaming", "exact"]
    assert cli.main(argv) == BackendError.exit_code
    assert "Orin has compute capability 8.7; fp8 needs 8.9" in failure_line(capsys)
    assert not (on_ada.folder / "engines").exists()
