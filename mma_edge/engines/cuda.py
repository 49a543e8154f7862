"""onnxruntime's CUDA execution provider.

Three steps rule out a silent fallback to the CPU: the session asks for CUDA alone, and must list it first after
opening; it asks for a CUDA graph, which onnxruntime refuses unless every computing node is on the GPU (the few nodes
that compute shapes from the batch size may stay on the CPU; `session.disable_cpu_ep_fallback` would refuse those too,
so it cannot be used with a free batch size); and onnxruntime's own retry on the CPU after a failed run is switched off.

Input and output live on the GPU, in buffers made once per batch size; each batch size is captured as its own CUDA
graph (`gpu_graph_id`), so one session holds the weights only once. TF32 is off: fp32 means fp32.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mma_edge.bundle import Bundle
from mma_edge.bundle.streaming import Parts
from mma_edge.clip import input_shapes
from mma_edge.engines.base import INPUTS, OUTPUT, run_failure
from mma_edge.engines.machine import NO_GPU, CudaDevice, cuda_devices, dotted, first_gpu, install_command, is_jetson
from mma_edge.engines.session import check_session, import_onnxruntime
from mma_edge.errors import BackendError, BundleError, DependencyError, first_line, out_of_memory
from mma_edge.precisions import preferred, require

PROVIDER = "CUDAExecutionProvider"
ON_JETSON = "on a Jetson use TensorRT: mma-edge build BUNDLE (PyPI's onnxruntime-gpu has no kernels for its GPU)"
MAX_CUDA_GRAPHS = 16
"""Batch sizes that get a CUDA graph; further ones run without one, so that memory is bounded."""
_FREE_GRAPH_ID = "-1"  # means "capture nothing"; onnxruntime itself uses 0

# y = x @ x + x for x float32 (2, 2), opset 13: one call of cuBLAS, and one of onnxruntime's own kernels, which fails in
# a build without kernels for this GPU. Embedded, because the runtime does not import onnx.
TINY_GRAPH = bytes.fromhex(
    "08083a500a110a01780a017812017022064d61744d756c0a0e0a01700a017812017922034164641201675a130a0178120e0a"
    "0c080112080a0208020a02080262130a0179120e0a0c080112080a0208020a02080242040a00100d"
)


def probe() -> str | None:
    """None when onnxruntime really computes on a CUDA device here, else why not, with the remedy. Never raises."""
    try:
        if not cuda_devices():
            return f"{NO_GPU}: check nvidia-smi and the driver"
        onnxruntime = import_onnxruntime()
        if PROVIDER not in onnxruntime.get_available_providers():
            replace = f"install the GPU build: pip uninstall onnxruntime onnxruntime-gpu; {install_command('gpu')}"
            remedy = ON_JETSON if is_jetson() else replace
            return f"the installed onnxruntime {onnxruntime.__version__} is a CPU build; {remedy}"
        session = _open_session(onnxruntime, TINY_GRAPH, "a tiny graph", cuda_graph=False)
        x = np.eye(2, dtype=np.float32)
        if not np.array_equal(session.run(["y"], {"x": x})[0], 2 * x):
            return "onnxruntime computes wrong results on this GPU; update it and the driver"
    except (BackendError, BundleError, DependencyError) as error:
        return f"{error.what}; {error.hint}" if error.hint else error.what
    except Exception as error:  # onnxruntime's exceptions share no public base class
        text = first_line(error)
        if "no kernel image" in str(error):
            return f"this onnxruntime has no kernels for this GPU; {ON_JETSON if is_jetson() else 'use TensorRT'}"
        return f"onnxruntime cannot compute on this GPU ({text}); {install_command('gpu')}"
    return None


def usable(bundle: Bundle) -> tuple[str, ...]:
    """Precisions of the bundle that this provider runs; bf16 only where the GPU has it."""
    capability = devices[0].compute_capability if (devices := cuda_devices()) else (0, 0)
    runs = [name for name in preferred("cuda") if (require("cuda", name).needs or (0, 0)) <= capability]
    return tuple(name for name in bundle.precisions if name in runs)


def open_engine(bundle: Bundle, precision: str) -> OnnxCudaEngine:
    """The bundle's graph on the first GPU.

    Raises:
        BackendError: no GPU, a GPU without this precision, an operator that would run on the CPU, or too little memory.
        BundleError: the graph cannot be loaded. DependencyError: onnxruntime is not installed.
    """
    gpu = _checked(precision)
    return OnnxCudaEngine(bundle.graph(precision), precision, bundle.image_size, len(bundle.labels), gpu.name)


def open_parts(bundle: Bundle, precision: str, parts: Parts) -> tuple[OnnxCudaPart, ...]:
    """The parts of the model for streaming, in the order of `parts.files`; raises as `open_engine` does."""
    place = f"{_checked(precision).name}, the graphs of --streaming,"
    return tuple(OnnxCudaPart(bundle.folder / file, place) for file in parts.files.values())


def _checked(precision: str) -> CudaDevice:
    """The first GPU; BackendError where it lacks the precision."""
    least, gpu = require("cuda", precision).needs, first_gpu(cuda_devices())
    if least and gpu.compute_capability < least:
        expected, hint = f"{dotted(least)} or newer", "use --precision fp16"
        raise BackendError(f"{gpu.name} (compute capability {gpu.capability}) has no {precision}", expected, hint)
    return gpu


class OnnxCudaEngine:
    """An ONNX graph in a session of the CUDA provider, with buffers and a CUDA graph per batch size."""

    backend, max_batch = "cuda", None

    def __init__(self, graph: Path, precision: str, image_size: int, num_classes: int, gpu: str = "GPU") -> None:
        self.precision, self.notes = precision, ()
        self._onnxruntime = import_onnxruntime()
        self._session = _open_session(self._onnxruntime, graph, str(graph), cuda_graph=True)
        check_session(graph, self._session)
        self.details = f"onnxruntime {self._onnxruntime.__version__} CUDA on {gpu}"
        self._shapes = {**input_shapes(image_size), OUTPUT: (num_classes,)}
        self._batches: dict[int, _Batch] = {}
        self._lock = threading.Lock()

    def __call__(self, frames: np.ndarray, mel: np.ndarray) -> np.ndarray:
        # One at a time: the buffers are shared, and a session with CUDA graphs may not be run by two threads.
        count = len(frames)
        with self._lock:
            try:
                if count not in self._batches:
                    shapes = {name: (count, *shape) for name, shape in self._shapes.items()}
                    graph_id = str(count) if len(self._batches) < MAX_CUDA_GRAPHS else _FREE_GRAPH_ID
                    self._batches[count] = _Batch(self._onnxruntime, self._session, INPUTS, shapes, graph_id)
                return self._batches[count].run(self._session, {"frames": frames, "mel": mel})[OUTPUT]
            except Exception as error:  # onnxruntime's exceptions share no public base class
                raise run_failure(error, self.details) from error


class OnnxCudaPart:
    """A `Part` in a session of the CUDA provider, with buffers and a CUDA graph per combination of sizes."""

    max_clips = 16
    frame_counts = tuple(2**power for power in range(9))  # few, for the sake of the buffers

    def __init__(self, graph: Path, gpu: str = "GPU") -> None:
        self._onnxruntime = import_onnxruntime()
        self._session = _open_session(self._onnxruntime, graph, str(graph), cuda_graph=True)
        self._details = f"onnxruntime {self._onnxruntime.__version__} CUDA on {gpu}"
        nodes = {node.name: node for node in self._session.get_inputs()}
        self._kinds = {name: _KINDS[node.type] for name, node in nodes.items()}
        self._inputs = {name: tuple(node.shape) for name, node in nodes.items()}  # a dimension's name where it is free
        self._outputs = {node.name: tuple(node.shape) for node in self._session.get_outputs()}
        self.shapes = {
            name: tuple(size if isinstance(size, int) else None for size in shape)
            for name, shape in self._inputs.items()
        }
        self._batches: dict[tuple, _Batch] = {}
        self._lock = threading.Lock()

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        sizes = {}
        for name, array in inputs.items():
            sizes |= {known: size for known, size in zip(self._inputs[name], array.shape, strict=True) if known != size}
        key = tuple(sorted(sizes.items()))
        with self._lock:
            try:
                if key not in self._batches:
                    free = {**self._inputs, **self._outputs}
                    shapes = {name: tuple(sizes.get(size, size) for size in shape) for name, shape in free.items()}
                    number = len(self._batches) + 1
                    graph_id = str(number) if number <= MAX_CUDA_GRAPHS else _FREE_GRAPH_ID
                    self._batches[key] = _Batch(self._onnxruntime, self._session, self._kinds, shapes, graph_id)
                return self._batches[key].run(self._session, inputs)
            except Exception as error:  # onnxruntime's exceptions share no public base class
                raise run_failure(error, self._details) from error


_KINDS = {"tensor(uint8)": "uint8", "tensor(float)": "float32", "tensor(int64)": "int64"}
"""numpy's name of the types that inputs have."""


