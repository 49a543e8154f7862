"""A plan on the GPU: its buffers, its stream, and a CUDA graph per batch size."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from mma_edge.engines.gpu.interface import DeviceMemory, GraphCaptureError
from mma_edge.engines.tensorrt.plan import Plan, make_logger
from mma_edge.engines.tensorrt.target import Tensor
from mma_edge.errors import BackendError, BundleError

if TYPE_CHECKING:
    import tensorrt as trt

T = TypeVar("T")
MAX_CONTEXTS = 32
"""Batch sizes that are kept ready; each takes some memory of the GPU. A further one takes the place of the oldest."""
Sizes = tuple[tuple[str, int], ...]
"""The graph's free sizes in one call, by their names."""


class Session:
    """Everything of a plan that lives on the GPU; `close`, called once, releases it in the reverse order of its making.

    Buffers are allocated once, for the plan's largest batch. A context that was captured must not be changed any more
    (its graph would no longer fit), so each batch size has its own execution context; as these never run at the same
    time, they share one piece of device memory for their activations.

    Attributes:
        no_graph: why there are no CUDA graphs, or "".
        device_ms: of the last run, on the GPU, copies included.
    """

    def __init__(self, trt, plan: Plan, memory: DeviceMemory) -> None:
        self.memory, self.no_graph, self.device_ms = memory, "", 0.0
        self._trt = trt
        self._contexts: dict[Sizes, trt.IExecutionContext] = {}
        self._graphs: dict[Sizes, int] = {}
        self._made = contextlib.ExitStack()
        try:
            with memory.active():
                self._open(plan)
        except BaseException:
            self.close()
            raise

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Arrays of at most the plan's largest sizes -> the outputs, copies."""
        given = {tensor.shape[0]: len(inputs[name]) for name, tensor in self._inputs.items()}
        sizes = tuple((name, size) for name, size in given.items() if isinstance(name, str))
        with self.memory.active():
            for name in self._inputs:
                np.copyto(self._part(name, sizes), inputs[name])
            if sizes not in self._contexts:
                self._prepare(sizes)
            self.memory.record(self._started, self._stream)
            if sizes in self._graphs:
                self.memory.launch(self._graphs[sizes], self._stream)
            else:
                self._enqueue(sizes)
            self.memory.record(self._done, self._stream)
            self.memory.wait(self._done)
            self.device_ms = self.memory.elapsed_ms(self._started, self._done)
            return {name: self._part(name, sizes).copy() for name in self._outputs}

    def layer_information(self) -> str:
        """What TensorRT says of the plan's layers: JSON, an object with a list "Layers" (docs of EngineInspector)."""
        with self.memory.active():
            inspector: trt.EngineInspector = self._engine.create_engine_inspector()
            return inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)

    def close(self) -> None:
        try:
            with self.memory.active():
                self._made.close()
        finally:
            self.memory.close()

    def _open(self, plan: Plan) -> None:
        trt, memory, target = self._trt, self.memory, plan.target
        self._logger = make_logger(trt)
        self._runtime: trt.Runtime | None = trt.Runtime(self._logger)
        self._made.callback(self.__dict__.pop, "_runtime")
        self._engine: trt.ICudaEngine | None = self._runtime.deserialize_cuda_engine(plan.data)
        if self._engine is None:
            hint = f"build it again with: {target.command} --overwrite"
            raise BundleError(f"TensorRT cannot load {plan.path}{self._logger.because()}", hint=hint)
        self._made.callback(self.__dict__.pop, "_engine")
        self._inputs, self._outputs, self._profiles = target.inputs, target.outputs, target.profiles(plan.max_batch)
        self._tensors: dict[str, Tensor] = {**self._inputs, **self._outputs}
        self._check_tensors(plan)

        sizes = target.largest(plan.max_batch)
        self._host = {
            name: self._own(memory.pinned(tensor.sized(sizes), np.dtype(tensor.kind).type), memory.free_pinned)
            for name, tensor in self._tensors.items()
        }
        self._device = {name: self._own(memory.malloc(array.nbytes), memory.free) for name, array in self._host.items()}
        self._scratch_bytes = int(self._engine.device_memory_size_v2)
        self._scratch = self._own(memory.malloc(max(1, self._scratch_bytes)), memory.free)
        self._stream = self._own(memory.stream(), memory.destroy_stream)
        self._started = self._own(memory.event(), memory.destroy_event)
        self._done = self._own(memory.event(), memory.destroy_event)
        self._made.callback(lambda: [self._forget(sizes) for sizes in list(self._contexts)])

    def _part(self, name: str, sizes: Sizes) -> np.ndarray:
        """The rows of a tensor's memory on the host that a call of these sizes uses."""
        free, array = self._tensors[name].shape[0], self._host[name]
        return array[: dict(sizes)[free]] if isinstance(free, str) else array

    def _prepare(self, sizes: Sizes) -> None:
        """Make a context for these sizes, warm it up, and capture its CUDA graph where that is possible."""
        trt = self._trt
        while len(self._contexts) >= MAX_CONTEXTS:
            self._forget(next(iter(self._contexts)))
        context: trt.IExecutionContext = self._engine.create_execution_context(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        if context is None:
            hint = "close other programs that use the GPU, or build with a smaller --max-batch"
            raise BackendError(f"TensorRT makes no execution context{self._logger.because()}", hint=hint)
        context.set_device_memory(self._scratch, self._scratch_bytes)
        shapes = {name: self._part(name, sizes).shape for name in self._inputs}
        # The last that holds the batch is tuned for sizes near it.
        profile = max(row for row, holds in enumerate(self._profiles) if _holds(holds, shapes))
        accepted = [context.set_optimization_profile_async(profile, self._stream)]
        accepted += [context.set_input_shape(name, shape) for name, shape in shapes.items()]
        accepted += [context.set_tensor_address(name, address) for name, address in self._device.items()]
        if not all(accepted):
            asked = " and ".join(str(size) for _, size in sizes)
            raise BackendError(f"TensorRT does not take a batch of {asked}{self._logger.because()}")
        self._contexts[sizes] = context
        try:
            # Once without capture: TensorRT finishes setting up a context in its first enqueue.
            self._enqueue(sizes)
            self.memory.synchronize(self._stream)
        except BaseException:
            del self._contexts[sizes]
            raise
        if self.no_graph:
            return
        try:
            self._graphs[sizes] = self.memory.capture(self._stream, lambda: self._enqueue(sizes))
        except GraphCaptureError as error:
            self.no_graph = str(error)

    def _forget(self, sizes: Sizes) -> None:
        if sizes in self._graphs:
            self.memory.destroy_graph(self._graphs.pop(sizes))
        del self._contexts[sizes]

    def _enqueue(self, sizes: Sizes) -> None:
        """Copy in, compute, copy out, in the stream's order."""
        memory, stream = self.memory, self._stream
        for name in self._inputs:
            memory.to_device(self._device[name], self._part(name, sizes), stream)
        context: trt.IExecutionContext = self._contexts[sizes]
        if not context.execute_async_v3(stream):
            raise BackendError(f"TensorRT failed to run the engine{self._logger.because()}", hint="see mma-edge doctor")
        for name in self._outputs:
            memory.to_host(self._part(name, sizes), self._device[name], stream)

    def _check_tensors(self, plan: Plan) -> None:
        """BundleError unless the engine has the graph's inputs and outputs and the sidecar's profiles."""
        trt = self._trt
        engine: trt.ICudaEngine = self._engine
        types = {"uint8": trt.DataType.UINT8, "float32": trt.DataType.FLOAT, "int64": trt.DataType.INT64}
        kinds = {name: types[tensor.kind] for name, tensor in self._tensors.items()}
        found = {
            name: engine.get_tensor_dtype(name) for name in map(engine.get_tensor_name, range(engine.num_io_tensors))
        }
        if found == kinds and engine.num_optimization_profiles == len(self._profiles):
            shapes = [
                {name: tuple(map(tuple, engine.get_tensor_profile_shape(name, row))) for name in self._inputs}
                for row in range(len(self._profiles))
            ]
            if shapes == self._profiles:
                return
        expected = f"{sorted(kinds)} with the profiles of its sidecar"
        hint = f"build it again with: {plan.target.command} --overwrite"
        raise BundleError(f"{plan.path} is an engine of another graph: tensors {sorted(found)}", expected, hint)

    def _own(self, made: T, release: Callable[[T], None]) -> T:
        """`made`, which `close` gives to `release`."""
        self._made.callback(release, made)
        return made


def _holds(profile: dict[str, tuple], shapes: dict[str, tuple[int, ...]]) -> bool:
    pairs = (zip(shape, profile[name][2], strict=True) for name, shape in shapes.items())
    return all(size <= most for pair in pairs for size, most in pair)
