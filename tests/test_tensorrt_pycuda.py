"""With pycuda in cuda-python's place the same engine answers, without CUDA graphs, and leaves its context stack alone.

The stand-in has the calls of pycuda 2026.1's wrapper; the package itself cannot be installed without CUDA.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

import fake_cudart
import fake_gpu
import fake_tensorrt
import numpy as np
import pytest

from mma_edge.bundle import golden_inputs, read_bundle
from mma_edge.engines.cpu import OnnxCpuEngine
from mma_edge.engines.gpu import open as device_memory
from mma_edge.engines.tensorrt import child as tensorrt_child
from mma_edge.engines.tensorrt import plan as tensorrt_plan
from mma_edge.engines.tensorrt.engine import TensorRTEngine
from mma_edge.engines.tensorrt.target import BuildOptions, Target
from mma_edge.errors import BackendError

STACK: list[str] = []
"""pycuda's stack of contexts."""


class Context:
    retained = 0

    def push(self):
        STACK.append("primary")

    @staticmethod
    def pop():
        STACK.pop()

    def detach(self):
        assert STACK == []
        Context.retained -= 1


class Device:
    def __init__(self, number):
        assert number == 0

    @staticmethod
    def count():
        return 1

    def retain_primary_context(self):
        Context.retained += 1
        return Context()


def need_context() -> None:
    assert STACK, "no current context"


class Allocation(int):
    def free(self):
        assert fake_cudart.cudaFree(self) == (fake_cudart.OK,)


class Stream:
    def __init__(self):
        need_context()
        _, self.handle = fake_cudart.cudaStreamCreateWithFlags(0)

    def __del__(self):
        fake_cudart.cudaStreamDestroy(self.handle)

    def synchronize(self):
        need_context()


class Event:
    def __init__(self, flags):
        need_context()

    def record(self, stream):
        assert isinstance(stream, Stream)

    def synchronize(self):
        need_context()

    def time_since(self, event):
        return 1.5


def mem_alloc(nbytes):
    need_context()
    status, address = fake_cudart.cudaMalloc(nbytes)
    if status:
        raise driver.MemoryError("out of memory")
    return Allocation(address)


class HostAllocation:
    """The base of a pinned array, as pycuda has it; `free` gives it back."""

    def __init__(self, shape, dtype):
        dtype = np.dtype(dtype)
        _, self.address = fake_cudart.cudaMallocHost(int(np.prod(shape)) * dtype.itemsize)
        interface = {"shape": tuple(shape), "typestr": dtype.str, "data": (self.address, False), "version": 3}
        self.__array_interface__ = interface

    def free(self):
        assert fake_cudart.cudaFreeHost(self.address) == (fake_cudart.OK,)


def pagelocked_empty(shape, dtype):
    need_context()
    array = np.asarray(HostAllocation(shape, dtype))
    assert isinstance(array.base, HostAllocation)
    return array


def memcpy_htod_async(dest, src, stream):
    need_context()
    fake_cudart.cudaMemcpyAsync(dest, src.ctypes.data, src.nbytes, None, stream.handle)


def memcpy_dtoh_async(dest, src, stream):
    need_context()
    fake_cudart.cudaMemcpyAsync(dest.ctypes.data, src, dest.nbytes, None, stream.handle)


driver = types.ModuleType("pycuda.driver")
driver.Error = type("Error", (Exception,), {})
driver.MemoryError = type("MemoryError", (driver.Error,), {})
driver.event_flags = types.SimpleNamespace(BLOCKING_SYNC=1)
driver.init = lambda: None
driver.mem_get_info = lambda: (fake_cudart.FREE_BYTES, fake_cudart.TOTAL_BYTES)
for thing in (Context, Device, Stream, Event, mem_alloc, pagelocked_empty, memcpy_htod_async, memcpy_dtoh_async):
    setattr(driver, thing.__name__, thing)


@pytest.fixture
def pycuda_only(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu.into(monkeypatch)
    package = types.ModuleType("pycuda")
    package.VERSION_TEXT, package.driver = "2026.1", driver
    for name, module in {"pycuda": package, "pycuda.driver": driver}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    monkeypatch.delitem(sys.modules, "mma_edge.engines.gpu.pycuda", raising=False)


def test_an_engine_on_pycuda_answers_as_the_bundle_does(bundle_copy: Path, pycuda_only: None) -> None:
    bundle = read_bundle(bundle_copy)
    target = Target(bundle, "fp32")
    path = target.plan
    path.parent.mkdir()
    options = BuildOptions(max_batch=2, workspace_mib=1)
    path.write_bytes(tensorrt_child.compile_plan(fake_tensorrt, target, options, lambda message: None))
    machine = tensorrt_plan.this_machine(fake_tensorrt)
    sidecar = tensorrt_plan.make_sidecar(target, machine, path, options, {})
    engine = TensorRTEngine(tensorrt_plan.Plan(target, path, path.read_bytes(), 2, sidecar))
    frames, mel = golden_inputs(3, 16, 3)
    expected = OnnxCpuEngine(bundle.graph("fp32"), "fp32")(frames, mel)
    np.testing.assert_allclose(engine(frames, mel), expected, atol=1e-5)
    assert "pycuda 2026.1" in engine.details and "no CUDA graph (pycuda has no CUDA graphs" in engine.details
    assert STACK == []
    engine.close()
    assert Context.retained == 0 and fake_cudart.LIVE == {}


def test_too_little_memory_is_said_and_the_context_given_back(
    pycuda_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = device_memory.open_device_memory()
    with pytest.raises(BackendError, match="cannot be had"), memory.active():
        memory.malloc(fake_cudart.FREE_BYTES + 1)
    assert STACK == []
    memory.close()
    assert Context.retained == 0
