"""TensorRT 10.3 or later: runs a plan that `mma-edge build` made on this very device.

Every name of the API that is used here is checked against the real bindings of 10.3, 10.13, 10.16 and 11.4, and the
behaviour against a fake; none of it has run on a GPU yet.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import threading
import weakref
from typing import TYPE_CHECKING

import numpy as np

from mma_edge.bundle import Bundle
from mma_edge.engines.base import INPUTS, OUTPUT
from mma_edge.engines.gpu.interface import DeviceMemory, GraphCaptureError
from mma_edge.engines.gpu.open import open_device_memory
from mma_edge.engines.gpu.open import probe as probe_device_memory
from mma_edge.engines.machine import cuda_devices, driver_cuda_version
from mma_edge.engines.tensorrt.plan import (
    Plan,
    build_command,
    check_plan,
    import_tensorrt,
    make_logger,
    profile_of,
    this_machine,
    usable,
)
from mma_edge.errors import BackendError, BundleError, DependencyError
from mma_edge.precisions import require

if TYPE_CHECKING:
    import tensorrt as trt

__all__ = ["TensorRTEngine", "open_engine", "probe", "usable"]


def probe() -> str | None:
    """None when TensorRT can run here, else why not, with the remedy.

    The driver is asked before anything of TensorRT is created: without a GPU its Runtime and Builder are null
    inside, and using one ends the process.
    """
    try:
        import_tensorrt()
    except (BackendError, DependencyError) as error:
        return f"{error.what}: {error.hint}"
    if not cuda_devices():
        return "TensorRT is installed, but NVIDIA's driver reports no GPU: check nvidia-smi, or use --backend cpu"
    cuda, needed = driver_cuda_version(), _cuda_major_of_package()
    if cuda is None or (needed is not None and cuda[0] < needed):
        have = "no CUDA" if cuda is None else f"CUDA {cuda[0]}.{cuda[1]}"
        package = f"the installed TensorRT is for CUDA {needed}" if needed else "TensorRT is installed"
        return f"{package}, the driver has {have}: upgrade the driver, or install a TensorRT for its CUDA"
    return probe_device_memory()


def lacking(precision: str) -> str | None:
    """None when the GPU can compute in a precision, else what it lacks; asks the driver only."""
    devices = cuda_devices()
    least = require("tensorrt", precision).needs
    if devices and devices[0].compute_capability < least:
        have, need = (".".join(map(str, pair)) for pair in (devices[0].compute_capability, least))
        return f"{devices[0].name} has compute capability {have}; {precision} needs {need}"
    return None


def open_engine(bundle: Bundle, precision: str) -> TensorRTEngine:
    """The plan of this precision that was built on this device.

    Raises:
        DependencyError: TensorRT or cuda-python is missing. BundleError: the plan is damaged.
        BackendError: no GPU, a TensorRT that is too old, or no plan for this machine.
    """
    trt = import_tensorrt()
    if reason := probe():
        raise BackendError(reason, hint="mma-edge doctor shows what this machine can run")
    if reason := lacking(precision):
        raise BackendError(reason, hint="use another --precision")
    return TensorRTEngine(bundle, check_plan(bundle, precision, this_machine(trt)))


class TensorRTEngine:
    """A plan with its buffers, its stream and a CUDA graph per batch size.

    Buffers are allocated once for the plan's largest batch, larger ones are run in parts. A context that was captured
    must not be changed any more (it would change under its graph), so each batch size has an execution context of its
    own; as they never run at once, they share one piece of device memory for their activations.

    Attributes:
        backend: "tensorrt". precision: of the plan. details: one line for people; says when there is no CUDA graph.
        device_ms: time on the GPU of the last call of at most `max_batch` clips, copies included.
        max_batch: clips that run at once.
        notes: see `mma_edge.engines.base.Engine`.
    """

    backend = "tensorrt"

    def __init__(self, bundle: Bundle, plan: Plan, memory: DeviceMemory | None = None) -> None:
        trt = import_tensorrt()
        self.precision, self.max_batch = plan.sidecar["precision"], plan.max_batch
        self.device_ms, self.notes = 0.0, ()
        self._lock = threading.Lock()
        self._session = _Session(trt, bundle, plan, memory or open_device_memory())
        # At interpreter exit too, and before modules are torn down: TensorRT's objects must go before the CUDA context.
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

    def close(self) -> None:
        """Give the GPU back; closing twice is fine."""
        self._closing()


class _Session:
    """Everything that lives on the GPU; `close` releases it in the reverse order of its making."""

    def __init__(self, trt, bundle: Bundle, plan: Plan, memory: DeviceMemory) -> None:
        self.memory, self.no_graph, self.device_ms = memory, "", 0.0
        self._trt = trt
        self._contexts: dict[int, trt.IExecutionContext] = {}
        self._graphs: dict[int, int] = {}
        self._made, self._closed = contextlib.ExitStack(), False
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
        self._made.callback(self._forget, "_runtime")
        self._engine: trt.ICudaEngine | None = self._runtime.deserialize_cuda_engine(plan.data)
        if self._engine is None:
            raise BundleError(
                f"TensorRT cannot load {plan.path}{self._logger.because()}",
                hint=f"build it again with: {build_command(bundle, plan.sidecar['precision'])} --overwrite",
            )
        self._made.callback(self._forget, "_engine")
        self._check_tensors(bundle, plan)

        shapes = {name: largest for name, (_, _, largest) in profile_of(bundle, plan.max_batch).items()}
        shapes[OUTPUT] = (plan.max_batch, len(bundle.labels))
        self._host = {name: self._pinned(shape, INPUTS.get(name, "float32")) for name, shape in shapes.items()}
        self.logits = self._host[OUTPUT]
        self._device = {name: self._malloc(array.nbytes) for name, array in self._host.items()}
        self._scratch_bytes = int(self._engine.device_memory_size_v2)
        self._scratch = self._malloc(max(1, self._scratch_bytes))
        self._stream = memory.stream()
        self._made.callback(memory.destroy_stream, self._stream)
        self._started, self._done = memory.event(), memory.event()
        for event in (self._started, self._done):
            self._made.callback(memory.destroy_event, event)
        self._made.callback(self._contexts.clear)
        self._made.callback(self._destroy_graphs)

    def run(self, frames: np.ndarray, mel: np.ndarray) -> np.ndarray:
        """At most max_batch clips -> logits float32 (n, C), the caller's own."""
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

    def _prepare(self, count: int) -> None:
        """A context for this batch size, warmed up, and its CUDA graph when it can be captured."""
        trt = self._trt
        context: trt.IExecutionContext = self._engine.create_execution_context(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        if context is None:
            raise BackendError(
                f"TensorRT makes no execution context{self._logger.because()}",
                hint="close other programs that use the GPU, or build with a smaller --max-batch",
            )
        context.set_device_memory(self._scratch, self._scratch_bytes)
        accepted = [context.set_input_shape(name, (count, *self._host[name].shape[1:])) for name in INPUTS]
        accepted += [context.set_tensor_address(name, address) for name, address in self._device.items()]
        if not all(accepted):
            raise BackendError(f"TensorRT does not take a batch of {count}{self._logger.because()}")
        self._contexts[count] = context
        try:
            # Once without capturing: TensorRT finishes setting up a context in its first enqueue.
            self._enqueue(count)
            self.memory.synchronize(self._stream)
        except BaseException:
            del self._contexts[count]
            raise
        if self.no_graph:
            return
        try:
            self._graphs[count] = self.memory.capture(self._stream, lambda: self._enqueue(count))
        except GraphCaptureError as error:
            self.no_graph = str(error)

    def _enqueue(self, count: int) -> None:
        """Copy in, compute, copy out: all in the stream's order."""
        memory, stream = self.memory, self._stream
        for name in INPUTS:
            memory.to_device(self._device[name], self._host[name][:count], stream)
        context: trt.IExecutionContext = self._contexts[count]
        if not context.execute_async_v3(stream):
            raise BackendError(f"TensorRT failed to run the engine{self._logger.because()}", hint="see mma-edge doctor")
        memory.to_host(self.logits[:count], self._device[OUTPUT], stream)

    def _check_tensors(self, bundle: Bundle, plan: Plan) -> None:
        """The engine's inputs and output are those of the contract, its profile the sidecar's."""
        trt = self._trt
        engine: trt.ICudaEngine = self._engine
        kinds = {name: trt.DataType.UINT8 if kind == "uint8" else trt.DataType.FLOAT for name, kind in INPUTS.items()}
        kinds[OUTPUT] = trt.DataType.FLOAT
        found = {
            name: engine.get_tensor_dtype(name) for name in map(engine.get_tensor_name, range(engine.num_io_tensors))
        }
        profile = profile_of(bundle, plan.max_batch)
        if found == kinds and engine.num_optimization_profiles == 1:
            shapes = {name: engine.get_tensor_profile_shape(name, 0) for name in INPUTS}
            if all([tuple(shape) for shape in shapes[name]] == list(profile[name]) for name in INPUTS):
                return
        raise BundleError(
            f"{plan.path} is an engine of another graph: tensors {sorted(found)}",
            f"{sorted(kinds)} with the profile of its sidecar",
            f"build it again with: {build_command(bundle, plan.sidecar['precision'])} --overwrite",
        )

    def _pinned(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        array = self.memory.pinned(shape, np.dtype(dtype).type)
        self._made.callback(self.memory.free_pinned, array)
        return array

    def _malloc(self, nbytes: int) -> int:
        address = self.memory.malloc(nbytes)
        self._made.callback(self.memory.free, address)
        return address

    def _destroy_graphs(self) -> None:
        while self._graphs:
            self.memory.destroy_graph(self._graphs.popitem()[1])

    def _forget(self, name: str) -> None:
        setattr(self, name, None)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            with self.memory.active():
                self._made.close()
        finally:
            self.memory.close()


def _cuda_major_of_package() -> int | None:
    """CUDA that the pip package of TensorRT was made for; None when it did not come by pip."""
    for major in (13, 12, 11):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(f"tensorrt-cu{major}-bindings")
            return major
    return None
