"""OpenVINO on the CPU: fp32 everywhere, bf16 where the processor has it (AMX, AVX-512 BF16), int8.

Measured on a two-core Xeon with AVX-512 and VNNI but without bf16 (CPU time, one thread, OpenVINO 2026.4.1):

- A graph compiled for one clip takes 0.84 of the time of a graph with a free batch size (default model; the same for a
  ViT-B at 224 within noise), and a clip in a batch of three took as long as a single clip, or longer. So the graph is
  compiled once, for one clip, and the clips of a batch run one after the other; no new batch size ever has to wait for
  a compilation.
- The fixed graph is kept as OpenVINO's own file beside a blob without weights: a ViT-B then loads in 0.9 s instead of
  4 s, and its weights stay in the pages of a file, which the system may drop (0.84 GB of private memory instead of
  1.5 GB).
- OpenVINO's own pinning of threads to cores stays on: without it the default model's median time tripled on a busy
  machine. Where MMA_EDGE_THREADS says how many threads there are, several processes share the machine: pinning is off,
  because each would pin its threads to the same first cores (two of one thread on two cores: 108 ms a clip, not 80).

bf16, and int8 with the rest in bf16, were run on a two-core AMD EPYC with AVX-512 BF16; AMX has not been tried.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mma_edge.bundle import Bundle
from mma_edge.bundle.streaming import Parts
from mma_edge.clip import input_shapes
from mma_edge.engines.base import INPUTS, check_names, cpu_threads, run_failure, why_unusable
from mma_edge.engines.cache import cached_folder
from mma_edge.engines.machine import instruction_sets, may_saturate
from mma_edge.errors import BackendError, BundleError, DependencyError, first_line, out_of_memory
from mma_edge.precisions import preferred, require

INSTALL = 'pip install "mma-edge[openvino]"'
_MODEL = "model.xml"
_core_lock = threading.Lock()


def import_openvino() -> ModuleType:
    """The installed OpenVINO; DependencyError where it is not installed or cannot be imported."""
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise DependencyError("OpenVINO is not installed", hint=INSTALL) from error
    except Exception as error:  # half an installation
        raise DependencyError(f"OpenVINO cannot be imported ({first_line(error)})", hint=INSTALL) from error
    return openvino


def _core() -> Any:
    """The one `openvino.Core` of this process.

    The CPU plugin of a Core gives its thread an alternate signal stack, and restores the earlier one when the Core is
    destroyed. If two Cores are not destroyed in reverse order, the thread is left with a stack that no longer exists:
    the next signal, a Ctrl-C or the end of a child, then kills the process (seen with OpenVINO 2026.4.1). So one Core
    is made and kept.
    """
    openvino = import_openvino()
    with _core_lock:  # two threads that load at the same time would make two
        return _only_core(openvino.Core)


@functools.cache
def _only_core(make: Callable[[], Any]) -> Any:
    return make()


def version() -> str:
    """The installed OpenVINO's version, e.g. "2026.4.1"."""
    return import_openvino().__version__.partition("-")[0]


