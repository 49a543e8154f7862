"""Running a graph that is still in memory, or on disk, on onnxruntime's CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from mma_edge.onnxruntime_session import open_session
from mma_export.clips import RealClips


def logits_of(graph: onnx.ModelProto | Path, clips: RealClips, batch: int = 1) -> np.ndarray:
    """Logits float32 (N, C) of all clips."""
    session, _ = open_session(graph if isinstance(graph, Path) else graph.SerializeToString())
    found = []
    for start in range(0, len(clips), batch):
        found += session.run(["logits"], clips.feed(start, batch))
    return np.concatenate(found)
