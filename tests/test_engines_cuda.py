"""onnxruntime's CUDA provider, as far as it can be held to its promises without a GPU.

The fake GPU is the real onnxruntime on its CPU provider, told apart by what only a GPU decides: which provider a
session ends up with, whether it opens at all, and that a captured graph reads and writes where it was captured.
Every other name and signature that the engine uses is the real one's.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime as real
import pytest
from conftest import one_line
from onnx import TensorProto, helper
from streaming_bundle import stream_clips

import mma_edge
from mma_edge import engines
from mma_edge.bundle import Bundle, golden_inputs, read_bundle
from mma_edge.engines import cpu as onnx_cpu
from mma_edge.engines import cuda as onnx_cuda
from mma_edge.engines import machine
from mma_edge.engines.machine import CudaDevice
from mma_edge.errors import BackendError, BundleError
from mma_edge.streaming import Streamer, StreamingGraphs

AMPERE = CudaDevice("RTX 3060", (8, 6), 12 << 30)


class FakeCuda(ModuleType):
    """onnxruntime with a GPU: what is not below is the real module's."""

    def __init__(self) -> None:
        super().__init__("onnxruntime")
        self.calls: list[str] = []
        self.sessions: list[FakeCuda.Session] = []
        self.libraries_missing = self.wrong = False
        self.printed = ""
        self.open_error: Exception | None = None
        self.run_error: Exception | None = None
        outer = self

        class Session(real.InferenceSession):
            """Refuses what the CUDA provider refuses; counts captures and replays."""

            def __init__(self, source, options, providers, enable_fallback) -> None:
                ((name, provider),) = providers  # CUDA alone: a CPU provider named here is a fallback
                assert name == "CUDAExecutionProvider" and enable_fallback == 0
                if outer.open_error:
                    raise outer.open_error
                super().__init__(source, options, providers=["CPUExecutionProvider"])
                self.provider, self.captured, self.replays, self.fallback = provider, {}, 0, True
                outer.sessions.append(self)

            def get_providers(self) -> list[str]:
                return ([] if outer.libraries_missing else ["CUDAExecutionProvider"]) + super().get_providers()

            def disable_fallback(self) -> None:
                super().disable_fallback()
                self.fallback = False

            def run(self, outputs, inputs):
                if outer.run_error:
                    raise outer.run_error
                return [array + outer.wrong for array in super().run(outputs, inputs)]

            def io_binding(self):
                binding, bound = super().io_binding(), {}
                binding.bound = bound
                for name in ("bind_ortvalue_input", "bind_ortvalue_output"):
                    method = getattr(binding, name)

                    def keep(node, value, method=method):
                        bound[node] = value.data_ptr()
                        method(node, value)

                    setattr(binding, name, keep)
                return binding

            def run_with_iobinding(self, binding, options) -> None:
                graph_id = options.get_run_config_entry("gpu_graph_id")
                assert graph_id != "0", "0 is onnxruntime's own"
                if graph_id != "-1" and self.provider["enable_cuda_graph"] == "1":
                    if graph_id in self.captured:
                        assert self.captured[graph_id] == binding.bound, "a replay at other addresses"
                        self.replays += 1
                    self.captured[graph_id] = dict(binding.bound)
                super().run_with_iobinding(binding, options)

        class OrtValue:
            @staticmethod
            def ortvalue_from_shape_and_type(shape, dtype, device, device_id):
                assert (device, device_id) == ("cuda", 0)
                return real.OrtValue.ortvalue_from_shape_and_type(shape, dtype, "cpu", 0)

        self.InferenceSession, self.OrtValue = Session, OrtValue

    def __getattr__(self, name: str) -> object:
        return getattr(real, name)  # AttributeError for what the real one lacks

    def get_available_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", *real.get_available_providers()]

    def preload_dlls(self) -> None:
        assert callable(real.preload_dlls)
        self.calls.append("preload_dlls")
        print(self.printed)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    for module in (onnx_cuda, engines):
        monkeypatch.setattr(module, "cuda_devices", lambda: [AMPERE])
    monkeypatch.setattr(onnx_cuda, "is_jetson", lambda: False)
    return fake


