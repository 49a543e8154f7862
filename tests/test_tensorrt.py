"""`mma-edge build` leaves an engine that computes what the bundle computes, or nothing and one line.

On a stand-in for TensorRT, cuda-python and the driver (fake_tensorrt.py): no GPU has run this code yet.
"""

from __future__ import annotations

import gc
import json
import shutil
from pathlib import Path

import fake_cudart
import fake_gpu
import fake_tensorrt
import numpy as np
import pytest
from conftest import one_line
from fake_nvpmodel import fake_nvpmodel

import mma_edge
from mma_edge.bundle import Bundle, golden_inputs, read_bundle
from mma_edge.commands.setup.build import gate_clips
from mma_edge.engines import machine as cuda_driver
from mma_edge.engines.cpu import OnnxCpuEngine
from mma_edge.engines.tensorrt import build as tensorrt_build
from mma_edge.engines.tensorrt import engine as tensorrt
from mma_edge.engines.tensorrt import plan as tensorrt_plan
from mma_edge.engines.tensorrt.target import BuildOptions, Target, targets_of
from mma_edge.errors import BackendError, BundleError


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu.into(monkeypatch)


@pytest.fixture(scope="module")
def built_folder(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a plan, built through the whole chain; tests copy it."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("built") / "bundle"))
    said: list[dict] = []
    with pytest.MonkeyPatch.context() as patch:
        fake_gpu.into(patch)
        bundle = read_bundle(folder)
        tensorrt_build.build_plans(
            targets_of(bundle, "fp32"), lambda: gate_clips(bundle), BuildOptions(max_batch=3), said.append
        )
    (folder.parent / "said.json").write_text(json.dumps(said))
    return folder


@pytest.fixture
def built(built_folder: Path, tmp_path: Path) -> Bundle:
    return read_bundle(shutil.copytree(built_folder, tmp_path / "built"))


def clips(count: int) -> tuple[np.ndarray, np.ndarray]:
    return golden_inputs(11, 16, count)


def open_fp32(bundle: Bundle) -> tensorrt.TensorRTEngine:
    return tensorrt.open_engine(bundle, "fp32")


def files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "engines").iterdir()}


def test_a_built_engine_answers_as_the_bundle_does(built: Bundle) -> None:
    recognizer = mma_edge.load(built.folder, "tensorrt", "fp32")
    frames, mel = clips(2)
    expected = mma_edge.load(built.folder, "cpu", "fp32").predict(frames, mel)
    np.testing.assert_allclose(recognizer.predict(frames, mel), expected, atol=1e-5)
    assert recognizer.backend == "tensorrt"
    assert "TensorRT 10.13.3.9 on Orin, cuda-python" in recognizer.engine.details


def test_each_batch_runs_in_the_profile_that_is_tuned_for_its_size(built: Bundle) -> None:
    engine = open_fp32(built)
    for count in (3, 1, 2):
        engine(*clips(count))
    contexts = engine._runner.session._contexts
    assert {dict(sizes)["N"]: context._profile for sizes, context in contexts.items()} == {1: 1, 2: 0, 3: 0}
    largest = [profile["mel"][2][0] for profile in Target(built, "fp32").profiles(20)]
    assert largest == [20, 16, 4, 1]
    assert [len(Target(built, "fp32").profiles(count)) for count in (1, 4, 16)] == [1, 2, 3]


def test_auto_takes_tensorrt_where_a_plan_of_this_device_is(built: Bundle) -> None:
    assert mma_edge.load(built.folder).backend == "tensorrt"


def test_auto_says_how_to_get_tensorrt_where_it_has_no_plan(tiny_bundle: Path) -> None:
    recognizer = mma_edge.load(tiny_bundle)
    assert recognizer.backend != "tensorrt"
    assert any("mma-edge build" in note for note in recognizer.engine.notes)


def test_nothing_but_the_plan_its_sidecar_and_the_timings_is_left(built: Bundle) -> None:
    assert files(built.folder) == {"fp32.plan", "fp32.json", "fp32.layers.json"}
    assert Target(built, "fp32").plan.read_bytes().startswith(fake_tensorrt.MAGIC)  # nothing prefixed