class _Batch:
    """Buffers on the GPU for one combination of sizes; their addresses never change, as a CUDA graph needs."""

    def __init__(
        self,
        onnxruntime: ModuleType,
        session: Any,
        kinds: Mapping[str, str],  # types of the inputs; outputs are float32
        shapes: dict[str, tuple],  # of inputs and outputs
        graph_id: str,
    ) -> None:
        make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        self._inputs = {name: make(shapes[name], np.dtype(kind), "cuda", 0) for name, kind in kinds.items()}
        outputs = [name for name in shapes if name not in kinds]
        self._outputs = {name: make(shapes[name], np.float32, "cuda", 0) for name in outputs}
        self._binding = session.io_binding()
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)
        self._options = onnxruntime.RunOptions()
        self._options.add_run_config_entry("gpu_graph_id", graph_id)

    def run(self, session: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for name, array in inputs.items():
            self._inputs[name].update_inplace(np.ascontiguousarray(array))
        session.run_with_iobinding(self._binding, self._options)
        # Copies for the caller: the next run overwrites the buffers.
        return {name: value.numpy().copy() for name, value in self._outputs.items()}


def _preload(onnxruntime: ModuleType) -> str:
    """Load the CUDA libraries that pip installed; returns what onnxruntime says of the first that it cannot load."""
    if not hasattr(onnxruntime, "preload_dlls"):  # before 1.21
        return ""
    said = io.StringIO()
    # It prints failures on stdout, where the records of a run may be going.
    with contextlib.redirect_stdout(said):
        onnxruntime.preload_dlls()
    return next((line for line in said.getvalue().splitlines() if line.startswith("Failed")), "")


def _open_session(onnxruntime: ModuleType, graph: Path | bytes, name: str, cuda_graph: bool) -> Any:
    """A session that computes on the GPU; else the errors of `open_engine`."""
    missing = _preload(onnxruntime)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # the exception says in one line what went wrong
    onnxruntime.set_default_logger_severity(4)
    provider = {"device_id": "0", "use_tf32": "0", "enable_cuda_graph": str(int(cuda_graph))}
    source = graph if isinstance(graph, bytes) else str(graph)
    try:
        # Without enable_fallback=0 onnxruntime answers a failure with a session on the CPU.
        session = onnxruntime.InferenceSession(source, options, providers=[(PROVIDER, provider)], enable_fallback=0)
    except Exception as error:  # onnxruntime's exceptions share no public base class
        raise _open_failure(onnxruntime, error, name) from error
    # onnxruntime leaves out a provider whose libraries are missing, without an exception.
    if session.get_providers()[:1] != [PROVIDER]:
        raise BackendError(
            f"onnxruntime {onnxruntime.__version__} cannot load its CUDA provider (cuBLAS, cuDNN or another CUDA "
            f"library is missing or of another version)" + (f": {missing}" if missing else ""),
            hint=ON_JETSON if is_jetson() else f"install its libraries: {install_command('gpu')}",
        )
    session.disable_fallback()
    return session


def _open_failure(onnxruntime: ModuleType, error: Exception, name: str) -> BackendError | BundleError:
    text = str(error).lower()
    if memory := out_of_memory(error, f"on the GPU to load {name}"):
        return memory
    if any(words in text for words in ("graph capture", "cuda graph", "execution provider", "not implemented")):
        return BackendError(
            f"onnxruntime {onnxruntime.__version__} cannot run all of {name} on the GPU: {first_line(error)}",
            hint="use another --precision, or --backend tensorrt",
        )
    if any(library in text for library in ("cuda", "cublas", "cudnn")):
        return BackendError(f"onnxruntime cannot use the GPU: {first_line(error)}", hint=install_command("gpu"))
    hint = "upgrade onnxruntime-gpu, or export the bundle again"
    return BundleError(f"onnxruntime {onnxruntime.__version__} cannot load {name}: {first_line(error)}", hint=hint)
