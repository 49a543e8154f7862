"""Frame sampling and clip augmentation of the paper's training; the test side is mma_edge.clip.frame_indices."""

from __future__ import annotations

import math

import numpy as np

from mma_edge.clip import NUM_FRAMES
from mma_edge.faces import resize

CROP_AREA = (0.08, 1.0)  # share of the frame that a random sized crop keeps
CROP_ASPECT = (3 / 4, 4 / 3)
CROP_ATTEMPTS = 10
BRIGHTNESS = (0.5, 1.5)


def train_indices(num_frames: int, rng: np.random.Generator, count: int = NUM_FRAMES) -> np.ndarray:
    """One random frame from each of `count` equal segments; a short clip's last frame is repeated. int64 (count,)."""
    segment = num_frames // count
    if segment > 0:
        return np.arange(count) * segment + rng.integers(segment, size=count)
    return np.minimum(np.arange(count), num_frames - 1)


def augment_clip(frames: list[np.ndarray], size: int, rng: np.random.Generator) -> np.ndarray:
    """Brightness, random sized crop and flip, the same for all frames of the clip.

    Args:
        frames: uint8 (H, W, 3) each, all of one size.

    Returns:
        uint8 (len(frames), size, size, 3).
    """
    factor = rng.uniform(*BRIGHTNESS)
    height, width = frames[0].shape[:2]
    y, x, h, w = random_sized_crop(height, width, rng)
    flip = rng.random() < 0.5
    out = []
    for frame in frames:
        bright = np.clip(frame[y : y + h, x : x + w] * np.float32(factor), 0, 255).astype(np.uint8)
        small = resize(bright, size)
        out.append(small[:, ::-1] if flip else small)
    return np.stack(out)


def random_sized_crop(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(y, x, h, w) of a crop of random area and aspect; the central square when ten draws do not fit."""
    for _ in range(CROP_ATTEMPTS):
        area = rng.uniform(*CROP_AREA) * height * width
        aspect = rng.uniform(*CROP_ASPECT)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if rng.random() < 0.5:
            w, h = h, w
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side
