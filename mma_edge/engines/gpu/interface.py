"""GPU memory, streams, events and CUDA graphs behind one small interface, from whichever package is installed.

Two packages can serve: NVIDIA's cuda-python (`cuda.bindings.runtime`; wheels for x86_64 and aarch64) and pycuda
(built from source). Addresses and handles are plain integers, as TensorRT takes them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np


class GraphCaptureError(Exception):
    """This work cannot be captured as a CUDA graph; it can still be enqueued call by call."""


class DeviceMemory(Protocol):
    """Memory and order of work on one GPU. Make every call inside `with memory.active():`."""

    library: str  # the package behind it, with its version

    def active(self) -> AbstractContextManager[None]:
        """Make the calling thread work on this GPU."""

    def free_and_total_bytes(self) -> tuple[int, int]: ...

    def malloc(self, nbytes: int) -> int:
        """Device memory, at least 256-byte aligned; BackendError when there is not enough."""

    def free(self, address: int) -> None: ...

    def pinned(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """Host memory that the GPU copies from and to directly; give it back with `free_pinned`."""

    def free_pinned(self, array: np.ndarray) -> None: ...

    def to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        """Copy a contiguous array to the device, in the stream's order."""

    def to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        """Copy device memory into a contiguous array, in the stream's order."""

    def stream(self) -> int: ...
    def destroy_stream(self, stream: int) -> None: ...

    def event(self) -> int:
        """An event that measures time. A thread that waits for it sleeps: the processor has faces to find meanwhile."""

    def destroy_event(self, event: int) -> None: ...

    def record(self, event: int, stream: int) -> None: ...
    def wait(self, event: int) -> None: ...
    def elapsed_ms(self, start: int, end: int) -> float: ...
    def synchronize(self, stream: int) -> None: ...

    def capture(self, stream: int, enqueue: Callable[[], None]) -> int:
        """A CUDA graph of the work that `enqueue` puts on the stream.

        Raises:
            GraphCaptureError: it cannot be captured, or this library cannot capture. The stream is usable again.
        """

    def launch(self, graph: int, stream: int) -> None: ...
    def destroy_graph(self, graph: int) -> None: ...

    def close(self) -> None:
        """Release the GPU; everything made here must have been given back before."""


def array_at(address: int, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """An array over host memory that the caller owns."""
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_byte * nbytes).from_address(address), dtype).reshape(shape)
