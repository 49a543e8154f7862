"""Device memory through pycuda, for machines that have it already. It has no CUDA graphs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pycuda
import pycuda.driver as driver

from mma_edge.engines.gpu.interface import GraphCaptureError
from mma_edge.errors import BackendError

DEVICE = 0


class PycudaMemory:
    """See `DeviceMemory`.

    It uses the device's primary context and makes no new one: TensorRT works through the CUDA runtime, which uses the
    primary context, and memory of one context is not valid in another. `active` pushes it for the calling thread and
    pops it again, so other users of pycuda in this process find the stack of contexts as it was.
    """

    def __init__(self) -> None:
        hint = "check nvidia-smi and the driver"
        try:
            driver.init()
            if driver.Device.count() < 1:
                raise BackendError("pycuda finds no GPU", hint=hint)
            self._context = driver.Device(DEVICE).retain_primary_context()
        except driver.Error as error:
            raise BackendError(f"pycuda cannot open the GPU: {error}", hint=hint) from error
        self.library = f"pycuda {pycuda.VERSION_TEXT}"
        self._allocations: dict[int, Any] = {}
        self._streams: dict[int, Any] = {}
        self._events: dict[int, Any] = {}

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        except driver.Error as error:
            raise BackendError(f"the GPU failed at its work: {error}", hint="see mma-edge doctor") from error
        finally:
            driver.Context.pop()

    def free_and_total_bytes(self) -> tuple[int, int]:
        free, total = driver.mem_get_info()
        return int(free), int(total)

    def malloc(self, nbytes: int) -> int:
        try:
            allocation = driver.mem_alloc(nbytes)
        except driver.MemoryError as error:
            hint = "close other programs that use the GPU, or build with a smaller --max-batch"
            raise BackendError(f"{nbytes / 1e6:.0f} MB of GPU memory cannot be had: {error}", hint=hint) from error
        self._allocations[int(allocation)] = allocation
        return int(allocation)

    def free(self, address: int) -> None:
        self._allocations.pop(address).free()

    def pinned(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        return driver.pagelocked_empty(shape, dtype)

    def free_pinned(self, array: np.ndarray) -> None:
        array.base.free()

    def to_device(self, address: int, array: np.ndarray, stream: int) -> None:
        driver.memcpy_htod_async(address, array, self._streams[stream])

    def to_host(self, array: np.ndarray, address: int, stream: int) -> None:
        driver.memcpy_dtoh_async(array, address, self._streams[stream])

    def stream(self) -> int:
        made = driver.Stream()
        self._streams[int(made.handle)] = made
        return int(made.handle)

    def destroy_stream(self, stream: int) -> None:
        del self._streams[stream]  # pycuda destroys the stream with its object

    def event(self) -> int:
        made = driver.Event(driver.event_flags.BLOCKING_SYNC)
        self._events[id(made)] = made
        return id(made)

    def destroy_event(self, event: int) -> None:
        del self._events[event]

    def record(self, event: int, stream: int) -> None:
        self._events[event].record(self._streams[stream])

    def wait(self, event: int) -> None:
        self._events[event].synchronize()

    def elapsed_ms(self, start: int, end: int) -> float:
        return float(self._events[end].time_since(self._events[start]))

    def synchronize(self, stream: int) -> None:
        self._streams[stream].synchronize()

    def capture(self, stream: int, enqueue: Callable[[], None]) -> int:
        raise GraphCaptureError("pycuda has no CUDA graphs; cuda-python has")

    def launch(self, graph: int, stream: int) -> None:
        raise GraphCaptureError("pycuda has no CUDA graphs")

    def destroy_graph(self, graph: int) -> None:
        raise GraphCaptureError("pycuda has no CUDA graphs")

    def close(self) -> None:
        self._context.detach()
