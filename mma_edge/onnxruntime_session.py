"""Opening an onnxruntime CPU session, for the emotion model and the face detector alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mma_edge.errors import BundleError, DependencyError


def open_session(graph: Path | bytes, num_threads: int = 0) -> tuple[Any, str]:
    """A session on the CPU provider alone, and onnxruntime's version.

    Args:
        graph: path or bytes of an ONNX file.
        num_threads: for one operator; 0 lets onnxruntime take every physical core.

    Raises:
        DependencyError: onnxruntime is not installed. BundleError: it cannot load the graph.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError("onnxruntime is not installed", hint='pip install "mma-edge[cpu]"') from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    # Threads that spin while waiting take the cores from decoding and face detection, which run in between.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # its warnings are for developers of graphs
    source = graph if isinstance(graph, bytes) else str(graph)
    try:
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no public base class
        name = "the graph" if isinstance(graph, bytes) else graph
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BundleError(
            f"onnxruntime {onnxruntime.__version__} cannot load {name}: {reason}",
            hint="upgrade onnxruntime, or export the bundle again",
        ) from error
    return session, onnxruntime.__version__