def test_the_embedded_graph_is_what_the_comment_says() -> None:
    nodes = [helper.make_node("MatMul", ["x", "x"], ["p"]), helper.make_node("Add", ["p", "x"], ["y"])]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in "xy")
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    assert onnx.load_from_string(onnx_cuda.TINY_GRAPH) == model


def test_it_computes_what_the_cpu_computes_at_every_batch_size(tiny_bundle: Path, gpu: FakeCuda) -> None:
    bundle = read_bundle(tiny_bundle)
    engine = onnx_cuda.open_engine(bundle, "fp32")
    (session,) = gpu.sessions
    for seed, count in enumerate((1, 3, 1, 2, 3, 1)):
        frames, mel = golden_inputs(seed, 16, count)
        expected = real.InferenceSession(str(bundle.graph("fp32"))).run(None, {"frames": frames, "mel": mel})[0]
        np.testing.assert_allclose(engine(frames, mel), expected, atol=1e-6)
    # One session, so the weights are on the GPU once; one CUDA graph per batch size, and replays of each.
    assert gpu.sessions == [session] and set(session.captured) == {"1", "2", "3"} and session.replays == 3


def test_an_answer_stays_what_it_was(tiny_bundle: Path, gpu: FakeCuda) -> None:
    engine = onnx_cuda.open_engine(read_bundle(tiny_bundle), "fp32")
    first = engine(*golden_inputs(1, 16))
    kept = first.copy()
    assert np.abs(engine(*golden_inputs(2, 16)) - kept).max() > 1e-4
    np.testing.assert_array_equal(first, kept)


def test_views_with_odd_strides_are_read_right(tiny_bundle: Path, gpu: FakeCuda) -> None:
    engine = onnx_cuda.open_engine(read_bundle(tiny_bundle), "fp32")
    frames, mel = golden_inputs(4, 16, 2)
    expected = engine(np.ascontiguousarray(frames[..., ::-1]), mel)
    np.testing.assert_array_equal(engine(frames[..., ::-1], np.asfortranarray(mel)), expected)


def test_batch_sizes_beyond_the_limit_run_without_a_cuda_graph(tiny_bundle: Path, gpu: FakeCuda, monkeypatch) -> None:
    monkeypatch.setattr(onnx_cuda, "MAX_CUDA_GRAPHS", 1)
    engine = onnx_cuda.open_engine(read_bundle(tiny_bundle), "fp32")
    for count in (2, 3, 2):
        assert engine(*golden_inputs(0, 16, count)).shape == (count, 3)
    assert set(gpu.sessions[0].captured) == {"2"}


def test_fp32_is_fp32_libraries_are_preloaded_and_no_failure_ends_on_the_cpu(tiny_bundle: Path, gpu: FakeCuda) -> None:
    onnx_cuda.open_engine(read_bundle(tiny_bundle), "fp32")
    (session,) = gpu.sessions
    assert session.provider == {"device_id": "0", "use_tf32": "0", "enable_cuda_graph": "1"}
    assert gpu.calls == ["preload_dlls"] and not session.fallback


def test_auto_takes_it_where_tensorrt_is_not(tiny_bundle: Path, gpu: FakeCuda, monkeypatch) -> None:
    monkeypatch.setattr(engines.backend_module("tensorrt"), "probe", lambda: "not installed")
    recognizer = mma_edge.load(tiny_bundle)
    assert recognizer.backend == "cuda" and "CUDA on RTX 3060" in recognizer.engine.details
    assert recognizer.notes == ("not on tensorrt: not installed",)


