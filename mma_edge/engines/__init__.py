"""Engines behind one interface; `open_engine` picks one and proves that it computes the right thing."""

from __future__ import annotations

import importlib
import itertools
from types import ModuleType

import numpy as np

from mma_edge.bundle import Bundle
from mma_edge.bundle.streaming import MODES, Parts
from mma_edge.engines.base import Engine
from mma_edge.engines.machine import NO_GPU, cuda_devices
from mma_edge.errors import BackendError, BundleError, DependencyError, MMAEdgeError
from mma_edge.precisions import BACKEND_CHOICES, BACKENDS, BY_NAME, GPU_BACKENDS, preferred

MODULES = {
    "tensorrt": "mma_edge.engines.tensorrt.engine",
    "cuda": "mma_edge.engines.cuda",
    "openvino": "mma_edge.engines.openvino",
    "cpu": "mma_edge.engines.cpu",
}
"""Backend -> its module. Each module has

    probe() -> str | None           None: it works on this machine; else why not, with the remedy
    usable(bundle) -> tuple         precisions of this bundle that it can open here
    open_engine(bundle, precision)  an Engine, or an error in one line
    open_parts(bundle, precision, parts)  a Part for each of `parts.files`, for streaming, or an error in one line
    check_parts(bundle, precision, parts)  where a bundle's files are not enough: that error, without opening them
"""


def backend_module(backend: str) -> ModuleType:
    """The module of a backend; the backend's library is imported only when a function of the module needs it."""
    return importlib.import_module(MODULES[backend])


def open_engine(
    bundle: Bundle, backend: str = "auto", precision: str | None = None, streaming: str | None = None
) -> Engine:
    """The engine asked for, tested against the bundle's golden output.

    Its `notes` say which better backends were passed over, and why.

    Args:
        backend: a backend, which runs or raises an error; or "auto": the first of BACKENDS that really works here.
        precision: one of the bundle's; None: the backend's best among those that passed the export gate (int8 only
            where the bundle has nothing else).
        streaming: a mode of `mma-edge run --streaming` that the bundle must offer for the engine; "auto": backend and
            precision are chosen as ever, but among precisions that passed one with the best mode comes first.

    Raises:
        BackendError: an unknown or unavailable backend, or a precision that the bundle or the hardware lacks.
        BundleError: the engine does not reproduce the golden output.
        DependencyError: a package is missing.
    """
    if backend not in BACKEND_CHOICES:
        raise BackendError(f"backend {backend!r}", f"one of {', '.join(BACKEND_CHOICES)}")
    if precision is not None:
        bundle.require(precision)
    if backend != "auto":
        if reason := why_not(backend):
            raise BackendError(f"backend {backend} cannot run here: {reason}", hint="see mma-edge doctor")
        return _open(bundle, backend, precision, streaming)
    ruled_out: dict[str, list[str]] = {}  # reason -> the backends that it rules out
    errors: list[MMAEdgeError] = []
    for name in BACKENDS:
        # The CPU comes last: the error of opening it says best what is missing.
        reason = why_not(name) if name != "cpu" else None
        if reason is None:
            try:
                engine = _open(bundle, name, precision, streaming)
            except (BackendError, BundleError, DependencyError) as error:
                reason = str(error).rstrip(".")
                errors.append(error)
            else:
                notes = [f"not on {' or '.join(names)}: {why}" for why, names in ruled_out.items()]
                engine.notes = (*notes, *engine.notes)
                return engine
        ruled_out.setdefault(reason, []).append(name)
    # A bundle that computes wrong results matters more than a missing package.
    wrong = [error for error in errors if isinstance(error, BundleError)]
    raise (wrong or errors)[-1]


def why_not(backend: str) -> str | None:
    """None when a backend works on this machine, else why not, with the remedy.

    Packages for a GPU are named only where there is a GPU.
    """
    if backend in GPU_BACKENDS and not cuda_devices():
        return NO_GPU
    return backend_module(backend).probe()


def _open(bundle: Bundle, backend: str, precision: str | None, streaming: str | None) -> Engine:
    first_error = None
    choices = [precision] if precision else preferences(bundle, backend)
    for choice in _streamable(bundle, backend, choices, streaming) if streaming else choices:
        try:
            engine = backend_module(backend).open_engine(bundle, choice)
            self_test(engine, bundle)
        except (BackendError, BundleError, DependencyError) as error:
            first_error = first_error or error
            continue
        if failed := bundle.failed(choice, backend):
            engine.notes = (*engine.notes, f"{choice} of this bundle failed its export gate: {failed}")
        return engine
    raise first_error


def require_parts(bundle: Bundle, backend: str, precision: str, mode: str) -> Parts:
    """The parts that an engine runs in a mode of `mma-edge run --streaming`; BackendError or BundleError where it runs
    none, with the remedy.
    """
    parts, module = bundle.parts(backend, precision, mode), backend_module(backend)
    if hasattr(module, "check_parts"):
        module.check_parts(bundle, precision, parts)
    return parts


def _streamable(bundle: Bundle, backend: str, precisions: list[str], mode: str) -> list[str]:
    """Those of the precisions in which the bundle offers a mode on a backend; an error where there are none.

    With "auto" all of them, those that offer rolling first, then those that offer exact.
    """
    offers, first_error = {name: [] for name in MODES}, None
    for choice, name in itertools.product(precisions, MODES):
        try:
            require_parts(bundle, backend, choice, name)
        except (BackendError, BundleError) as error:
            first_error = first_error or (error if name == mode else None)
        else:
            offers[name].append(choice)
    if mode == "auto":
        return list(dict.fromkeys([*offers["rolling"], *offers["exact"], *precisions]))
    if not offers[mode]:
        raise first_error
    return offers[mode]


def preferences(bundle: Bundle, backend: str) -> list[str]:
    """Precisions to try when none was asked for, the best first; BackendError where none passed its gate."""
    best_first = preferred(backend)
    runs = [name for name in best_first if name in bundle.precisions]
    if not runs:
        expected, hint = f"one of {', '.join(best_first)}", f"export it with mma-export --precision {best_first[0]}"
        raise BackendError(f"bundle {bundle.folder} has {', '.join(bundle.precisions)} only", expected, hint)
    passed = [name for name in runs if not bundle.failed(name, backend)]
    if not passed:
        raise BackendError(
            f"every precision of bundle {bundle.folder} that this backend runs failed its export gate",
            "one that passed",
            f"export it again, or ask for it by name: --precision {runs[0]}",
        )
    passed = [name for name in passed if name not in BY_NAME] or passed
    usable = backend_module(backend).usable(bundle)
    # Where none is usable, the error of opening the best one says why.
    return [name for name in passed if name in usable] or passed[:1]


def self_test(engine: Engine, bundle: Bundle) -> float:
    """Largest difference from the golden logits; BundleError when it exceeds the tolerance of the precision."""
    frames, mel, expected, _ = bundle.golden
    tolerance = bundle.tolerance(engine.precision)
    logits = engine(frames, mel)
    # Not `difference > tolerance`: NaN must fail too.
    difference = float(np.abs(logits - expected).max()) if logits.shape == expected.shape else float("inf")
    if not difference <= tolerance:
        raise BundleError(
            f"{bundle.folder}: {engine.precision} on {engine.details} differs from the golden output "
            f"by {difference:.2e}",
            f"at most {tolerance:.0e}",
            "try another --precision or --backend, update the library, or export the bundle again",
        )
    return difference
