"""Device memory through NVIDIA's cuda-python (`cuda.bindings.runtime`, 12.6 or later)."""

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
        # Streams, events and graphs by their address: the package's objects must live as long as what they name.
        self._handles: dict[int, Any] = {}

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        # Each thread has its own current device.
        _call(cudart.cudaSetDevice(DEVICE), "the GPU cannot be used")
        yield

    def free_and_total_bytes(self) -> tuple[int, int]:
        return _call(cudart.cudaMemGetInfo(), "the GPU's free memory cannot be read")

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
        self._copy(address, array.ctypes.data, array.nbytes, cudart.cudaMemcpyKind.cudaMemcpyHostToDevice, stream)

    def to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        self._copy(array.ctypes.data, address, array.nbytes, cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost, stream)

    def _copy(self, to: int, source: int, nbytes: int, kind: Any, stream: int) -> None:
        status = cudart.cudaMemcpyAsync(to, source, nbytes, kind, self._handles[stream])
        _call(status, "copying to or from the GPU failed")

    def stream(self) -> int:
        # Not ordered with the default stream, which TensorRT warns about.
        return self._keep(cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking), "a CUDA stream")

    def destroy_stream(self, stream: int) -> None:
        _call(cudart.cudaStreamDestroy(self._handles.pop(stream)), "a CUDA stream cannot be closed")

    def event(self) -> int:
        return self._keep(cudart.cudaEventCreateWithFlags(cudart.cudaEventBlockingSync), "a CUDA event")

    def destroy_event(self, event: int) -> None:
        _call(cudart.cudaEventDestroy(self._handles.pop(event)), "a CUDA event cannot be closed")

    def record(self, event: int, stream: int) -> None:
        _call(cudart.cudaEventRecord(self._handles[event], self._handles[stream]), "a CUDA event cannot be recorded")

    def wait(self, event: int) -> None:
        _call(cudart.cudaEventSynchronize(self._handles[event]), "the GPU failed at its work")

    def elapsed_ms(self, start: int, end: int) -> float:
        milliseconds = cudart.cudaEventElapsedTime(self._handles[start], self._handles[end])
        return float(_call(milliseconds, "the time on the GPU was not measured"))

    def synchronize(self, stream: int) -> None:
        _call(cudart.cudaStreamSynchronize(self._handles[stream]), "the GPU failed at its work")

    def capture(self, stream: int, enqueue: Callable[[], None]) -> int:
        handle = self._handles[stream]
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
            raise GraphCaptureError(f"capture failed: {failure or _reason(status)}") from failure
        try:
            return self._keep(cudart.cudaGraphInstantiate(graph, 0), "an executable CUDA graph")
        except BackendError as error:
            raise GraphCaptureError(error.what) from error
        finally:
            cudart.cudaGraphDestroy(graph)  # the executable graph does not need the captured one

    def launch(self, graph: int, stream: int) -> None:
        _call(cudart.cudaGraphLaunch(self._handles[graph], self._handles[stream]), "a CUDA graph cannot be launched")

    def destroy_graph(self, graph: int) -> None:
        _call(cudart.cudaGraphExecDestroy(self._handles.pop(graph)), "a CUDA graph cannot be closed")

    def close(self) -> None:
        """Does nothing: the primary context may serve others in this process."""

    def _keep(self, answer: tuple, what: str) -> int:
        handle = _call(answer, f"{what} cannot be made")
        self._handles[int(handle)] = handle
        return int(handle)


def _call(answer: tuple, what: str) -> Any:
    """The result of a call of the package, which answers (status, result...); BackendError where the call failed."""
    status, *results = answer
    if status != cudart.cudaError_t.cudaSuccess:
        hint = "check nvidia-smi, the driver and mma-edge doctor"
        if status == cudart.cudaError_t.cudaErrorMemoryAllocation:
            hint = "close other programs that use the GPU, or build with a smaller --max-batch"
        raise BackendError(f"{what}: {_reason(status)}", hint=hint)
    return results[0] if len(results) == 1 else tuple(results)


def _reason(status: Any) -> str:
    _, text = cudart.cudaGetErrorString(status)
    return text.decode() if isinstance(text, bytes) else str(text)