def test_the_sidecar_tells_all_that_the_plan_depends_on(built: Bundle) -> None:
    sidecar = json.loads(Target(built, "fp32").sidecar.read_text())
    assert sidecar["onnx_sha256"] == built.manifest["files"]["model.fp32.onnx"]
    assert sidecar["plan_sha256"] == tensorrt_plan.sha256(Target(built, "fp32").plan)
    assert (sidecar["tensorrt"], sidecar["gpu"], sidecar["compute_capability"]) == ("10.13.3.9", "Orin", "8.7")
    assert (sidecar["cuda"], sidecar["platform"]) == ("12.6", cuda_driver.platform_name())
    assert sidecar["builder"]["max_batch"] == 3
    shapes = [profile["frames"] for profile in sidecar["profiles"]]
    assert shapes == [[[count, 16, 16, 16, 3] for count in (1, largest, largest)] for largest in (3, 1)]
    assert sidecar["gate"]["clips"] >= 12 and sidecar["gate"]["max_difference"] < 1e-2


def test_a_build_tells_what_it_is_doing(built_folder: Path) -> None:
    phases = [message["phase"] for message in json.loads((built_folder.parent / "said.json").read_text())]
    assert list(dict.fromkeys(phases)) == ["parse", "Building Engine", "gate"]


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        pytest.param("tensorrt", "10.3.0", "TensorRT 10.3.0, here 10.13.3.9", id="TensorRT"),
        pytest.param("gpu", "Thor", "GPU Thor, here Orin", id="GPU"),
        pytest.param("compute_capability", "11.0", "compute capability 11.0, here 8.7", id="capability"),
        pytest.param("platform", "linux-riscv", "platform linux-riscv, here", id="platform"),
        pytest.param("precision", "fp16", "precision fp16, here fp32", id="precision"),
        pytest.param("onnx_sha256", "0" * 64, "the ONNX graph 000000000000, here", id="graph"),
        pytest.param("profiles", [{"frames": []}], "profiles", id="profiles"),
        pytest.param("builder", {"max_batch": 3, "strongly_typed": True, "tf32": True}, "option tf32", id="tf32"),
        pytest.param("plan_sha256", "0" * 64, "SHA-256 differs", id="plan"),
    ],
)
def test_a_plan_built_for_anything_else_is_refused_by_name(
    built: Bundle, field: str, value: object, named: str
) -> None:
    path = Target(built, "fp32").sidecar
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises((BackendError, BundleError)) as error:
        open_fp32(built)
    assert named in one_line(error.value)
    assert f"mma-edge build {built.folder} --precision fp32" in str(error.value)
    if field != "plan_sha256":
        assert tensorrt.usable(built) == ()


