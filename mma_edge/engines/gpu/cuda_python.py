"""Device memory through NVIDIA's cuda-python (`cuda.bindings.runtime`, 12.6 or later). Unproven on a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from cuda.bindings import runtime as cudart

from mma_edge.engines.gpu.interface import GraphCaptureError, array_at
from mma_edge.errors import BackendError

DEVICE = 0


class CudaPythonMemory:
    """See `DeviceMemory`. The CUDA runtime keeps its own (primary) context, which TensorRT uses as well."""

    def __init__(self) -> None:
        _call(cudart.cudaSetDevice(DEVICE), "the GPU cannot be opened")
        count = _call(cudart.cudaGetDeviceCount(), "the GPUs cannot be counted")
        if count < 1:
            raise BackendError("cuda-python finds no GPU", hint="check nvidia-smi and the driver")
        version = _call(cudart.cudaRuntimeGetVersion(), "the CUDA runtime does not answer")
        self.library = f"cuda-python (CUDA {version // 1000}.{version % 1000 // 10})"
        # Handles by their number: the objects of the package own what they name.
        self._streams: dict[int, Any] = {}
        self._events: dict[int, Any] = {}
        self._graphs: dict[int, tuple[Any, Any]] = {}

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        # The current device belongs to the thread.
        _call(cudart.cudaSetDevice(DEVICE), "the GPU cannot be used")
        yield

    def free_and_total_bytes(self) -> tuple[int, int]:
        return _call(cudart.cudaMemGetInfo(), "the GPU's memory cannot be asked for")

    def malloc(self, nbytes: int) -> int:
        return int(_call(cudart.cudaMalloc(nbytes), f"{nbytes / 1e6:.0f} MB of GPU memory cannot be had"))

    def free(self, address: int) -> None:
        _call(cudart.cudaFree(address), "GPU memory cannot be freed")

    def pinned(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = _call(cudart.cudaMallocHost(nbytes), f"{nbytes / 1e6:.0f} MB of pinned memory cannot be had")
        return array_at(int(address), shape, dtype)

    def free_pinned(self, array: np.ndarray) -> None:
        _call(cudart.cudaFreeHost(array.ctypes.data), "pinned memory cannot be freed")

    def to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        handle = self._streams[stream]
        _call(
            cudart.cudaMemcpyAsync(address, array.ctypes.data, array.nbytes, kind, handle), "copying to the GPU failed"
        )

    def to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        handle = self._streams[stream]
        _call(
            cudart.cudaMemcpyAsync(array.ctypes.data, address, array.nbytes, kind, handle),
            "copying from the GPU failed",
        )

    def stream(self) -> int:
        # Not ordered with the default stream, which TensorRT warns about.
        handle = _call(cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking), "a CUDA stream cannot be made")
        self._streams[int(handle)] = handle
        return int(handle)

    def destroy_stream(self, stream: int) -> None:
        _call(cudart.cudaStreamDestroy(self._streams.pop(stream)), "a CUDA stream cannot be closed")

    def event(self) -> int:
        handle = _call(cudart.cudaEventCreateWithFlags(cudart.cudaEventBlockingSync), "a CUDA event cannot be made")
        self._events[int(handle)] = handle
        return int(handle)

    def destroy_event(self, event: int) -> None:
        _call(cudart.cudaEventDestroy(self._events.pop(event)), "a CUDA event cannot be closed")

    def record(self, event: int, stream: int) -> None:
        _call(cudart.cudaEventRecord(self._events[event], self._streams[stream]), "a CUDA event cannot be recorded")

    def wait(self, event: int) -> None:
        _call(cudart.cudaEventSynchronize(self._events[event]), "the GPU failed at its work")

    def elapsed_ms(self, start: int, end: int) -> float:
        return float(_call(cudart.cudaEventElapsedTime(self._events[start], self._events[end]), "no time was measured"))

    def synchronize(self, stream: int) -> None:
        _call(cudart.cudaStreamSynchronize(self._streams[stream]), "the GPU failed at its work")

    def capture(self, stream: int, enqueue: Callable[[], None]) -> int:
        handle = self._streams[stream]
        # Thread-local: other threads of the process may go on allocating meanwhile.
        mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        try:
            _call(cudart.cudaStreamBeginCapture(handle, mode), "capture did not begin")
        except BackendError as error:
            raise GraphCaptureError(error.what) from error
        failure: Exception | None = None
        try:
            enqueue()
        except Exception as error:  # whatever went wrong, the stream must leave capture mode
            failure = error
        status, graph = cudart.cudaStreamEndCapture(handle)
        if failure is not None or status != cudart.cudaError_t.cudaSuccess:
            cudart.cudaGetLastError()  # a failed capture must not be blamed on the next call
            reason = failure or _reason(status)
            raise GraphCaptureError(f"capture failed: {reason}") from failure
        try:
            executable = _call(cudart.cudaGraphInstantiate(graph, 0), "the graph cannot be made executable")
        except BackendError as error:
            cudart.cudaGraphDestroy(graph)
            raise GraphCaptureError(error.what) from error
        self._graphs[int(executable)] = (executable, graph)
        return int(executable)

    def launch(self, graph: int, stream: int) -> None:
        _call(cudart.cudaGraphLaunch(self._graphs[graph][0], self._streams[stream]), "a CUDA graph cannot be launched")

    def destroy_graph(self, graph: int) -> None:
        executable, captured = self._graphs.pop(graph)
        _call(cudart.cudaGraphExecDestroy(executable), "a CUDA graph cannot be closed")
        _call(cudart.cudaGraphDestroy(captured), "a CUDA graph cannot be closed")

    def close(self) -> None:
        """Nothing: the primary context may serve others in this process."""


def _call(answer: tuple, what: str) -> Any:
    """The result of a call of the package, which answers (status, result...)."""
    status, *results = answer
    if status != cudart.cudaError_t.cudaSuccess:
        out_of_memory = status == cudart.cudaError_t.cudaErrorMemoryAllocation
        hint = "close other programs that use the GPU, or build with a smaller --max-batch" if out_of_memory else ""
        raise BackendError(
            f"{what}: {_reason(status)}", hint=hint or "check nvidia-smi, the driver and mma-edge doctor"
        )
    if not results:
        return None
    return results[0] if len(results) == 1 else tuple(results)


def _reason(status: Any) -> str:
    _, text = cudart.cudaGetErrorString(status)
    return text.decode() if isinstance(text, bytes) else str(text)
