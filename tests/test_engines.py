"""`auto` takes what really works and says what it passed over; a named backend runs or says why not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import one_line

import mma_edge
from mma_edge import engines
from mma_edge.bundle import golden_inputs, read_bundle
from mma_edge.engines import MODULES, backend_module, open_engine
from mma_edge.engines import cpu as onnx_cpu
from mma_edge.errors import BackendError, BundleError, DependencyError, UsageError, out_of_memory
from mma_edge.precisions import BACKENDS, PRECISIONS, TABLE

Edit = Callable[[Callable[[dict], object]], Path]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMA_EDGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def only_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without GPU and OpenVINO."""
    monkeypatch.setattr(engines, "cuda_devices", list)
    monkeypatch.setitem(sys.modules, "openvino", None)


@pytest.fixture
def gpu_that_fails(monkeypatch: pytest.MonkeyPatch, only_cpu: None) -> Iterator[None]:
    """A GPU answers, TensorRT is not installed, and onnxruntime's CUDA provider opens nothing."""

    def fail(bundle: object, precision: str) -> None:
        raise BackendError(f"the GPU is on fire at {precision}", hint="fetch water")

    monkeypatch.setattr(engines, "cuda_devices", lambda: ["GPU"])
    monkeypatch.setattr(backend_module("tensorrt"), "probe", lambda: "TensorRT is not installed: pip")
    monkeypatch.setattr(backend_module("cuda"), "probe", lambda: None)
    monkeypatch.setattr(backend_module("cuda"), "usable", lambda bundle: bundle.precisions)
    monkeypatch.setattr(backend_module("cuda"), "open_engine", fail)
    yield


def precisions(manifest: dict, **entries: dict) -> None:
    """Other precisions whose graph is the fp32 one, so that any engine can open them."""
    graph = manifest["precisions"]["fp32"]["file"]
    manifest["precisions"] = {name: {"file": graph, "parity": {}, **entry} for name, entry in entries.items()}


def refused(bundle: Path, *args: object, error: type[Exception] = BackendError) -> str:
    with pytest.raises(error) as caught:
        mma_edge.load(bundle, *args)
    return one_line(caught.value)


def test_every_backend_has_the_parts_that_auto_needs() -> None:
    assert set(MODULES) == set(BACKENDS)
    for name in BACKENDS:
        module = backend_module(name)
        assert set(TABLE[name]) == set(PRECISIONS) == {"fp32", "fp16", "bf16", "int8", "fp8"}
        assert all(callable(getattr(module, part)) for part in ("probe", "usable", "open_engine"))


def test_auto_without_gpu_and_openvino_takes_the_cpu_and_says_why(tiny_bundle: Path, only_cpu: None) -> None:
    recognizer = mma_edge.load(tiny_bundle)
    assert recognizer.backend == recognizer.engine.backend == "cpu"
    assert len(recognizer.notes) == 2
    assert recognizer.notes[0] == "not on tensorrt or cuda: no CUDA device answers"
    assert "not on openvino" in recognizer.notes[1] and 'pip install "mma-edge[openvino]"' in recognizer.notes[1]


def test_auto_goes_on_when_a_backend_that_is_there_opens_nothing(tiny_bundle: Path, gpu_that_fails: None) -> None:
    recognizer = mma_edge.load(tiny_bundle)
    assert recognizer.backend == "cpu"
    notes = "\n".join(recognizer.notes)
    assert "not on tensorrt: TensorRT is not installed" in notes
    assert "not on cuda: the GPU is on fire at fp32; fetch water" in notes


def test_auto_goes_on_when_a_backend_computes_something_else(tiny_bundle: Path, monkeypatch, only_cpu: None) -> None:
    class Wrong(onnx_cpu.OnnxCpuEngine):
        backend = "openvino"

        def __call__(self, frames: np.ndarray, mel: np.ndarray) -> np.ndarray:
            return super().__call__(frames, mel) + 1

    openvino = backend_module("openvino")
    monkeypatch.setattr(openvino, "probe", lambda: None)
    monkeypatch.setattr(openvino, "usable", lambda bundle: bundle.precisions)
    monkeypatch.setattr(openvino, "open_engine", lambda bundle, precision: Wrong(bundle.graph(precision), precision))
    recognizer = mma_edge.load(tiny_bundle)
    assert recognizer.backend == "cpu" and "golden output by 1.00e+00" in recognizer.notes[-1]
    assert "golden output" in refused(tiny_bundle, "openvino", error=BundleError)


@pytest.mark.parametrize("backend", ["tensorrt", "cuda", "openvino"])
def test_a_named_backend_is_never_replaced(tiny_bundle: Path, only_cpu: None, backend: str) -> None:
    text = refused(tiny_bundle, backend)
    assert f"backend {backend} cannot run here" in text and "mma-edge doctor" in text


def test_a_named_backend_that_fails_to_open_is_the_error(tiny_bundle: Path, gpu_that_fails: None) -> None:
    assert "on fire" in refused(tiny_bundle, "cuda")


def test_an_unknown_backend_is_told_the_known_ones(tiny_bundle: Path) -> None:
    text = refused(tiny_bundle, "npu")
    assert "'npu'" in text and all(name in text for name in BACKENDS)


def test_nothing_installed_at_all_is_one_line(tiny_bundle: Path, monkeypatch, only_cpu: None) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for backend in ("auto", "cpu"):
        with pytest.raises((DependencyError, BackendError)) as caught:
            mma_edge.load(tiny_bundle, backend)
        text = one_line(caught.value)
        assert "onnxruntime is not installed" in text and 'pip install "mma-edge[cpu]"' in text


