"""TensorRT 10.3 or later: runs a plan that `mma-edge build` made on this very device.

Every name of the API that is used here is checked against the real bindings of 10.3, 10.13, 10.16 and 11.4.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import threading
import weakref
from types import ModuleType

import numpy as np

from mma_edge.bundle import Bundle
from mma_edge.bundle.streaming import Parts
from mma_edge.clip import NUM_FRAMES
from mma_edge.engines.base import OUTPUT, why_unusable
from mma_edge.engines.gpu.interface import DeviceMemory
from mma_edge.engines.gpu.open import open_device_memory
from mma_edge.engines.gpu.open import probe as probe_device_memory
from mma_edge.engines.machine import cuda_devices, dotted, driver_cuda_version
from mma_edge.engines.tensorrt.plan import (
    Machine,
    Plan,
    check_plan,
    check_sidecars,
    import_tensorrt,
    this_machine,
    usable,
)
from mma_edge.engines.tensorrt.session import Session
from mma_edge.engines.tensorrt.target import targets_of
from mma_edge.errors import BackendError
from mma_edge.precisions import require

__all__ = ["TensorRTEngine", "TensorRTPart", "check_parts", "open_engine", "open_parts", "probe", "usable"]


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
    (target,) = targets_of(bundle, precision)
    return TensorRTEngine(check_plan(target, _machine_for(precision)))


def open_parts(bundle: Bundle, precision: str, parts: Parts) -> tuple[TensorRTPart, ...]:
    """The parts of a mode for streaming, as built on this device; raises as `open_engine` does."""
    targets, machine = targets_of(bundle, precision, parts.mode), _machine_for(precision)
    check_sidecars(targets, machine)
    return tuple(TensorRTPart(check_plan(target, machine)) for target in targets)


def check_parts(bundle: Bundle, precision: str, parts: Parts) -> None:
    """BackendError or BundleError where `open_parts` would find no plans for this machine; reads none of them."""
    check_sidecars(targets_of(bundle, precision, parts.mode), this_machine(import_tensorrt()))


def _machine_for(precision: str) -> Machine:
    """This machine; BackendError where it lacks the precision, others as of `open_engine`."""
    trt = require_tensorrt()
    if reason := lacking(precision):
        raise BackendError(reason, hint="use another --precision")
    return this_machine(trt)


class TensorRTEngine:
    """The plan of a whole model; batches beyond its largest run in parts.

    `details` says when there is no CUDA graph.
    """

    backend = "tensorrt"

    def __init__(self, plan: Plan, memory: DeviceMemory | None = None) -> None:
        self.precision, self.max_batch, self.notes = plan.sidecar["precision"], plan.max_batch, plan.notes
        self._num_classes = plan.target.outputs[OUTPUT].shape[1]
        self._runner = _Runner(plan, memory)
        library = self._runner.session.memory.library
        self._name = f"TensorRT {plan.sidecar['tensorrt']} on {plan.sidecar['gpu']}, {library}"
        if plan.sidecar["builder"].get("unfused"):
            self._name += ", attention not fused"

    @property
    def details(self) -> str:
        reason = self._runner.session.no_graph
        return self._name + (f", no CUDA graph ({reason})" if reason else "")

    @property
    def device_ms(self) -> float:
        """On the GPU, of the last call of at most `max_batch` clips, copies included."""
        return self._runner.session.device_ms

    def __call__(self, frames: np.ndarray, mel: np.ndarray) -> np.ndarray:
        """frames uint8 (N, 16, S, S, 3), mel float32 (N, 512, 128) -> logits float32 (N, C)."""
        starts = range(0, len(frames), self.max_batch)
        batches = [slice(start, start + self.max_batch) for start in starts]
        parts = [self._runner({"frames": frames[some], "mel": mel[some]})[OUTPUT] for some in batches]
        return np.concatenate(parts) if parts else np.zeros((0, self._num_classes), np.float32)

    def layer_information(self) -> str:
        """What TensorRT says of the plan's layers: JSON, an object with a list "Layers" (docs of EngineInspector)."""
        return self._runner.session.layer_information()

    def close(self) -> None:
        """Release the GPU; closing twice is fine."""
        self._runner.close()


class TensorRTPart:
    """A `Part` that runs a plan; its buffers stay on the GPU from update to update.

    What a stream keeps of its faces comes from the host each time, as with every engine: `mma_edge.streaming` holds it.
    """

    def __init__(self, plan: Plan, memory: DeviceMemory | None = None) -> None:
        self.max_clips = plan.max_batch
        # Few, because each takes a context and a CUDA graph.
        most = NUM_FRAMES * plan.max_batch
        self.frame_counts = tuple(sorted({most, *(2**power for power in range(most.bit_length()) if 2**power < most)}))
        self.shapes = {
            name: tuple(size if isinstance(size, int) else None for size in tensor.shape)
            for name, tensor in plan.target.inputs.items()
        }
        self._runner = _Runner(plan, memory)

    @property
    def device_ms(self) -> float:
        """Of the last call, on the GPU, copies included."""
        return self._runner.session.device_ms

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        return self._runner(inputs)

    def layer_information(self) -> str:
        """As of `TensorRTEngine`."""
        return self._runner.session.layer_information()

    def close(self) -> None:
        """Release the GPU; closing twice is fine."""
        self._runner.close()


class _Runner:
    """A session that one thread at a time may use, and that ends with the interpreter at the latest."""

    def __init__(self, plan: Plan, memory: DeviceMemory | None) -> None:
        self.session = Session(import_tensorrt(), plan, memory or open_device_memory())
        self._lock = threading.Lock()  # the buffers are shared
        # Also at the interpreter's exit, before modules are torn down: TensorRT's objects must go before the CUDA
        # context.
        self.close = weakref.finalize(self, self.session.close)

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with self._lock:
            if not self.close.alive:
                raise BackendError("this TensorRT engine was closed", hint="open the bundle again")
            return self.session.run(inputs)


def _cuda_major_of_package() -> int | None:
    """The CUDA version that TensorRT's pip package was made for; None when pip did not install it."""
    for major in (13, 12, 11):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(f"tensorrt-cu{major}-bindings")
            return major
    return None
