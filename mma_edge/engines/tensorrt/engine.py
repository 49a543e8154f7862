"""TensorRT 10.3 or later: runs a plan that `mma-edge build` made on this very device.

Every name of the API that is used here is checked against the real bindings of 10.3, 10.13, 10.16 and 11.4.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import threading
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from mma_edge.bundle import Bundle
from mma_edge.engines.base import INPUTS, OUTPUT, why_unusable
from mma_edge.engines.gpu.interface import DeviceMemory, GraphCaptureError
from mma_edge.engines.gpu.open import open_device_memory
from mma_edge.engines.gpu.open import probe as probe_device_memory
from mma_edge.engines.machine import cuda_devices, dotted, driver_cuda_version
from mma_edge.engines.tensorrt.plan import (
    Plan,
    build_command,
    check_plan,
    import_tensorrt,
    make_logger,
    profiles_of,
    this_machine,
    usable,
)
from mma_edge.errors import BackendError, BundleError
from mma_edge.precisions import require

if TYPE_CHECKING:
    import tensorrt as trt

T = TypeVar("T")
__all__ = ["TensorRTEngine", "open_engine", "probe", "usable"]


def probe() -> str | None:
    """None when TensorRT can run here, else why not, with the remedy.

    It asks the driver before it creates anything of TensorRT: without a GPU TensorRT's Runtime and Builder are null
    inside, and using one crashes the process.
    """
    if reason := why_unusable(import_tensorrt):
        return reason
    if not cuda_devices():
        return "TensorRT is installed, but NVIDIA's driver reports no GPU: check nvidia-smi, or use --backend cpu"
    cuda, needed = driver_cuda_version(), _cuda_major_of_package()
    if cuda is None or (needed is not None and cuda[0] < needed):
        have = "no CUDA" if cuda is None else f"CUDA {dotted(cuda)}"
        package = f"the installed TensorRT is for CUDA {needed}" if needed else "TensorRT is installed"
        return f"{package}, the driver has {have}: upgrade the driver, or install a TensorRT for its CUDA"
    return probe_device_memory()


def require_tensorrt() -> ModuleType:
    """TensorRT, which can run here; BackendError or DependencyError where it cannot."""
    trt = import_tensorrt()
    if reason := probe():
        raise BackendError(reason, hint="mma-edge doctor shows what this machine can run")
    return trt


def lacking(precision: str) -> str | None:
    """None when the GPU can compute in a precision, else what it lacks; asks only the driver."""
    least = require("tensorrt", precision).needs
    for gpu in cuda_devices()[:1]:
        if gpu.compute_capability < least:
            return f"{gpu.name} has compute capability {gpu.capability}; {precision} needs {dotted(least)}"
    return None


def open_engine(bundle: Bundle, precision: str) -> TensorRTEngine:
    """The plan of this precision that was built on this device.

    Raises:
        DependencyError: TensorRT or cuda-python is missing. BundleError: the plan is damaged.
        BackendError: no GPU, a TensorRT that is too old, or no plan for this machine.
    """
    trt = require_tensorrt()
    if reason := lacking(precision):
        raise BackendError(reason, hint="use another --precision")
    return TensorRTEngine(bundle, check_plan(bundle, precision, this_machine(trt)))


class TensorRTEngine:
    """A plan with its buffers, its stream and a CUDA graph per batch size.

    Buffers are allocated once, for the plan's largest batch; larger batches run in parts. A context that was captured
    must not be changed any more (its graph would no longer fit), so each batch size has its own execution context; as
    these never run at the same time, they share one piece of device memory for their activations.
    `details` says when there is no CUDA graph.
    """

    backend = "tensorrt"

    def __init__(self, bundle: Bundle, plan: Plan, memory: DeviceMemory | None = None) -> None:
        trt = import_tensorrt()
        self.precision, self.max_batch, self.notes = plan.sidecar["precision"], plan.max_batch, plan.notes
        self.device_ms = 0.0  # on the GPU, of the last call of at most `max_batch` clips, copies included
        self._lock = threading.Lock()
        self._session = _Session(trt, bundle, plan, memory or open_device_memory())
        # Also at the interpreter's exit, before modules are torn down: TensorRT's objects must go before the CUDA
        # context.
        self._closing = weakref.finalize(self, self._session.close)
        self._name = f"TensorRT {plan.sidecar['tensorrt']} on {plan.sidecar['gpu']}, {self._session.memory.library}"

    @property
    def details(self) -> str:
        reason = self._session.no_graph
        return self._name + (f", no CUDA graph ({reason})" if reason else "")

    def __call__(self, frames: np.ndarray, mel: np.ndarray) -> np.ndarray:
        """frames uint8 (N, 16, S, S, 3), mel float32 (N, 512, 128) -> logits float32 (N, C)."""
        # One at a time: the buffers are shared.
        with self._lock:
            if not self._closing.alive:
                raise BackendError("this TensorRT engine was closed", hint="open the bundle again")
            parts = [
                self._session.run(frames[start : start + self.max_batch], mel[start : start + self.max_batch])
                for start in range(0, len(frames), self.max_batch)
            ]
            self.device_ms = self._session.device_ms
        return np.concatenate(parts) if parts else np.zeros((0, self._session.logits.shape[1]), np.float32)

    def layer_information(self) -> str:
        """What TensorRT says of the plan's layers: JSON, an object with a list "Layers" (docs of EngineInspector)."""
        return self._session.layer_information()

    def close(self) -> None:
        """Release the GPU; closing twice is fine."""
        self._closing()


