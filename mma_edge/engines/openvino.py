"""OpenVINO on the CPU: fp32 everywhere, bf16 where the processor has it (AMX, AVX-512 BF16), int8.

Found on a two-core Xeon with AVX-512 and VNNI but without bf16 (CPU time, one thread, OpenVINO 2026.4.1):

- A graph compiled for one clip takes 0.84 of the time of one with a free batch size (default model; the same for a
  ViT-B at 224 within noise), and batches of three took as long per clip as single ones, or longer. So the graph is
  compiled for one clip, once, and the clips of a batch follow each other; a batch size nobody has seen before
  never has to wait for a compilation.
- The fixed graph is kept as OpenVINO's own file beside a blob without weights: a ViT-B then loads in 0.9 s instead of
  4 s and its weights stay pages of a file that the system may drop (0.84 GB of private memory instead of 1.5 GB).
- OpenVINO's own pinning of threads to cores stays on: without it the median of the default model rose threefold on a
  busy machine.

bf16, and int8 with the rest in bf16, ran on a two-core AMD EPYC with AVX-512 BF16; on AMX nothing has been tried.
"""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mma_edge.bundle import Bundle
from mma_edge.clip import input_shapes
from mma_edge.engines.base import check_names, cpu_threads, run_failure
from mma_edge.engines.cache import cached_folder
from mma_edge.errors import BackendError, BundleError, DependencyError, first_line, out_of_memory
from mma_edge.precisions import preferred, require

INSTALL = 'pip install "mma-edge[openvino]"'
_MODEL = "model.xml"
_core_lock = threading.Lock()


def import_openvino() -> ModuleType:
    """The installed OpenVINO.

    Raises:
        DependencyError: not installed, or it cannot be imported.
    """
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise DependencyError("OpenVINO is not installed", hint=INSTALL) from error
    except Exception as error:  # half an installation
        raise DependencyError(f"OpenVINO cannot be imported ({first_line(error)})", hint=INSTALL) from error
    return openvino


def _core() -> Any:
    """The one `openvino.Core` of this process.

    The CPU plugin of a Core gives its thread an alternate signal stack and puts the one before back when the Core is
    destroyed. Two Cores that are not destroyed in reverse order leave a stack that no longer is: the next signal,
    a Ctrl-C or the end of a child, then kills the process (seen with OpenVINO 2026.4.1). So there is one, kept.

    Raises:
        DependencyError: OpenVINO is not installed.
    """
    openvino = import_openvino()
    with _core_lock:  # two threads that load at once would make two
        return _only_core(openvino.Core)


@functools.cache
def _only_core(make: Callable[[], Any]) -> Any:
    return make()


def version() -> str:
    """Of the installed OpenVINO, e.g. "2026.4.1"."""
    return import_openvino().__version__.partition("-")[0]