def capabilities() -> frozenset[str]:
    """The number formats in which the processor computes natively, as OpenVINO says: e.g. FP32, INT8, BF16.

    Raises:
        DependencyError: OpenVINO is not installed. BackendError: OpenVINO finds no CPU.
    """
    core = _core()
    try:
        return frozenset(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    except Exception as error:  # openvino raises plain RuntimeErrors
        raise BackendError(
            f"OpenVINO {version()} cannot use the CPU: {first_line(error)}", hint="use --backend cpu"
        ) from error


def probe() -> str | None:
    """None where OpenVINO can use this processor, else why not."""
    return why_unusable(capabilities)


def usable(bundle: Bundle) -> tuple[str, ...]:
    """Precisions of the bundle that this processor computes natively."""
    native = native_precisions()
    return tuple(name for name in bundle.precisions if name in native)


def native_precisions() -> tuple[str, ...]:
    """Precisions that this processor computes natively, the best first; raises as `capabilities` does."""
    has = capabilities()
    return tuple(name for name in preferred("openvino") if require("openvino", name).needs in has)


def open_engine(bundle: Bundle, precision: str) -> OpenVinoEngine:
    """The bundle's graph for the CPU at this precision.

    Raises:
        BackendError: the hardware lacks the precision, or there is too little memory.
        BundleError: the graph cannot be loaded. DependencyError: OpenVINO is not installed.
    """
    return OpenVinoEngine(bundle, precision, _checked(precision))


def open_parts(bundle: Bundle, precision: str, parts: Parts) -> tuple[OpenVinoPart, ...]:
    """The parts of the model for streaming, in the order of `parts.files`; raises as `open_engine` does."""
    hint = _checked(precision)
    return tuple(OpenVinoPart(bundle, hint, file) for file in parts.files.values())


def _checked(precision: str) -> str:
    """OpenVINO's own name of the arithmetic for a precision; BackendError where the hardware lacks it."""
    require("openvino", precision)
    has = capabilities()
    if precision not in native_precisions():
        raise BackendError(
            f"this processor has no {precision} (OpenVINO lists {', '.join(sorted(has))})",
            f"a precision that the hardware has: {', '.join(native_precisions())}",
            "use --precision fp32",
        )
    return {"fp16": "f16", "bf16": "bf16", "int8": "bf16" if "BF16" in has else "f32"}.get(precision, "f32")


class OpenVinoEngine:
    """A bundle's graph compiled for one clip; the clips of a batch run one after the other."""

    backend, max_batch = "openvino", 1

    def __init__(self, bundle: Bundle, precision: str, hint: str) -> None:
        self.precision, self.notes = precision, ()
        # OpenVINO rounds to bf16 itself, and keeps in float32 what rounding would harm.
        source = "fp32" if precision == "bf16" and "fp32" in bundle.precisions else precision
        graph = bundle.graph(source)
        shapes = {name: [1, *shape] for name, shape in input_shapes(bundle.image_size).items()}
        with _loading(graph):
            folder = (f"openvino/{version()}", bundle.onnx_sha256(graph)[:32])
            compiled, why_not_kept = _compile(graph, shapes, hint, folder, graph.stat().st_size)
        if why_not_kept:
            self.notes += (f"the compiled model is not kept for the next start: {why_not_kept}",)
        self._request, self._lock = compiled.create_infer_request(), threading.Lock()
        self._num_classes = len(bundle.labels)
        threads = compiled.get_property("INFERENCE_NUM_THREADS")
        if precision == "int8" and instruction_sets() and may_saturate():
            why = "OpenVINO adds 8-bit products in 16 bits without VNNI, so answers may differ from those at export"
            self.notes += (f"{why}; --backend cpu adds them exactly",)
        rest = ", the rest in bf16" if precision == "int8" and hint == "bf16" else ""
        self.details = f"OpenVINO {version()} CPU, {threads} thread{'s' if threads > 1 else ''}{rest}"

    def __call__(self, frames: np.ndarray, mel: np.ndarray) -> np.ndarray:
        logits = np.empty((len(frames), self._num_classes), np.float32)
        # One at a time: the request's memory is shared.
        with self._lock:
            for row in range(len(frames)):
                clip = {"frames": frames[row : row + 1], "mel": mel[row : row + 1]}
                inputs = {name: np.ascontiguousarray(array) for name, array in clip.items()}
                try:
                    results = self._request.infer(inputs, share_inputs=True, share_outputs=True)
                except Exception as error:  # openvino raises plain RuntimeErrors
                    raise run_failure(error, self.details) from error
                logits[row] = results[0][0]  # a view of OpenVINO's memory, overwritten by the next clip
        return logits


class OpenVinoPart:
    """A `Part` compiled for one clip, and for each number of frames when it first comes: a graph with fixed shapes
    takes 0.65 of the time of one with free shapes (default model, one new frame)."""

    max_clips = 1
    frame_counts = (1, 2, 4, 8, 16)

    def __init__(self, bundle: Bundle, hint: str, file: str) -> None:
        self._graph, self._hint, self._sha256 = bundle.folder / file, hint, bundle.part_sha256(file)
        self._bytes = max(path.stat().st_size for path in bundle.folder.glob("*.onnx"))  # the weights are in another
        with _loading(self._graph):
            ports = _core().read_model(str(self._graph)).inputs
            self.shapes = {port.get_any_name(): _sizes(port.partial_shape) for port in ports}
        self._requests: dict[int, Any] = {}
        self._lock = threading.Lock()

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        count = len(next(iter(inputs.values())))
        with self._lock:  # the request's memory is shared
            if count not in self._requests:
                self._requests[count] = self._open(count, {name: list(array.shape) for name, array in inputs.items()})
            arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
            try:
                found = self._requests[count].infer(arrays, share_inputs=True)
            except Exception as error:  # openvino raises plain RuntimeErrors
                raise run_failure(error, f"OpenVINO {version()} CPU, the graphs of --streaming,") from error
            return {port.get_any_name(): array for port, array in found.items()}

    def _open(self, count: int, shapes: dict[str, list[int]]) -> Any:
        with _loading(self._graph):
            # Apart from the whole graphs, so that neither pushes out the other.
            folder = (f"openvino-parts/{version()}", f"{self._sha256[:32]}-{count}")
            return _compile(self._graph, shapes, self._hint, folder, self._bytes)[0].create_infer_request()


def _sizes(shape: Any) -> tuple[int | None, ...]:
    return tuple(None if size.is_dynamic else size.get_length() for size in shape)


def _compile(
    graph: Path, shapes: dict[str, list[int]], hint: str, place: tuple[str, str], num_bytes: int
) -> tuple[Any, str]:
    """A graph compiled for these shapes, and why it is not kept in the cache, or "".

    Args:
        hint: OpenVINO's name of the arithmetic.
        place: shelf and key of the cached folder; the arithmetic need not be in it.
        num_bytes: about what the graph's weights take.
    """
    core, folder, config = _core(), None, _config(hint)
    try:
        folder = cached_folder(
            *place,
            int(1.2 * num_bytes) + (64 << 20),
            lambda work: import_openvino().save_model(
                _read(core, graph, shapes), str(work / _MODEL), compress_to_fp16=False
            ),
        )
        cached = {**config, "CACHE_DIR": str(folder), "CACHE_MODE": "OPTIMIZE_SIZE"}
        return core.compile_model(str(folder / _MODEL), "CPU", cached), ""
    except (BundleError, BackendError):
        raise
    except Exception as error:  # the engine also runs when the cache is unwritable, full or damaged
        if out_of_memory(error, ""):
            raise
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)  # the next start makes it again
        return core.compile_model(_read(core, graph, shapes), "CPU", config), first_line(error)


def _config(hint: str) -> dict[str, Any]:
    """Settings of the compilation: one clip at a time as fast as possible, at exactly this precision."""
    threads = cpu_threads()
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    return config | {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False} if threads else config


def _read(core: Any, graph: Path, shapes: dict[str, list[int]]) -> Any:
    """The ONNX graph with fixed shapes."""
    with _loading(graph):
        model = core.read_model(str(graph))
        if set(shapes) == set(INPUTS):  # a whole graph
            check_names(graph, *([port.get_any_name() for port in ports] for ports in (model.inputs, model.outputs)))
        model.reshape(shapes)
    return model


@contextlib.contextmanager
def _loading(graph: Path) -> Iterator[None]:
    """Turns OpenVINO's failure to load a graph into a BackendError (memory) or a BundleError."""
    try:
        yield
    except (BundleError, BackendError):
        raise
    except Exception as error:  # openvino raises plain RuntimeErrors
        raise out_of_memory(error, f"to load {graph}") or BundleError(
            f"OpenVINO {version()} cannot load {graph}: {first_line(error)}",
            hint="upgrade OpenVINO, use --backend cpu, or export the bundle again",
        ) from error
