"""A build that fails leaves the bundle as it was, and says in one line what happened and what to do.

On a stand-in for TensorRT, cuda-python and the driver (fake_tensorrt.py): no GPU has run this code yet.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import fake_cudart
import fake_gpu
import fake_tensorrt
import numpy as np
import pytest
from conftest import one_line, run_python
from rich.console import Console

from mma_edge import cli
from mma_edge.bundle import Bundle, read_bundle
from mma_edge.commands.setup.build import build_if_possible, gate_clips
from mma_edge.engines.gpu import open as device_memory
from mma_edge.engines.tensorrt import build as tensorrt_build
from mma_edge.engines.tensorrt import child as tensorrt_child
from mma_edge.engines.tensorrt import engine as tensorrt
from mma_edge.engines.tensorrt import gate as tensorrt_gate
from mma_edge.engines.tensorrt import plan as tensorrt_plan
from mma_edge.engines.tensorrt.build import build_plans, choose_precision
from mma_edge.engines.tensorrt.onnx_file import read_graph
from mma_edge.engines.tensorrt.target import BuildOptions, Target, targets_of
from mma_edge.errors import (
    BackendError,
    BundleError,
    DependencyError,
    MMAEdgeError,
    OutputError,
    ParityError,
    UsageError,
)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu.into(monkeypatch)


@pytest.fixture
def bundle(bundle_copy: Path) -> Bundle:
    return read_bundle(bundle_copy)


def refused(bundle: Bundle, kind: type[MMAEdgeError], precision: str = "fp32", **options: int) -> str:
    """The line of a build that must fail; nothing of it may be left."""
    before = files(bundle)
    with pytest.raises(kind) as error:
        build_plans(targets_of(bundle, precision), lambda: gate_clips(bundle), BuildOptions(**options))
    assert files(bundle) == before
    return one_line(error.value)


def files(bundle: Bundle) -> dict[str, bytes]:
    """Names and content."""
    found = (path for path in bundle.folder.rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in found}


@pytest.mark.parametrize(
    ("word", "kind", "said"),
    [
        pytest.param("parse", BundleError, "node node_attention (Attention): no importer registered", id="parser"),
        pytest.param("build", BackendError, "could not find any implementation", id="builder"),
        pytest.param("kill", BackendError, "killed TensorRT while building fp32 (phase Building Engine)", id="OOM"),
        pytest.param("crash", BackendError, "crashed with SIGSEGV", id="crash"),
        pytest.param("raise", BackendError, "RuntimeError: an accident", id="exception"),
    ],
)
def test_each_way_to_fail_is_one_line(
    bundle: Bundle, gpu: None, monkeypatch: pytest.MonkeyPatch, word: str, kind: type[MMAEdgeError], said: str
) -> None:
    monkeypatch.setenv("FAKE_TRT", word)
    text = refused(bundle, kind)
    assert said in text
    if word == "kill":
        assert "memory" in text and "--workspace" in text and "--max-batch" in text


def test_an_engine_that_computes_something_else_is_not_kept(
    bundle: Bundle, gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A plan of an earlier build is there; a failing one must not take it away.
    (bundle.folder / "engines").mkdir()
    Target(bundle, "fp32").plan.write_bytes(b"an earlier plan")
    monkeypatch.setenv("FAKE_TRT", "perturb=0.5")
    text = refused(bundle, ParityError)
    assert "logits differ by up to" in text and "not kept" in text


def test_the_command_builds_and_reports_and_keeps_what_fits(
    bundle: Bundle, gpu: None, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["build", str(bundle.folder), "--max-batch", "2"]
    assert cli.main(argv) == 0
    said = capsys.readouterr().out
    assert "fp32.plan" in said and "up to 2 clips" in said and "same class in 100.0%" in said and "2.50 ms" in said
    plan = Target(bundle, "fp32").plan.stat().st_mtime_ns
    assert cli.main(argv) == 0
    assert "--overwrite builds it again" in capsys.readouterr().out
    assert Target(bundle, "fp32").plan.stat().st_mtime_ns == plan
    assert cli.main([*argv, "--inspect"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    softmax = sum(node.op_type == "Softmax" for node in read_graph(bundle.graph("fp32")).nodes)
    assert softmax and f"attention fused in {softmax} of {softmax} places" in said and "fp32.layers.json" in said
    assert "trtexec --onnx=" in said and "--stronglyTyped" in said and "--minShapes=frames:1x16x16x16x3" in said
    (bundle.folder / "engines" / "fp32.layers.json").write_text("[]")
    assert cli.main([*argv, "--inspect"]) == BundleError.exit_code
    assert "does not tell the plan's layers" in one_line(capsys.readouterr().err.strip())
    # Other options: built again without asking.
    assert tensorrt_build.existing_plans(targets_of(bundle, "fp32"), BuildOptions(max_batch=3)) is None


def test_the_network_is_strongly_typed_without_tf32_and_as_asked(bundle: Bundle, gpu: None) -> None:
    (bundle.folder / "engines").mkdir()
    options = BuildOptions(max_batch=5, workspace_mib=77, optimization_level=2)
    tensorrt_child.compile_plan(fake_tensorrt, Target(bundle, "fp32"), options, lambda message: None)
    settings = fake_tensorrt.BUILT.pop()  # it asserts by itself that the network is strongly typed
    assert settings["cleared"] == ["TF32"]
    assert settings["WORKSPACE"] == 77 * 2**20 and settings["level"] == 2
    shapes = [profile["mel"] for profile in settings["profiles"]]
    assert shapes == [[[count, 512, 128] for count in (1, largest, largest)] for largest in (5, 4, 1)]


@pytest.mark.parametrize(("stored", "used"), [(b"", b""), (b"of this", b"of this"), (b"of another device", b"")])
def test_the_timing_cache_is_used_where_it_fits_and_kept(
    bundle: Bundle, gpu: None, stored: bytes, used: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MMA_EDGE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "cache" / "tensorrt" / "10.13.3.9" / "Orin-8.7.timings"
    path.parent.mkdir(parents=True)
    if stored:
        path.write_bytes(stored)
    options = BuildOptions(max_batch=1, workspace_mib=1)
    tensorrt_child.compile_plan(fake_tensorrt, Target(bundle, "fp32"), options, lambda message: None)
    assert fake_tensorrt.BUILT.pop()["cache"] == used
    assert path.read_bytes() == used + b"timed"
    monkeypatch.setenv("MMA_EDGE_CACHE", "off")
    tensorrt_child.compile_plan(fake_tensorrt, Target(bundle, "fp32"), options, lambda message: None)
    assert (bundle.folder / "engines" / path.name).read_bytes() == b"timed" and fake_tensorrt.BUILT.pop()


def test_the_workspace_is_small_on_a_jetson(bundle: Bundle, gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tensorrt_child._workspace(Target(bundle, "fp32"), None) == fake_cudart.FREE_BYTES // 4 // 2**20
    monkeypatch.setattr(tensorrt_child, "is_jetson", lambda: True)
    monkeypatch.setattr(tensorrt_child, "available_memory", lambda: fake_cudart.FREE_BYTES)
    assert tensorrt_child._workspace(Target(bundle, "fp32"), None) == 512
    assert tensorrt_child._workspace(Target(bundle, "fp32"), 700) == 700
    with pytest.raises(BackendError, match=r"6\.0 of 8\.0 GB of GPU memory are free"):
        tensorrt_child._workspace(Target(bundle, "fp32"), 10_000)
    assert fake_cudart.LIVE == {}


@pytest.mark.parametrize(("integrated", "free"), [(False, "6.0"), (True, "7.5")])
def test_memory_that_linux_gives_back_on_demand_counts_as_free_where_the_gpu_shares_it(
    bundle: Bundle, gpu: None, monkeypatch: pytest.MonkeyPatch, integrated: bool, free: str
) -> None:
    monkeypatch.setenv("FAKE_DEVICE", f"Orin 8 7 {int(integrated)}")
    monkeypatch.setattr(tensorrt_child, "available_memory", lambda: 75 * 10**8)
    with pytest.raises(BackendError, match=rf"{free} of 8\.0 GB of GPU memory are free"):
        tensorrt_child._workspace(Target(bundle, "fp32"), 10_000)
    assert tensorrt_child._workspace(Target(bundle, "fp32"), 6000 if integrated else 5000) >= 5000
    # Without the files that a Jetson is known by, as in a container.
    assert (tensorrt_child._workspace(Target(bundle, "fp32"), None) == 512) == integrated


def test_too_little_memory_or_disk_is_said_before_anything_is_built(
    bundle: Bundle, gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_build, "CHILD", ("/nowhere",))
    with monkeypatch.context() as patch:
        patch.setattr(tensorrt_build, "available_memory", lambda: 10**8)
        assert "0.1 GB of memory are available" in refused(bundle, BackendError)
    monkeypatch.setattr(tensorrt_build.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**6))
    assert "1 MB are free" in refused(bundle, OutputError)


def test_a_bundle_that_cannot_be_written_is_one_line(
    bundle: Bundle, gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bundle.folder / "engines").write_text("a file where the folder should be")
    assert "cp -r" in refused(bundle, OutputError)


def test_a_precision_that_the_gpu_lacks_is_refused(edit_manifest, gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def all_precisions(manifest: dict) -> None:
        entry = manifest["precisions"]["fp32"]
        manifest["precisions"] = {name: entry for name in ("fp32", "fp16", "bf16", "fp8")}

    bundle = read_bundle(edit_manifest(all_precisions))
    assert choose_precision(bundle) == "fp16"
    monkeypatch.setenv("FAKE_DEVICE", "Xavier 7 2")
    assert "compute capability 7.2; bf16 needs 8.0" in refused(bundle, BackendError, "bf16")
    monkeypatch.setenv("FAKE_DEVICE", "Orin 8 7")
    assert "compute capability 8.7; fp8 needs 8.9" in refused(bundle, BackendError, "fp8")
    with pytest.raises(BackendError, match="build another --precision"):
        tensorrt_build.require_buildable(targets_of(bundle, "fp8"))
    assert "mma-export --precision int8" in refused(bundle, BackendError, "int8")


@pytest.mark.parametrize("options", [{"max_batch": 0}, {"workspace_mib": 0}, {"optimization_level": 6}])
def test_options_that_make_no_sense_are_usage_errors(options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        BuildOptions(**options)


@pytest.mark.parametrize("version", ["8.6.1", "9.3.0", "10.0.1", "10.2.0.post1"])
def test_a_tensorrt_that_is_too_old_is_refused(gpu: None, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(fake_tensorrt, "__version__", version)
    assert f"TensorRT {version} is too old" in tensorrt.probe()
    with pytest.raises(BackendError, match=r"10\.3 or newer"):
        tensorrt_plan.import_tensorrt()


@pytest.mark.parametrize("version", ["10.3.0", "10.16.1.11", "11.4.0.106"])
def test_a_newer_tensorrt_is_taken(gpu: None, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(fake_tensorrt, "__version__", version)
    assert tensorrt.probe() is None


def test_without_a_gpu_nothing_of_tensorrt_is_made(gpu: None, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_DEVICE", "")
    assert "reports no GPU" in tensorrt.probe()
    assert "reports no GPU" in refused(bundle, BackendError)  # the fake would abort, as TensorRT does
    assert tensorrt.usable(bundle) == ()
    with pytest.raises(BackendError, match="reports no GPU"):
        tensorrt.open_engine(bundle, "fp32")


def test_a_driver_older_than_the_package_is_named(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "_cuda_major_of_package", lambda: 13)
    assert "is for CUDA 13, the driver has CUDA 12.6" in tensorrt.probe()


def test_a_cuda_that_does_not_answer_is_named(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_GPU", "no-device")
    assert "cudaErrorNoDevice" in tensorrt.probe()


def test_without_cuda_python_and_pycuda_the_remedy_is_named(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cuda.bindings", "cuda.bindings.runtime", "pycuda"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "neither cuda-python nor pycuda" in device_memory.probe()
    # For the driver's CUDA, and never an extra that would hide a Jetson's own TensorRT.
    with pytest.raises(DependencyError, match=r'pip install "cuda-bindings==12\.\*"'):
        device_memory.open_device_memory()


def test_export_hears_why_no_engine_was_built(bundle: Bundle, gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert "TensorRT's Python package is not installed" in build_if_possible(bundle, "fp32", Console(quiet=True))


def test_the_real_child_reports_what_is_missing(bundle: Bundle, tmp_path: Path) -> None:
    """No fakes: this machine as it is. It must come back with a line, whatever it lacks."""
    request = {"bundle": str(bundle.folder), "precision": "fp32", "mode": None, "partials": [str(tmp_path / "plan")]}
    if tensorrt.probe() is None:
        pytest.skip("this machine has a GPU and TensorRT")
    done = run_python(*tensorrt_build.CHILD, json.dumps({**request, "options": vars(BuildOptions())}))
    assert done.returncode == 1, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])["error"]
    assert answer["kind"] in ("DependencyError", "BackendError") and answer["what"]


def test_this_machine_is_probed_without_a_crash() -> None:
    done = run_python("-c", "from mma_edge.engines.tensorrt import engine; print(engine.probe())")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


LOGITS = np.array([[2.0, 0.0, -1.0], [0.0, 1.0, 0.9], [-1.0, 0.0, 3.0]], np.float32)


def judged(precision: str, logits: np.ndarray, golden: float = 0.0, tolerance: float = 1.0) -> tuple[str, str] | None:
    figures = {**tensorrt_gate.compare(LOGITS, logits, logits), "golden_difference": golden}
    return tensorrt_gate.shortcoming(precision, figures, tolerance)


def test_the_gate_passes_what_is_close_and_nothing_else() -> None:
    assert judged("fp32", LOGITS + 9e-3) is None
    assert judged("fp32", LOGITS + 2e-2) is not None
    assert judged("fp16", LOGITS + 2e-2) is None
    other = LOGITS[:, ::-1].copy()
    for precision in ("fp16", "bf16", "int8"):
        assert "33.3% of 3 clips" in judged(precision, other)[0]
    for precision in ("fp32", "fp16", "int8"):
        assert judged(precision, np.full_like(LOGITS, np.nan))[0] == "its logits are not finite"
        assert judged(precision, LOGITS, golden=float("nan")) is not None
        assert "golden output" in judged("fp16", LOGITS, golden=2.0)[0]


def test_the_gate_looks_at_single_clips_and_at_batches() -> None:
    wrong = LOGITS + 1
    for alone, together in ((LOGITS, wrong), (wrong, LOGITS)):
        assert tensorrt_gate.compare(LOGITS, alone, together)["max_difference"] == pytest.approx(1)


def test_a_tie_may_fall_either_way() -> None:
    tied = np.array([[1.0, 1.005, 0.0]], np.float32)
    assert tensorrt_gate.compare(tied, tied[:, [1, 0, 2]], tied)["top1_agreement"] == 1
    apart = np.array([[1.0, 1.05, 0.0]], np.float32)
    assert tensorrt_gate.compare(apart, apart[:, [1, 0, 2]], apart)["top1_agreement"] == 0