class _Session:
    """Everything that lives on the GPU; `close`, called once, releases it in the reverse order of its making."""

    def __init__(self, trt, bundle: Bundle, plan: Plan, memory: DeviceMemory) -> None:
        self.memory, self.no_graph, self.device_ms = memory, "", 0.0
        self._trt = trt
        self._contexts: dict[int, trt.IExecutionContext] = {}
        self._graphs: dict[int, int] = {}
        self._made = contextlib.ExitStack()
        try:
            with memory.active():
                self._open(bundle, plan)
        except BaseException:
            self.close()
            raise

    def _open(self, bundle: Bundle, plan: Plan) -> None:
        trt, memory = self._trt, self.memory
        self._logger = make_logger(trt)
        self._runtime: trt.Runtime | None = trt.Runtime(self._logger)
        self._made.callback(self.__dict__.pop, "_runtime")
        self._engine: trt.ICudaEngine | None = self._runtime.deserialize_cuda_engine(plan.data)
        if self._engine is None:
            hint = f"build it again with: {build_command(bundle, plan.sidecar['precision'])} --overwrite"
            raise BundleError(f"TensorRT cannot load {plan.path}{self._logger.because()}", hint=hint)
        self._made.callback(self.__dict__.pop, "_engine")
        self._check_tensors(bundle, plan)

        shapes = {name: largest for name, (_, _, largest) in self._profiles[0].items()}
        shapes[OUTPUT] = (plan.max_batch, len(bundle.labels))
        kinds = {name: np.dtype(INPUTS.get(name, "float32")).type for name in shapes}
        self._host = {
            name: self._own(memory.pinned(shape, kinds[name]), memory.free_pinned) for name, shape in shapes.items()
        }
        self.logits = self._host[OUTPUT]
        self._device = {name: self._own(memory.malloc(array.nbytes), memory.free) for name, array in self._host.items()}
        self._scratch_bytes = int(self._engine.device_memory_size_v2)
        self._scratch = self._own(memory.malloc(max(1, self._scratch_bytes)), memory.free)
        self._stream = self._own(memory.stream(), memory.destroy_stream)
        self._started = self._own(memory.event(), memory.destroy_event)
        self._done = self._own(memory.event(), memory.destroy_event)
        self._made.callback(self._contexts.clear)

    def run(self, frames: np.ndarray, mel: np.ndarray) -> np.ndarray:
        """At most max_batch clips -> logits float32 (n, C), a copy."""
        count = len(frames)
        with self.memory.active():
            np.copyto(self._host["frames"][:count], frames)
            np.copyto(self._host["mel"][:count], mel)
            if count not in self._contexts:
                self._prepare(count)
            self.memory.record(self._started, self._stream)
            if count in self._graphs:
                self.memory.launch(self._graphs[count], self._stream)
            else:
                self._enqueue(count)
            self.memory.record(self._done, self._stream)
            self.memory.wait(self._done)
            self.device_ms = self.memory.elapsed_ms(self._started, self._done)
            return self.logits[:count].copy()

    def layer_information(self) -> str:
        with self.memory.active():
            inspector: trt.EngineInspector = self._engine.create_engine_inspector()
            return inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)

    def _prepare(self, count: int) -> None:
        """Make a context for this batch size, warm it up, and capture its CUDA graph where that is possible."""
        trt = self._trt
        context: trt.IExecutionContext = self._engine.create_execution_context(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        if context is None:
            hint = "close other programs that use the GPU, or build with a smaller --max-batch"
            raise BackendError(f"TensorRT makes no execution context{self._logger.because()}", hint=hint)
        context.set_device_memory(self._scratch, self._scratch_bytes)
        # The last that holds the batch is tuned for sizes near it.
        profile = max(row for row, shapes in enumerate(self._profiles) if shapes["frames"][2][0] >= count)
        accepted = [context.set_optimization_profile_async(profile, self._stream)]
        accepted += [context.set_input_shape(name, (count, *self._host[name].shape[1:])) for name in INPUTS]
        accepted += [context.set_tensor_address(name, address) for name, address in self._device.items()]
        if not all(accepted):
            raise BackendError(f"TensorRT does not take a batch of {count}{self._logger.because()}")
        self._contexts[count] = context
        try:
            # Once without capture: TensorRT finishes setting up a context in its first enqueue.
            self._enqueue(count)
            self.memory.synchronize(self._stream)
        except BaseException:
            del self._contexts[count]
            raise
        if self.no_graph:
            return
        try:
            graph = self.memory.capture(self._stream, lambda: self._enqueue(count))
            self._graphs[count] = self._own(graph, self.memory.destroy_graph)
        except GraphCaptureError as error:
            self.no_graph = str(error)

    def _enqueue(self, count: int) -> None:
        """Copy in, compute, copy out, in the stream's order."""
        memory, stream = self.memory, self._stream
        for name in INPUTS:
            memory.to_device(self._device[name], self._host[name][:count], stream)
        context: trt.IExecutionContext = self._contexts[count]
        if not context.execute_async_v3(stream):
            raise BackendError(f"TensorRT failed to run the engine{self._logger.because()}", hint="see mma-edge doctor")
        memory.to_host(self.logits[:count], self._device[OUTPUT], stream)

    def _check_tensors(self, bundle: Bundle, plan: Plan) -> None:
        """BundleError unless the engine has the contract's inputs and output and the sidecar's profile."""
        trt = self._trt
        engine: trt.ICudaEngine = self._engine
        kinds = {name: trt.DataType.UINT8 if kind == "uint8" else trt.DataType.FLOAT for name, kind in INPUTS.items()}
        kinds[OUTPUT] = trt.DataType.FLOAT
        found = {
            name: engine.get_tensor_dtype(name) for name in map(engine.get_tensor_name, range(engine.num_io_tensors))
        }
        self._profiles = profiles_of(bundle, plan.max_batch)
        if found == kinds and engine.num_optimization_profiles == len(self._profiles):
            shapes = [
                {name: tuple(map(tuple, engine.get_tensor_profile_shape(name, row))) for name in INPUTS}
                for row in range(len(self._profiles))
            ]
            if shapes == self._profiles:
                return
        expected = f"{sorted(kinds)} with the profiles of its sidecar"
        hint = f"build it again with: {build_command(bundle, plan.sidecar['precision'])} --overwrite"
        raise BundleError(f"{plan.path} is an engine of another graph: tensors {sorted(found)}", expected, hint)

    def _own(self, made: T, release: Callable[[T], None]) -> T:
        """`made`, which `close` gives to `release`."""
        self._made.callback(release, made)
        return made

    def close(self) -> None:
        try:
            with self.memory.active():
                self._made.close()
        finally:
            self.memory.close()


def _cuda_major_of_package() -> int | None:
    """The CUDA version that TensorRT's pip package was made for; None when pip did not install it."""
    for major in (13, 12, 11):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(f"tensorrt-cu{major}-bindings")
            return major
    return None
