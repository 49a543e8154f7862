"""Resizing face crops with Pillow, the library that resized the training frames."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mma_edge.errors import UsageError


def resize(crop: np.ndarray, size: int) -> np.ndarray:
    """Resize to a square with Pillow's BILINEAR, which averages over the source area when shrinking.

    OpenCV's INTER_LINEAR samples four pixels whatever the factor, and gives another picture.

    Args:
        crop: uint8 (h, w, 3) RGB, any strides.
        size: side of the result, pixels.

    Returns:
        uint8 (size, size, 3), contiguous, never a view of `crop`.
    """
    _check(crop)
    if size < 1:
        raise UsageError(f"resize to {size} pixels", "a size of at least 1")
    picture = Image.fromarray(np.ascontiguousarray(crop)).resize((size, size), Image.Resampling.BILINEAR)
    return np.array(picture)


def _check(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise UsageError(f"picture of {getattr(image, 'dtype', type(image).__name__)}", "a uint8 array")
    if image.ndim != 3 or image.shape[2] != 3:
        raise UsageError(f"picture of shape {image.shape}", "(height, width, 3) RGB")
    if 0 in image.shape:
        raise UsageError(f"empty picture of shape {image.shape}", "at least one pixel")
