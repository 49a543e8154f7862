"""Builds a TensorRT plan on this device: checks, starts the child process that builds, moves the plan into its place.

Nothing half-built is ever left: the child writes to a hidden partial file, and only a plan that it has built, gated and
reported as done is moved into place, first the plan, then its sidecar.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mma_edge.bundle import ENGINES, Bundle
from mma_edge.bundle.manifest import REEXPORT
from mma_edge.child import Child, ChildDiedError, Message, Tell
from mma_edge.engines.machine import available_memory
from mma_edge.engines.tensorrt.engine import lacking, require_tensorrt
from mma_edge.engines.tensorrt.gate import gate_inputs
from mma_edge.engines.tensorrt.plan import Plan, check_plan, import_tensorrt, this_machine, version_of, write_plan
from mma_edge.engines.tensorrt.rules import require_rules
from mma_edge.errors import BackendError, BundleError, OutputError, UsageError
from mma_edge.precisions import preferred
from mma_edge.types import Clip

CHILD = ("-m", "mma_edge.engines.tensorrt.child")
MIB = 1 << 20
DISK_SPARE_BYTES = 64 * MIB
HOST_SPARE_BYTES = 512 * MIB


@dataclass(frozen=True)
class BuildOptions:
    """The user's choices for a build."""

    max_batch: int = 4  # clips that run at once; a larger batch runs in parts
    workspace_mib: int | None = None  # scratch memory of a kernel; None: at most 512 MiB on a Jetson, 4 GiB elsewhere
    optimization_level: int | None = None  # 0 (short build) to 5 (long, may run faster); None: TensorRT's own default

    def __post_init__(self) -> None:
        if not 1 <= self.max_batch <= 256:
            raise UsageError(f"--max-batch {self.max_batch}", "1 to 256")
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise UsageError(f"--workspace {self.workspace_mib}", "at least 1 MiB")
        if self.optimization_level not in (None, *range(6)):
            raise UsageError(f"--optimization-level {self.optimization_level}", "0 to 5")


def choose_precision(bundle: Bundle) -> str:
    """The bundle's precision that this GPU runs best; BackendError where TensorRT can run none of them here."""
    precisions = preferred("tensorrt")
    for precision in precisions:
        if precision in bundle.precisions and not lacking(precision):
            return precision
    raise BackendError(f"bundle {bundle.folder} has no precision for this GPU", f"one of {', '.join(precisions)}")


def existing_plan(bundle: Bundle, precision: str, options: BuildOptions) -> Plan | None:
    """The plan that exists already, if it may be loaded here and was built with these options."""
    try:
        plan = check_plan(bundle, precision, this_machine(import_tensorrt()))
    except (BackendError, BundleError):
        return None
    builder = plan.sidecar["builder"]
    asked = {key: value for key, value in asdict(options).items() if value is not None}
    return plan if all(builder.get(key) == value for key, value in asked.items()) else None


def require_buildable(bundle: Bundle, precision: str) -> None:
    """Raises BackendError or DependencyError when this precision of the bundle cannot be built here, BundleError when
    TensorRT would refuse its graph.
    """
    version = version_of(require_tensorrt().__version__)
    bundle.require(precision)
    if reason := lacking(precision):
        raise BackendError(reason, hint="build another --precision")
    require_rules(bundle.tensorrt_graph(precision), version, REEXPORT)


def build_plan(
    bundle: Bundle,
    precision: str,
    clips: Callable[[], Sequence[Clip]],  # what the engine is judged on, see `gate_inputs`; called after all checks
    options: BuildOptions | None = None,
    follow: Tell = lambda message: None,  # {"phase", "steps"}, {"phase", "step"} or {"phase", "finished"}
) -> Path:
    """Build, gate and keep the plan of one precision; an existing plan is replaced only by a finished one.

    Raises:
        BackendError: TensorRT cannot build it here, or the build was killed. BundleError: it cannot read the graph.
        ParityError: the engine computes something else. OutputError: the plan cannot be written.
    """
    options = options or BuildOptions()
    require_buildable(bundle, precision)
    folder = bundle.folder / ENGINES
    _check_room(bundle, precision, folder)
    partial = folder / f".{precision}.plan.{os.getpid()}.partial"
    try:
        with tempfile.TemporaryDirectory() as work:
            inputs = Path(work) / "clips.npz"
            frames, mel = gate_inputs(clips())
            np.savez(inputs, frames=frames, mel=mel)
            paths = {"bundle": bundle.folder.resolve(), "partial": partial.resolve(), "clips": inputs}
            request = {"precision": precision, **asdict(options), **{key: str(path) for key, path in paths.items()}}
            result = _run_child(request, precision, follow)
        return write_plan(bundle, precision, partial, result["sidecar"], result["layers"])
    except OSError as error:
        raise OutputError(f"the plan cannot be written to {folder}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _check_room(bundle: Bundle, precision: str, folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        expected, hint = "a bundle of your own", f"copy it first: cp -r {bundle.folder} my-bundle"
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}", expected, hint) from error
    size = bundle.size_bytes(bundle.tensorrt_graph(precision))
    # The plan is at most about as large as the graph's weights in float32; add the timing cache and a margin.
    needed, free = 2 * size + DISK_SPARE_BYTES, shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"{free / 1e6:.0f} MB are free at {folder}", f"{needed / 1e6:.0f} MB for the plan", "make room on the disk"
        )
    # Three copies: the parser reads the weights, the network holds them, and the plan gets a copy.
    needed, available = 3 * size + HOST_SPARE_BYTES, available_memory()
    if available is not None and needed > available:
        expected, hint = f"{needed / 1e9:.1f} GB to build {precision}", "close other programs, or add swap"
        raise BackendError(f"{available / 1e9:.1f} GB of memory are available", expected, hint)


def _run_child(request: Message, precision: str, follow: Tell) -> dict[str, Any]:
    """What the child reports; every failure of the child becomes one of our errors."""
    phase = "start"

    def note(message: Message) -> None:
        nonlocal phase
        phase = message["phase"]
        follow(message)

    try:
        with Child(CHILD, request) as child:
            return child.result(note)
    except ChildDiedError as error:
        raise _death(error, f"while building {precision} (phase {phase})") from error


def _death(died: ChildDiedError, during: str) -> BackendError:
    """The error for a child that ended without a report, from its exit status and its last words."""
    if died.status == -signal.SIGKILL:
        hint = "close other programs, add swap, and give a smaller --workspace MIB or --max-batch"
        return BackendError(f"the system killed TensorRT {during}, which it does when memory runs out", hint=hint)
    last = f", its last words: {died.last_words[:200]}" if died.last_words else ""
    if died.status < 0:
        with contextlib.suppress(ValueError):
            hint = "take another --precision, or another TensorRT version"
            return BackendError(f"TensorRT crashed with {signal.Signals(-died.status).name} {during}{last}", hint=hint)
    return BackendError(f"the build process ended with status {died.status} {during}{last}", hint="see mma-edge doctor")
