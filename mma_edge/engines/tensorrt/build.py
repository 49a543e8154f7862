"""Builds TensorRT plans on this device: checks, starts the child process that builds, moves plans into their place.

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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mma_edge.bundle import ENGINES, Bundle
from mma_edge.bundle.manifest import REEXPORT
from mma_edge.child import Child, ChildDiedError, Message, Tell
from mma_edge.engines.machine import available_memory
from mma_edge.engines.tensorrt.engine import lacking, require_tensorrt
from mma_edge.engines.tensorrt.gate import gate_inputs, window_inputs
from mma_edge.engines.tensorrt.plan import (
    Plan,
    check_plan,
    check_sidecars,
    import_tensorrt,
    this_machine,
    version_of,
    write_plan,
)
from mma_edge.engines.tensorrt.rules import require_rules, require_softmax
from mma_edge.engines.tensorrt.target import BuildOptions, Target
from mma_edge.errors import BackendError, BundleError, OutputError
from mma_edge.precisions import preferred
from mma_edge.types import Clip

CHILD = ("-m", "mma_edge.engines.tensorrt.child")
MIB = 1 << 20
DISK_SPARE_BYTES = 64 * MIB
HOST_SPARE_BYTES = 512 * MIB


def choose_precision(bundle: Bundle) -> str:
    """The bundle's precision that this GPU runs best; BackendError where TensorRT can run none of them here."""
    precisions = preferred("tensorrt")
    for precision in precisions:
        if precision in bundle.precisions and not lacking(precision):
            return precision
    raise BackendError(f"bundle {bundle.folder} has no precision for this GPU", f"one of {', '.join(precisions)}")


def existing_plans(targets: Sequence[Target], options: BuildOptions) -> list[Plan] | None:
    """The plans that exist already, if all of them may be loaded here and were built with these options."""
    try:
        machine = this_machine(import_tensorrt())
        check_sidecars(targets, machine)
        plans = [check_plan(target, machine) for target in targets]
    except (BackendError, BundleError):
        return None
    asked = {key: value for key, value in asdict(options).items() if value is not None}
    builders = [{"unfused": False, **plan.sidecar["builder"]} for plan in plans]
    return plans if all(asked.items() <= builder.items() for builder in builders) else None


def require_buildable(targets: Sequence[Target], options: BuildOptions | None = None) -> None:
    """Raises BackendError or DependencyError when the targets' precision cannot be built here, BundleError when the
    bundle lacks a graph or TensorRT would refuse it.
    """
    version = version_of(require_tensorrt().__version__)
    for target in targets:
        target.bundle.require(target.precision)
        if reason := lacking(target.precision):
            raise BackendError(reason, hint="build another --precision")
        require_rules(target.graph, version, REEXPORT)
        if options and options.unfused:
            require_softmax(target.graph)


def build_plans(
    targets: Sequence[Target],  # of `targets_of`
    clips: Callable[[], Sequence[Clip]],  # what the engine is judged on, see the gate; called after all checks
    options: BuildOptions | None = None,
    follow: Tell = lambda message: None,  # {"phase", "steps"}, {"phase", "step"} or {"phase", "finished"}
) -> list[Path]:
    """Build, gate and keep the plans of one precision; existing plans are replaced only by finished ones.

    Raises:
        BackendError: TensorRT cannot build them here, or the build was killed. BundleError: it cannot read a graph.
        ParityError: they compute something else. OutputError: a plan cannot be written.
    """
    options = options or BuildOptions()
    require_buildable(targets, options)
    bundle, precision, mode = targets[0].bundle, targets[0].precision, targets[0].mode
    folder = bundle.folder / ENGINES
    _check_room(targets, folder)
    partials = [folder / f".{target.name}.plan.{os.getpid()}.partial" for target in targets]
    try:
        with tempfile.TemporaryDirectory() as work:
            inputs = Path(work) / "clips.npz"
            np.savez(inputs, **(window_inputs if mode else gate_inputs)(clips()))
            request = {"bundle": str(bundle.folder.resolve()), "precision": precision, "mode": mode}
            request |= {"clips": str(inputs), "partials": [str(path.resolve()) for path in partials]}
            result = _run_child({**request, "options": asdict(options)}, targets[0], follow)
        built = zip(targets, partials, result["sidecars"], result["layers"], strict=True)
        return [write_plan(*one) for one in built]
    except OSError as error:
        raise OutputError(f"the plan cannot be written to {folder}: {error.strerror or error}") from error
    finally:
        for partial in partials:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)


def _check_room(targets: Sequence[Target], folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        expected, hint = "a bundle of your own", f"copy it first: cp -r {folder.parent} my-bundle"
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}", expected, hint) from error
    sizes = [target.size_bytes for target in targets]
    # A plan is at most about as large as the graph's weights in float32; add the timing cache and a margin.
    needed, free = 2 * sum(sizes) + DISK_SPARE_BYTES, shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"{free / 1e6:.0f} MB are free at {folder}", f"{needed / 1e6:.0f} MB for the plan", "make room on the disk"
        )
    # Three copies: the parser reads the weights, the network holds them, and the plan gets a copy.
    needed, available = 3 * max(sizes) + HOST_SPARE_BYTES, available_memory()
    if available is not None and needed > available:
        expected = f"{needed / 1e9:.1f} GB to build {targets[0].precision}"
        hint = "close other programs, or add swap"
        raise BackendError(f"{available / 1e9:.1f} GB of memory are available", expected, hint)


def _run_child(request: Message, target: Target, follow: Tell) -> dict[str, Any]:
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
        what = f"{target.precision} for --streaming {target.mode}" if target.mode else target.precision
        raise _death(error, f"while building {what} (phase {phase})") from error


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