def capabilities() -> frozenset[str]:
    """What OpenVINO says the processor computes natively, e.g. FP32, INT8, BF16.

    Raises:
        DependencyError: OpenVINO is not installed. BackendError: it finds no CPU.
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
    try:
        capabilities()
    except (DependencyError, BackendError) as error:
        return f"{error.what}: {error.hint}"
    return None


def usable(bundle: Bundle) -> tuple[str, ...]:
    """Precisions of the bundle that this processor computes natively."""
    return tuple(name for name in bundle.precisions if name in native_precisions())


def native_precisions() -> tuple[str, ...]:
    """Those that this processor computes natively, the best first; raises as `capabilities` does."""
    has = capabilities()
    return tuple(name for name in preferred("openvino") if require("openvino", name).needs in has)


def open_engine(bundle: Bundle, precision: str) -> OpenVinoEngine:
    """The bundle's graph for the CPU at this precision.

    Raises:
        BackendError: the hardware lacks the precision, or there is too little memory.
        BundleError: the graph cannot be loaded. DependencyError: OpenVINO is not installed.
    """
    require("openvino", precision)
    has = capabilities()
    if precision not in native_precisions():
        raise BackendError(
            f"this processor has no {precision} (OpenVINO lists {', '.join(sorted(has))})",
            f"a precision that the hardware has: {', '.join(native_precisions())}",
            "use --precision fp32",
        )
    return OpenVinoEngine(bundle, precision, has)


class OpenVinoEngine:
    """A graph of a bundle compiled for one clip; a batch's clips follow each other."""

    backend = "openvino"

    def __init__(self, bundle: Bundle, precision: str, has: frozenset[str]) -> None:
        self.precision, self.notes = precision, ()
        # OpenVINO rounds to bf16 itself, and leaves what suffers from it in float32.
        source = "fp32" if precision == "bf16" and "fp32" in bundle.precisions else precision
        graph = bundle.graph(source)
        hint = {"fp16": "f16", "bf16": "bf16", "int8": "bf16" if "BF16" in has else "f32"}.get(precision, "f32")
        try:
            compiled = self._compile(bundle, source, graph, _config(hint))
        except (BundleError, BackendError):
            raise
        except Exception as error:  # openvino raises plain RuntimeErrors
            raise _load_failure(error, graph) from error
        self._request, self._lock = compiled.create_infer_request(), threading.Lock()
        self._num_classes = len(bundle.labels)
        threads = compiled.get_property("INFERENCE_NUM_THREADS")
        rest = ", the rest in bf16" if precision == "int8" and hint == "bf16" else ""
        self.details = f"OpenVINO {version()} CPU, {threads} thread{'s' if threads > 1 else ''}{rest}"

    def _compile(self, bundle: Bundle, source: str, graph: Path, config: dict[str, Any]) -> Any:
        core, folder = _core(), None
        try:
            folder = cached_folder(
                f"openvino/{version()}",
                bundle.onnx_sha256(source)[:32],
                int(1.2 * graph.stat().st_size) + (64 << 20),
                lambda work: _save(core, graph, bundle.image_size, work),
            )
            return core.compile_model(
                str(folder / _MODEL), "CPU", {**config, "CACHE_DIR": str(folder), "CACHE_MODE": "OPTIMIZE_SIZE"}
            )
        except (BundleError, BackendError):
            raise
        except Exception as error:  # an unwritable, full or damaged cache is no reason not to run
            if out_of_memory(error, ""):
                raise
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)  # the next start makes it anew
            self.notes = (f"the compiled model is not kept for the next start: {first_line(error)}",)
        return core.compile_model(_read(core, graph, bundle.image_size), "CPU", config)

    def __call__(self, frames: np.ndarray, mel: np.ndarray) -> np.ndarray:
        logits = np.empty((len(frames), self._num_classes), np.float32)
        # One at a time: the request's memory is shared.
        with self._lock:
            for row in range(len(frames)):
                inputs = {
                    "frames": np.ascontiguousarray(frames[row : row + 1]),
                    "mel": np.ascontiguousarray(mel[row : row + 1]),
                }
                try:
                    results = self._request.infer(inputs, share_inputs=True, share_outputs=True)
                except Exception as error:  # openvino raises plain RuntimeErrors
                    raise run_failure(error, self.details) from error
                logits[row] = results[0][0]  # a view of OpenVINO's memory, overwritten by the next clip
        return logits


def _config(hint: str) -> dict[str, Any]:
    """Of the compilation: one clip at a time as fast as possible, at exactly this precision."""
    threads = cpu_threads()
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": hint,
        **({"INFERENCE_NUM_THREADS": threads} if threads else {}),
    }


def _read(core: Any, graph: Path, image_size: int) -> Any:
    """The ONNX graph with its shapes fixed for one clip."""
    try:
        model = core.read_model(str(graph))
        check_names(
            graph,
            {port.get_any_name() for port in model.inputs},
            {port.get_any_name() for port in model.outputs},
        )
        model.reshape({name: [1, *shape] for name, shape in input_shapes(image_size).items()})
    except BundleError:
        raise
    except Exception as error:  # openvino raises plain RuntimeErrors
        raise _load_failure(error, graph) from error
    return model


def _save(core: Any, graph: Path, image_size: int, work: Path) -> None:
    import_openvino().save_model(_read(core, graph, image_size), str(work / _MODEL), compress_to_fp16=False)


def _load_failure(error: Exception, graph: Path) -> BackendError | BundleError:
    return out_of_memory(error, f"to load {graph}") or BundleError(
        f"OpenVINO {version()} cannot load {graph}: {first_line(error)}",
        hint="upgrade OpenVINO, use --backend cpu, or export the bundle again",
    )
