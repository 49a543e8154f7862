"""A stand-in for `cuda.bindings.runtime`: device memory is host memory, a stream runs at once, a graph is a list.

Its surface is a subset of the real one (test_tensorrt_contract.py). FAKE_GPU, a list of words, makes it fail:
no-capture (a stream cannot be captured), no-device.
"""

# ruff: noqa: N801, N802, N815, N816 (the names are NVIDIA's)

from __future__ import annotations

import ctypes
import enum
import itertools
import os
from collections.abc import Callable

LIVE: dict[int, str] = {}
"""What was made and not given back: handle or address -> kind."""
FREE_BYTES, TOTAL_BYTES = 6 * 10**9, 8 * 10**9
GRAPH_LAUNCHES: list[int] = []
_buffers: dict[int, ctypes.Array] = {}
_handles = itertools.count(1000)
_captures: dict[int, list[Callable[[], None]]] = {}
_graphs: dict[int, list[Callable[[], None]]] = {}


def told_to(word: str) -> bool:
    return word in os.environ.get("FAKE_GPU", "").split()


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInvalidValue = 1
    cudaErrorNoDevice = 100
    cudaErrorStreamCaptureUnsupported = 900


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


cudaStreamNonBlocking = 1
cudaEventBlockingSync = 1
OK = cudaError_t.cudaSuccess


def submit(stream: int, work: Callable[[], None]) -> None:
    """Now, or into the graph that the stream is being captured for."""
    if int(stream) in _captures:
        _captures[int(stream)].append(work)
    else:
        work()


def _make(kind: str) -> int:
    handle = next(_handles)
    LIVE[handle] = kind
    return handle


def _drop(handle: int, kind: str) -> tuple:
    if LIVE.get(int(handle)) != kind:
        return (cudaError_t.cudaErrorInvalidValue,)
    del LIVE[int(handle)]
    _buffers.pop(int(handle), None)
    return (OK,)


def _allocate(size: int, kind: str) -> tuple:
    if size > FREE_BYTES:
        return cudaError_t.cudaErrorMemoryAllocation, None
    buffer = (ctypes.c_byte * size)()
    address = ctypes.addressof(buffer)
    _buffers[address], LIVE[address] = buffer, kind
    return OK, address


def cudaSetDevice(device):
    return (cudaError_t.cudaErrorNoDevice if told_to("no-device") else OK,)


def cudaGetDeviceCount():
    return OK, 1


def cudaRuntimeGetVersion():
    return OK, 12060


def cudaMemGetInfo():
    return OK, FREE_BYTES, TOTAL_BYTES


def cudaMalloc(size):
    return _allocate(size, "device")


def cudaFree(devPtr):
    return _drop(devPtr, "device")


def cudaMallocHost(size):
    return _allocate(size, "pinned")


def cudaFreeHost(ptr):
    return _drop(ptr, "pinned")


def cudaMemcpyAsync(dst, src, count, kind, stream):
    submit(stream, lambda: ctypes.memmove(dst, src, count))
    return (OK,)


def cudaStreamCreateWithFlags(flags):
    return OK, _make("stream")


def cudaStreamDestroy(stream):
    return _drop(stream, "stream")


def cudaStreamSynchronize(stream):
    # Not allowed while capturing, as on a GPU.
    return (cudaError_t.cudaErrorStreamCaptureUnsupported if int(stream) in _captures else OK,)


def cudaEventCreateWithFlags(flags):
    return OK, _make("event")


def cudaEventDestroy(event):
    return _drop(event, "event")


def cudaEventRecord(event, stream):
    return (OK,)


def cudaEventSynchronize(event):
    return (OK,)


def cudaEventElapsedTime(start, end):
    return OK, 2.5


def cudaStreamBeginCapture(stream, mode):
    if told_to("no-capture"):
        return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
    _captures[int(stream)] = []
    return (OK,)


def cudaStreamEndCapture(stream):
    graph = _make("graph")
    _graphs[graph] = _captures.pop(int(stream))
    return OK, graph


def cudaGraphInstantiate(graph, flags):
    executable = _make("executable")
    _graphs[executable] = list(_graphs[graph])
    return OK, executable


def cudaGraphLaunch(graphExec, stream):
    GRAPH_LAUNCHES.append(int(graphExec))
    for work in _graphs[int(graphExec)]:
        work()
    return (OK,)


def cudaGraphExecDestroy(graphExec):
    return _drop(graphExec, "executable")


def cudaGraphDestroy(graph):
    return _drop(graph, "graph")


def cudaGetLastError():
    return (OK,)


def cudaGetErrorString(error):
    return OK, error.name.encode()