def test_a_plan_survives_an_update_of_the_driver_with_a_note(built: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_fp32(built).notes == ()
    monkeypatch.setenv("FAKE_CUDA", "13 0")
    assert tensorrt.usable(built) == ("fp32",)
    recognizer = mma_edge.load(built.folder, "tensorrt", "fp32")
    (note,) = recognizer.notes
    assert "a driver for CUDA 12.6 and runs with one for 13.0" in note
    assert f"mma-edge build {built.folder} --precision fp32 --overwrite" in note


def test_a_plan_of_another_power_mode_is_loaded_with_a_note(
    built: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    target = Target(built, "fp32")
    path = target.sidecar
    sidecar = json.loads(path.read_text())
    assert sidecar["power"] is None  # built where there is no nvpmodel: nothing to compare
    fake_nvpmodel(tmp_path, monkeypatch, "NV Power Mode: 15W\n2")
    assert open_fp32(built).notes == ()
    machine = tensorrt_plan.Machine(*(sidecar[key] for key in tensorrt_plan.Machine.__dataclass_fields__))
    again = tensorrt_plan.make_sidecar(target, machine, target.plan, BuildOptions(3), {})
    assert again["power"]["mode"] == "15W"
    path.write_text(json.dumps(again))
    assert open_fp32(built).notes == ()
    assert tensorrt_plan.timings_path(built, machine).name == "Orin-8.7-15W.timings"
    fake_nvpmodel(tmp_path, monkeypatch, "NV Power Mode: MAXN\n0")
    (note,) = open_fp32(built).notes
    assert "built with power mode 15W, here MAXN;" in note
    assert f"mma-edge build {built.folder} --precision fp32 --overwrite" in note
    # Timings of slower clocks must not choose the kernels.
    assert tensorrt_plan.timings_path(built, machine).name == "Orin-8.7-MAXN.timings"
    path.write_text(json.dumps({**again, "power": {"mode": "15W"}}))
    with pytest.raises(BundleError, match="cannot be read"):
        open_fp32(built)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"sidecar_version": 2}', "\xff"])
def test_a_damaged_sidecar_is_one_line(built: Bundle, text: str) -> None:
    Target(built, "fp32").sidecar.write_text(text, encoding="latin-1")
    with pytest.raises(BundleError) as error:
        open_fp32(built)
    assert "mma-edge build" in one_line(error.value)


def test_a_plan_without_a_sidecar_is_not_loaded(built: Bundle) -> None:
    Target(built, "fp32").sidecar.unlink()
    with pytest.raises(BundleError, match="missing"):
        open_fp32(built)


def test_a_truncated_plan_is_not_given_to_tensorrt(built: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Target(built, "fp32").plan
    path.write_bytes(path.read_bytes()[:-100])
    monkeypatch.setattr(fake_tensorrt.Runtime, "deserialize_cuda_engine", None)
    with pytest.raises(BundleError, match="SHA-256 differs"):
        open_fp32(built)


def test_a_plan_that_tensorrt_refuses_is_one_line_with_its_reason(built: Bundle) -> None:
    # The sidecar fits, the content does not: TensorRT itself has to say so.
    path = Target(built, "fp32").plan
    path.write_bytes(path.read_bytes()[:-100])
    side = Target(built, "fp32").sidecar
    side.write_text(json.dumps({**json.loads(side.read_text()), "plan_sha256": tensorrt_plan.sha256(path)}))
    with pytest.raises(BundleError, match="serialization assertion failed"):
        open_fp32(built)
    assert fake_cudart.LIVE == {}


def test_large_batches_are_run_in_parts(built: Bundle) -> None:
    engine = open_fp32(built)
    frames, mel = clips(8)  # the plan takes 3
    expected = OnnxCpuEngine(built.graph("fp32"), "fp32")(frames, mel)
    np.testing.assert_allclose(engine(frames, mel), expected, atol=1e-5)
    assert engine(frames[:0], mel[:0]).shape == (0, 3)
    engine.close()


def test_an_answer_is_the_callers_own(built: Bundle) -> None:
    engine = open_fp32(built)
    frames, mel = clips(2)
    first = engine(frames[:1], mel[:1])
    before = first.copy()
    engine(frames[1:], mel[1:])
    np.testing.assert_array_equal(first, before)


def test_each_batch_size_is_captured_once_and_then_launched(built: Bundle) -> None:
    engine = open_fp32(built)
    frames, mel = clips(3)
    for count in (1, 3, 1, 3, 1):
        engine(frames[:count], mel[:count])
    assert len(fake_cudart.GRAPH_LAUNCHES) == 5 and len(set(fake_cudart.GRAPH_LAUNCHES)) == 2
    assert "no CUDA graph" not in engine.details
    assert engine.device_ms == 2.5


def test_without_capture_it_runs_all_the_same_and_says_so(built: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_GPU", "no-capture")
    engine = open_fp32(built)
    frames, mel = clips(4)
    expected = OnnxCpuEngine(built.graph("fp32"), "fp32")(frames, mel)
    np.testing.assert_allclose(engine(frames, mel), expected, atol=1e-5)
    assert fake_cudart.GRAPH_LAUNCHES == []
    assert "no CUDA graph (capture did not begin: cudaErrorStreamCaptureUnsupported)" in engine.details


@pytest.mark.parametrize("word", ["no-context", "refuse-shape", "enqueue"])
def test_a_failure_of_tensorrt_is_one_line_and_the_memory_is_given_back(
    built: Bundle, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    engine = open_fp32(built)
    monkeypatch.setenv("FAKE_TRT", word)
    with pytest.raises(BackendError):
        engine(*clips(1))
    monkeypatch.delenv("FAKE_TRT")
    assert engine(*clips(1)).shape == (1, 3)  # the next call is not poisoned
    engine.close()
    assert fake_cudart.LIVE == {}


def test_everything_on_the_gpu_is_given_back(built: Bundle) -> None:
    gc.collect()
    assert fake_cudart.LIVE == {}
    engine = open_fp32(built)
    engine(*clips(2))
    assert fake_cudart.LIVE
    engine.close()
    engine.close()
    assert fake_cudart.LIVE == {}
    with pytest.raises(BackendError, match="closed"):
        engine(*clips(1))
    forgotten = open_fp32(built)
    forgotten(*clips(1))
    del forgotten
    gc.collect()
    assert fake_cudart.LIVE == {}


def test_too_little_gpu_memory_is_one_line(built: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_cudart, "FREE_BYTES", 1000)
    with pytest.raises(BackendError) as error:
        open_fp32(built)
    assert "cannot be had" in one_line(error.value) and "--max-batch" in str(error.value)
    assert fake_cudart.LIVE == {}
