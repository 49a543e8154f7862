"""Many different clips out of the one that the package ships: other faces, light, distances, voices, rooms and noise.

Windows of one clip are alike, and a model is sure of nearly all of them: a graph that is wrong where a model hesitates
passes on them. These are bent into other faces and changed as the trainer changes faces and voices; then every second
one is mixed with another, so that the model hesitates.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from mma_edge.audio.logmel import NUM_MEL_BINS, NUM_MEL_FRAMES
from mma_edge.clip import NUM_FRAMES
from mma_trainer.data.augment.draw import chance, integer, uniform
from mma_trainer.data.augment.faces import augment_stills
from mma_trainer.data.augment.sound import ECHO_FRAMES, LOG_FLOOR, augment_mel, mix

SEED, BATCH = 0, 32
MIXED_SHARE, STILL_SHARE = 0.5, 0.3
"""Of the clips: mixed with another one; one frame shown 16 times."""
LOST_SHARE, SILENT_SHARE = 0.08, 0.05
"""Of the clips: without a face, and as many without sound; with digital silence."""
FAR_SHARE, FAR_PX = 0.33, (12, 48)
"""Of the clips: with a face far away; its side in the picture."""
LARGEST_WARP, WARP_GRID = 0.12, 4
"""Halves of the picture, at so many points down and across: enough to move eyes, mouth and outline of a face."""


def varied(frames: np.ndarray, mel: np.ndarray, count: int, seed: int = SEED) -> tuple[np.ndarray, np.ndarray]:
    """Clips made of others.

    Args:
        frames: uint8 (N, 16, S, S, 3), all with a face.
        mel: float32 (N, 512, 128), all with sound.
        count: how many to make.

    Returns:
        frames uint8 (count, 16, S, S, 3) and mel float32 (count, 512, 128), the same for the same seed.
    """
    rng = Generator().manual_seed(seed)
    faces = np.stack([_face(frames, rng) for _ in range(count)])
    sounds = torch.cat([_sounds(mel, min(BATCH, count - start), rng) for start in range(0, count, BATCH)])
    originals = faces.copy(), sounds.clone()
    for row in chance((count,), MIXED_SHARE, rng).nonzero().flatten().tolist():
        face, voice = (integer(0, count - 1, rng) for _ in range(2))
        share, loudness = uniform((2,), 0.2, 0.8, rng).tolist()
        faces[row] = np.rint(share * originals[0][row] + (1 - share) * originals[0][face])
        sounds[row] = mix(originals[1][row : row + 1], originals[1][voice : voice + 1], loudness)[0]
    lost = torch.rand(count, generator=rng)
    faces[(lost < LOST_SHARE).numpy()] = 0
    sounds[lost > 1 - LOST_SHARE] = 0
    return faces, sounds.numpy()


def _face(frames: np.ndarray, rng: Generator) -> np.ndarray:
    """Another face in another light, uint8 (16, S, S, 3): all frames of one clip, or one of them, changed alike."""
    clip = frames[integer(0, len(frames) - 1, rng)]
    if torch.rand((), generator=rng) < STILL_SHARE:
        clip = clip[np.full(NUM_FRAMES, integer(0, NUM_FRAMES - 1, rng))]
    size = clip.shape[1]
    face = torch.from_numpy(clip).permute(0, 3, 1, 2).reshape(1, 3 * NUM_FRAMES, size, size) / 255
    face = _bent(face, rng)
    for _ in range(integer(1, 2, rng)):  # once leaves the model surer than it is of real clips
        face = augment_stills(face, rng).clamp(0, 1)
    if torch.rand((), generator=rng) < FAR_SHARE:
        side = min(size, integer(*FAR_PX, rng))
        face = F.interpolate(face, (side, side), mode="bilinear", antialias=True)
        face = F.interpolate(face, (size, size), mode="bilinear")
    return (255 * face).round().byte().reshape(NUM_FRAMES, 3, size, size).permute(0, 2, 3, 1).numpy()


def _bent(face: Tensor, rng: Generator) -> Tensor:
    """Another shape of face (1, C, S, S): every part moved by about LARGEST_WARP at most, neighbouring parts alike."""
    size = list(face.shape[-2:])
    field = torch.randn((1, 2, WARP_GRID, WARP_GRID), generator=rng) * uniform((), 0, LARGEST_WARP, rng)
    grid = F.affine_grid(torch.eye(2, 3).unsqueeze(0), [1, 1, *size], align_corners=False)
    grid = grid + F.interpolate(field, size, mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    return F.grid_sample(face, grid, padding_mode="border", align_corners=False)


def _sounds(mel: np.ndarray, count: int, rng: Generator) -> Tensor:
    """Other voices in other rooms, before other noises, and digital silence: log-mels (count, 512, 128)."""
    sounds = torch.from_numpy(mel)[torch.randint(len(mel), (count,), generator=rng)]
    hiss = torch.randn((count, NUM_MEL_FRAMES, NUM_MEL_BINS), generator=rng)
    clap = torch.zeros(1, ECHO_FRAMES, NUM_MEL_BINS)  # no recorded room: half of the echoes fall exponentially
    clap[:, 0] = 1
    sounds = augment_mel(sounds, hiss, clap, rng)
    sounds[chance((count,), SILENT_SHARE, rng)] = LOG_FLOOR
    return sounds