def test_a_session_that_ended_on_the_cpu_is_refused(tiny_bundle: Path, gpu: FakeCuda) -> None:
    gpu.libraries_missing = True
    with pytest.raises(BackendError) as error:
        onnx_cuda.open_engine(read_bundle(tiny_bundle), "fp32")
    text = one_line(error.value)
    assert "cuBLAS" in text and 'pip install "mma-edge[gpu]"' in text
    assert "cuBLAS" in onnx_cuda.probe()


def test_what_onnxruntime_prints_about_libraries_is_in_the_error_and_not_among_the_records(
    tiny_bundle: Path, gpu: FakeCuda, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu.libraries_missing = True
    gpu.printed = "a warning\nFailed to load libcublasLt.so.13: cannot open shared object file\nFailed to load another"
    with pytest.raises(BackendError) as error:
        onnx_cuda.open_engine(read_bundle(tiny_bundle), "fp32")
    assert "Failed to load libcublasLt.so.13" in one_line(error.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("cuda", "extra"), [(None, "gpu"), ((12, 6), "gpu-cu12"), ((13, 0), "gpu")])
def test_the_build_that_is_proposed_fits_the_driver(gpu: FakeCuda, monkeypatch, cuda: tuple | None, extra: str) -> None:
    monkeypatch.setattr(machine, "driver_cuda_version", lambda: cuda)
    gpu.libraries_missing = True
    assert onnx_cuda.probe().endswith(f'pip install "mma-edge[{extra}]"')


@pytest.mark.parametrize(
    ("message", "kind", "said"),
    [
        (
            "[ONNXRuntimeError] : 1 : FAIL : This session cannot use the graph capture feature as requested by "
            "the user as all compute graph nodes have not been partitioned to the CUDAExecutionProvider",
            BackendError,
            "--backend tensorrt",
        ),
        ("BFCArena: Failed to allocate memory for requested buffer", BackendError, "not enough memory"),
        ("CUDA failure 2: out of memory", BackendError, "not enough memory"),
        ("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : not implemented: Conv(11)", BackendError, "all of"),
        ("CUDNN_STATUS_NOT_INITIALIZED", BackendError, "mma-edge[gpu]"),
        ("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF", BundleError, "export the bundle again"),
    ],
)
def test_what_onnxruntime_says_becomes_one_line(
    tiny_bundle: Path, gpu: FakeCuda, message: str, kind: type[Exception], said: str
) -> None:
    gpu.open_error = RuntimeError(message + "\n  stack trace")
    with pytest.raises(kind) as error:
        onnx_cuda.open_engine(read_bundle(tiny_bundle), "fp32")
    text = one_line(error.value)
    assert said in text and "stack trace" not in text


def test_the_probe_computes_something(gpu: FakeCuda, monkeypatch) -> None:
    assert onnx_cuda.probe() is None and len(gpu.sessions) == 1
    gpu.wrong = True
    assert "wrong results" in onnx_cuda.probe()
    gpu.run_error = RuntimeError("cudaErrorNoKernelImageForDevice: no kernel image is available")
    assert "no kernels for this GPU; use TensorRT" in onnx_cuda.probe()
    monkeypatch.setattr(onnx_cuda, "is_jetson", lambda: True)
    assert "no kernels for this GPU; on a Jetson use TensorRT: mma-edge build" in onnx_cuda.probe()
    gpu.run_error = RuntimeError("CUBLAS_STATUS_NOT_INITIALIZED")
    assert "CUBLAS_STATUS_NOT_INITIALIZED" in onnx_cuda.probe() and "mma-edge[gpu]" in onnx_cuda.probe()


def test_the_probe_asks_the_driver_first(gpu: FakeCuda, monkeypatch) -> None:
    monkeypatch.setattr(onnx_cuda, "cuda_devices", list)
    assert "no CUDA device" in onnx_cuda.probe() and gpu.sessions == [] and gpu.calls == []


@pytest.mark.parametrize(("jetson", "said"), [(False, "mma-edge[gpu]"), (True, "mma-edge build")])
def test_a_cpu_build_is_told_with_what_to_install(gpu: FakeCuda, monkeypatch, jetson: bool, said: str) -> None:
    monkeypatch.setattr(gpu, "get_available_providers", real.get_available_providers, raising=False)
    monkeypatch.setattr(onnx_cuda, "is_jetson", lambda: jetson)
    text = onnx_cuda.probe()
    assert "is a CPU build" in text and said in text


def test_precisions_that_it_lacks_are_refused(tiny_bundle: Path, gpu: FakeCuda, monkeypatch) -> None:
    bundle = read_bundle(tiny_bundle)
    with pytest.raises(BackendError, match="does not compute in int8"):
        onnx_cuda.open_engine(bundle, "int8")
    turing = CudaDevice("T4", (7, 5), 16 << 30)
    monkeypatch.setattr(onnx_cuda, "cuda_devices", lambda: [turing])
    with pytest.raises(BackendError) as error:
        onnx_cuda.open_engine(bundle, "bf16")
    assert "T4 (compute capability 7.5) has no bf16" in one_line(error.value)
    monkeypatch.setattr(onnx_cuda, "cuda_devices", list)
    with pytest.raises(BackendError, match="no CUDA device"):
        onnx_cuda.open_engine(bundle, "fp32")


def test_a_failing_inference_is_one_line_and_runs_nowhere_else(tiny_bundle: Path, gpu: FakeCuda, monkeypatch) -> None:
    engine = onnx_cuda.open_engine(read_bundle(tiny_bundle), "fp32")

    def fail(binding: object, options: object) -> None:
        raise RuntimeError("CUDA failure 700: an illegal memory access\nstack")

    monkeypatch.setattr(gpu.sessions[0], "run_with_iobinding", fail)
    with pytest.raises(BackendError) as error:
        engine(*golden_inputs(0, 16))
    text = one_line(error.value)
    assert "failed during an inference" in text and "illegal memory" in text and "stack" not in text


def test_the_cpu_engine_does_not_touch_the_gpu(tiny_bundle: Path, gpu: FakeCuda, monkeypatch) -> None:
    monkeypatch.setattr(gpu, "InferenceSession", real.InferenceSession)
    assert onnx_cpu.open_engine(read_bundle(tiny_bundle), "fp32")._session.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize("mode", ["exact", "rolling"])
def test_the_parts_for_streaming_run_on_the_gpu_with_a_cuda_graph_per_combination_of_sizes(
    gpu: FakeCuda, streaming_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    parts = streaming_bundle.parts("cuda", "fp32", mode)
    keeps = {"sound_age_s": 1.0, "clear": 0.0}
    on_gpu = Streamer(StreamingGraphs(*onnx_cuda.open_parts(streaming_bundle, "fp32", parts)), mode, **keeps)
    gpu_sessions = list(gpu.sessions)
    monkeypatch.setitem(sys.modules, "onnxruntime", real)
    on_cpu = Streamer(StreamingGraphs(*onnx_cpu.open_parts(streaming_bundle, "fp32", parts)), mode, **keeps)
    for pair in zip(stream_clips(5), stream_clips(5, track=2, seed=1), strict=True):
        np.testing.assert_allclose(on_gpu(pair), on_cpu(pair), atol=1e-5)
    # Two faces: 32 new frames at first, then 4 each time. Rolling listens to the first and the fourth window.
    stem, rest, *seeing = gpu_sessions
    assert (len(stem.captured), stem.replays) == ((2, 3) if mode == "exact" else (2, 0))
    assert (len(rest.captured), rest.replays) == ((1, 4) if mode == "exact" else (2, 0))
    assert [(len(one.captured), one.replays) for one in seeing] == ([] if mode == "exact" else [(1, 2)])
    assert all(session.provider["enable_cuda_graph"] == "1" for session in gpu_sessions)
