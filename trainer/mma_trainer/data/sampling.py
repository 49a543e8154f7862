"""Frame sampling and clip augmentation of the paper's training; the test side is mma_edge.clip.frame_indices."""

from __future__ import annotations

import math

import numpy as np

from mma_edge.clip import NUM_FRAMES, frame_indices
from mma_edge.errors import UsageError
from mma_edge.faces import resize

CROP_AREA = (0.08, 1.0)  # share of the frame that a random sized crop keeps
CROP_ASPECT = (3 / 4, 4 / 3)
CROP_ATTEMPTS = 10
BRIGHTNESS = (0.5, 1.5)


def train_indices(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """One random frame from each of 16 equal segments; a short clip's last frame is repeated. int64 (16,)."""
    segment = num_frames // NUM_FRAMES
    if segment > 0:
        return np.arange(NUM_FRAMES) * segment + rng.integers(segment, size=NUM_FRAMES)
    return np.minimum(np.arange(NUM_FRAMES), num_frames - 1)


def clip_indices(num_frames: int, num_clips: int) -> np.ndarray:
    """Frames of `num_clips` uniformly sampled test clips of one video: int64 (num_clips, 16).

    The paper averages "two uniformly sampled clips" and its code has one clip only: the middle frame of
    each of 16 equal segments. Here clip j of k takes the middle of the j-th k-th of every segment, so
    each clip spans the whole video as in training, no frame is in two clips of a long enough video, and
    one clip is `mma_edge.clip.frame_indices`. At most 16 frames make the clips equal.
    """
    if num_clips < 1:
        raise UsageError(f"{num_clips} clips of a video", "at least one")
    if num_frames <= NUM_FRAMES:
        return np.repeat(frame_indices(num_frames)[None], num_clips, axis=0)
    tick = num_frames / NUM_FRAMES
    phase = (2 * np.arange(num_clips)[:, None] + 1) / (2 * num_clips)
    return (tick * phase + tick * np.arange(NUM_FRAMES)).astype(np.int64)


def augment_clip(frames: list[np.ndarray], size: int, rng: np.random.Generator) -> np.ndarray:
    """Brightness, random sized crop and flip, the same for all frames uint8 (H, W, 3): uint8 (n, size, size, 3).

    Face crops may differ in size (those of MAFW do): the crop is drawn in the first and the same part of the others.
    """
    factor = rng.uniform(*BRIGHTNESS)
    height, width = frames[0].shape[:2]
    y, x, h, w = random_sized_crop(height, width, rng)
    flip = rng.random() < 0.5
    out = []
    for frame in frames:
        rows = _same_part(y, h, height, frame.shape[0])
        columns = _same_part(x, w, width, frame.shape[1])
        small = resize(np.clip(frame[rows, columns] * np.float32(factor), 0, 255).astype(np.uint8), size)
        out.append(small[:, ::-1] if flip else small)
    return np.stack(out)


def _same_part(start: int, length: int, of: int, size: int) -> slice:
    """[start, start + length) of a side of `of` pixels, in one of `size` pixels; never empty."""
    first = min(round(start * size / of), size - 1)
    return slice(first, max(first + 1, round((start + length) * size / of)))


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
