"""Cuts the face out of a frame as the authors of MMA-DFER did for MAFW (an MTCNN box, squared), and resizes it with
Pillow, the library that resized the training frames.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from mma_edge.errors import UsageError
from mma_edge.types import Box, Picture


def square_box(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """Widen a face box to a square of its longer side and cut it at the border of the frame.

    Corners are rounded and the first one is cut at 0 *before* the sides are compared; the shorter side then grows by
    half the difference at both ends. So a box at the border, or one whose sides differ by an odd number, may not become
    quite square: the resize that follows stretches it, as it did in training.

    Takes and gives (x0, y0, x1, y1) in pixels of the frame; the result is whole, inside the frame, x1 and y1 exclusive.
    UsageError where the box is empty or lies outside the frame.
    """
    x0, y0, x1, y1 = (round(float(value)) for value in box)
    x0, y0 = max(x0, 0), max(y0, 0)
    if not (x0 < min(x1, width) and y0 < min(y1, height)):
        raise UsageError(f"face box {tuple(box)} in a frame of {width} x {height}", "a box that touches the frame")
    difference = abs((x1 - x0) - (y1 - y0)) // 2
    if x1 - x0 < y1 - y0:
        x0, x1 = x0 - difference, x1 + difference
    else:
        y0, y1 = y0 - difference, y1 + difference
    return max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)


def crop_face(image: Picture, box: Box) -> np.ndarray:
    """The squared face region, uint8 (h, w, 3), of `image` uint8 (H, W, 3); of an array a view."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = square_box(box, width, height)
    return image[y0:y1, x0:x1]


def centre_box(image: Picture) -> Box:
    """The central square of half the shorter side: what the authors use for a frame without a face.

    (x0, y0, x1, y1) with sides 2r, r = min(H, W) // 2 // 2, of `image` uint8 (H, W, 3).
    """
    height, width = image.shape[:2]
    reach = min(height, width) // 2 // 2
    if reach < 1:
        raise UsageError(f"frame of {width} x {height}", "at least 4 x 4 pixels")
    y, x = height // 2, width // 2
    return x - reach, y - reach, x + reach, y + reach


def centre_crop(image: Picture) -> np.ndarray:
    """The region of `centre_box`, uint8 (2r, 2r, 3), of `image` uint8 (H, W, 3); of an array a view."""
    x0, y0, x1, y1 = centre_box(image)
    return image[y0:y1, x0:x1]


def resize(crop: np.ndarray, size: int) -> np.ndarray:
    """Resize to a square with Pillow's BILINEAR, which averages over the source area when it shrinks.

    OpenCV's INTER_LINEAR always samples four pixels, whatever the factor, and gives another picture. Takes uint8
    (h, w, 3) RGB with any strides; gives uint8 (size, size, 3), contiguous, never a view of `crop`.
    """
    check_image(crop)
    if size < 1:
        raise UsageError(f"resize to {size} pixels", "a size of at least 1")
    picture = Image.fromarray(np.ascontiguousarray(crop)).resize((size, size), Image.Resampling.BILINEAR)
    return np.array(picture)


def check_image(image: Picture) -> None:
    """UsageError unless this is uint8 (H, W, 3) and not empty."""
    expected = "a uint8 array (height, width, 3) RGB, not empty"
    shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", None)
    if shape is None or dtype is None:
        raise UsageError(f"picture of type {type(image).__name__}", expected)
    if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise UsageError(f"picture of {dtype} {tuple(shape)}", expected)
