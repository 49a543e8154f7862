"""GPU memory, streams, events and CUDA graphs behind one small interface, from whichever package is installed.

Two packages can serve: NVIDIA's cuda-python (`cuda.bindings.runtime`; wheels for x86_64 and aarch64) and pycuda
(built from source). Addresses and handles are plain integers, as TensorRT takes them. Neither has run on a GPU yet
in this project: names and signatures are checked against the packages, behaviour against a fake.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np


class GraphCaptureError(Exception):
    """This work cannot be captured as a CUDA graph; it can still be enqueued as it is."""


class DeviceMemory(Protocol):
    """Memory and order of work on one GPU. Every call is made within `active()`.

    Attributes:
        library: what serves, with its version.
    """

    library: str

    def active(self) -> AbstractContextManager[None]:
        """Makes the GPU the one that the calling thread works on."""
        ...

    def free_and_total_bytes(self) -> tuple[int, int]: ...

    def malloc(self, nbytes: int) -> int:
        """Device memory, at least 256-byte aligned; BackendError when there is not enough."""
        ...

    def free(self, address: int) -> None: ...

    def pinned(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """Host memory that the GPU copies from and to without a detour; give it back with `free_pinned`."""
        ...

    def free_pinned(self, array: np.ndarray) -> None: ...

    def to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        """Copy a contiguous array to the device, in the order of the stream."""
        ...

    def to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        """Copy device memory into a contiguous array, in the order of the stream."""
        ...

    def stream(self) -> int: ...

    def destroy_stream(self, stream: int) -> None: ...

    def event(self) -> int:
        """An event that measures time, and whose waiting thread sleeps: the processor has faces to find meanwhile."""
        ...

    def destroy_event(self, event: int) -> None: ...

    def record(self, event: int, stream: int) -> None: ...

    def wait(self, event: int) -> None: ...

    def elapsed_ms(self, start: int, end: int) -> float: ...

    def synchronize(self, stream: int) -> None: ...

    def capture(self, stream: int, enqueue: Callable[[], None]) -> int:
        """What `enqueue` puts on the stream, as a CUDA graph.

        Raises:
            GraphCaptureError: it cannot be captured, or this library cannot capture. The stream is usable again.
        """
        ...

    def launch(self, graph: int, stream: int) -> None: ...

    def destroy_graph(self, graph: int) -> None: ...

    def close(self) -> None:
        """After everything made here has been given back."""
        ...


def array_at(address: int, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """An array over host memory that somebody else owns."""
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_byte * nbytes).from_address(address), dtype).reshape(shape)
