"""Faces: find them, follow them, cut them out.

The detector and the tracker load OpenCV, so they are imported on first use: a training set of ready
crops needs only `crop_face` and `resize`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mma_edge.faces.crop import centre_crop, crop_face, resize

if TYPE_CHECKING:
    from mma_edge.faces.detect import Detection, MTCNNDetector
    from mma_edge.faces.track import FaceTracker

__all__ = ["Detection", "FaceTracker", "MTCNNDetector", "centre_crop", "crop_face", "resize"]

_LATE = {"Detection": "detect", "MTCNNDetector": "detect", "FaceTracker": "track"}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATE[name]}"), name)