def test_int8_and_what_failed_its_gate_are_taken_when_asked_for_only(edit_manifest: Edit, only_cpu: None) -> None:
    folder = edit_manifest(lambda m: precisions(m, int8={}, fp32={"failed": "off by 3"}, fp16={}))
    assert mma_edge.load(folder).precision == "fp16"
    assert mma_edge.load(folder, precision="int8").precision == "int8"
    asked = mma_edge.load(folder, precision="fp32")
    assert asked.precision == "fp32" and "fp32 of this bundle failed its export gate: off by 3" in asked.notes


def test_what_failed_on_another_backend_is_taken_without_a_word(edit_manifest: Edit, only_cpu: None) -> None:
    folder = edit_manifest(lambda m: precisions(m, fp32={"failed_on": {"openvino": "off by 3"}}, fp16={}))
    loaded = mma_edge.load(folder)
    assert loaded.precision == "fp32" and not any("gate" in note for note in loaded.notes)
    folder = edit_manifest(lambda m: precisions(m, fp32={"failed_on": {"cpu": "off by 3"}}, fp16={}))
    assert mma_edge.load(folder).precision == "fp16"
    assert any("off by 3" in note for note in mma_edge.load(folder, precision="fp32").notes)


def test_int8_is_taken_unasked_where_there_is_nothing_else(edit_manifest: Edit, only_cpu: None) -> None:
    assert mma_edge.load(edit_manifest(lambda m: precisions(m, int8={}))).precision == "int8"


def test_a_bundle_whose_every_gate_failed_wants_to_be_asked(edit_manifest: Edit, only_cpu: None) -> None:
    folder = edit_manifest(lambda m: precisions(m, fp32={"failed": "a"}, int8={"failed": "b"}))
    text = refused(folder)
    assert "failed its export gate" in text and "--precision fp32" in text


@pytest.mark.parametrize("backend", ["auto", "cpu"])
def test_bf16_on_onnxruntimes_cpu_is_refused_with_the_way_out(
    edit_manifest: Edit, only_cpu: None, backend: str
) -> None:
    folder = edit_manifest(lambda m: precisions(m, fp32={}, bf16={}))
    text = refused(folder, backend, "bf16")
    assert "no bf16 kernels" in text and "--precision fp32" in text
    assert mma_edge.load(folder).precision == "fp32"


def test_a_bundle_of_bf16_alone_names_what_the_cpu_runs(edit_manifest: Edit, only_cpu: None) -> None:
    text = refused(edit_manifest(lambda m: precisions(m, bf16={})), "cpu")
    assert "has bf16 only" in text and "mma-export --precision fp32" in text


def test_fp16_on_the_cpu_says_what_it_is_computed_in(edit_manifest: Edit, monkeypatch, only_cpu: None) -> None:
    folder = edit_manifest(lambda m: precisions(m, fp16={}))
    monkeypatch.setattr(onnx_cpu, "is_x86", lambda: True)
    assert "fp16 computed in float32" in mma_edge.load(folder).engine.details


def test_the_cpu_runs_the_file_made_for_it_and_others_do_not(edit_manifest: Edit, only_cpu: None) -> None:
    def entry(manifest: dict) -> None:
        graph = manifest["precisions"]["fp32"]["file"]
        precisions(manifest, int8={"file": "LICENSE", "cpu_file": graph})

    folder = edit_manifest(entry)
    assert mma_edge.load(folder, "cpu", "int8").backend == "cpu"  # LICENSE is no graph
    assert read_bundle(folder).graph("int8").name == "LICENSE"


def test_the_self_test_is_as_strict_as_the_precision_allows(edit_manifest: Edit, only_cpu: None) -> None:
    def shift(manifest: dict) -> None:
        manifest["golden"]["logits"][0][0] += 0.05
        precisions(manifest, fp32={}, fp16={"tolerance": 0.1})

    folder = edit_manifest(shift)
    assert "fp32 on onnxruntime" in refused(folder, "cpu", "fp32", error=BundleError)
    assert mma_edge.load(folder, "cpu", "fp16").precision == "fp16"


def test_the_number_of_threads_can_be_said(tiny_bundle: Path, monkeypatch) -> None:
    monkeypatch.setenv("MMA_EDGE_THREADS", "1")
    assert mma_edge.load(tiny_bundle, "cpu").engine.details.endswith("CPU, 1 thread")
    for text in ("0", "-1", "all"):
        monkeypatch.setenv("MMA_EDGE_THREADS", text)
        assert "unset MMA_EDGE_THREADS" in refused(tiny_bundle, "cpu", error=UsageError)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("std::bad_alloc"),
        RuntimeError("[ONNXRuntimeError] : 6 : bfc_arena.cc: Failed to allocate memory for requested buffer of size 9"),
        RuntimeError("CUDA failure 2: out of memory ; GPU=0"),
        RuntimeError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED"),
    ],
)
def test_too_little_memory_is_one_line_with_what_to_do(tiny_bundle: Path, monkeypatch, error: Exception) -> None:
    engine = open_engine(read_bundle(tiny_bundle), "cpu")

    class Session:
        def run(self, *args: object) -> None:
            raise error

    monkeypatch.setattr(engine, "_session", Session())
    with pytest.raises(BackendError) as caught:
        engine(*golden_inputs(0, 16))
    text = one_line(caught.value)
    assert "not enough memory to run on onnxruntime" in text and "--precision" in text


def test_another_failure_is_not_taken_for_too_little_memory() -> None:
    assert out_of_memory(RuntimeError("shape mismatch"), "to run") is None
