"""Opens onnxruntime sessions on the CPU: the emotion model, its streaming parts and the detectors all use them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from mma_edge.engines.base import check_names
from mma_edge.engines.machine import may_saturate
from mma_edge.errors import BundleError, DependencyError, first_line, out_of_memory


def import_onnxruntime() -> ModuleType:
    """The installed onnxruntime, CPU or GPU build; DependencyError where it cannot be imported."""
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise DependencyError("onnxruntime is not installed", hint='pip install "mma-edge[cpu]"') from error
    except ImportError as error:
        raise DependencyError(
            f"onnxruntime cannot be imported ({error})", hint='pip install --force-reinstall "mma-edge[cpu]"'
        ) from error
    return onnxruntime


def check_session(graph: object, session: Any) -> None:
    """BundleError unless the graph of a session has the contract's inputs and output."""
    check_names(graph, (node.name for node in session.get_inputs()), (node.name for node in session.get_outputs()))


def open_session(graph: Path | bytes, num_threads: int = 0, optimized: bool = True) -> tuple[Any, str]:
    """A session that uses only the CPU provider, for an ONNX file or its bytes, and onnxruntime's version.

    `num_threads` work on one operator; 0: onnxruntime takes every physical core. Without being `optimized` the graph
    runs as it stands.

    Raises:
        DependencyError: onnxruntime is not installed. BundleError: it cannot load the graph.
        BackendError: there is not enough memory to load it.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait take the cores from decoding and face detection, which run in between. Measured
    # on a busy two-core machine, default model, 30 ms pause between clips: 95 ms of CPU time per clip with spinning,
    # 48 ms without (45 ms on one thread), and no clip was done sooner.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if may_saturate():
        # 8-bit products by kernels that add them in 32 bits: slower, and the same sums as on every other processor.
        options.add_session_config_entry("session.x64quantprecision", "1")
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3  # its warnings are for those who make graphs
    source = graph if isinstance(graph, bytes) else str(graph)
    name = "the graph" if isinstance(graph, bytes) else graph
    try:
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no public base class
        raise out_of_memory(error, f"to load {name}") or BundleError(
            f"onnxruntime {onnxruntime.__version__} cannot load {name}: {first_line(error)}",
            hint="upgrade onnxruntime, or export the bundle again",
        ) from error
    return session, onnxruntime.__version__


def open_detector(part: str, folder: Path, names: Sequence[str], num_threads: int) -> list[Any]:
    """Sessions on networks that the package brings, checked against the SHA-256 sums in the SOURCE.json beside them.

    `part` is what the messages call them. BundleError where one is missing or was changed; others: see `open_session`.
    """
    hint = f"reinstall mma-edge: its {part} is incomplete or was changed"
    try:
        sums = json.loads((folder / "SOURCE.json").read_text())["files"]
        sessions = []
        for name in names:
            data = (folder / name).read_bytes()
            if hashlib.sha256(data).hexdigest() != sums[name]:
                raise BundleError(f"{folder / name} has another SHA-256 than SOURCE.json beside it", hint=hint)
            sessions.append(open_session(data, num_threads)[0])
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{part}: {type(error).__name__}: {error}"
        raise BundleError(what, f"{', '.join(names)} in {folder}", hint) from error
    return sessions
