"""What the frozen part of a model makes of every clip, computed once for all folds and epochs.

Everything before the joint adaptation stays as it is: encoders, prompts and fusion. On 120 clips of five people,
training prompts and fusion as well was no better on people left out and took a hundred times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mma_edge.bundle.manifest import MODALITIES
from mma_edge.clip import input_shapes
from mma_trainer.data.entries import ClipEntry, load_clip
from mma_trainer.model import MMADFER
from mma_trainer.model.inputs import prepare_frames, prepare_mel
from mma_trainer.model.mma import Modalities

VIEWS = 8
"""Augmented versions of each clip, as the paper augments: other frames, brightness, crop, flip."""


@dataclass(frozen=True, eq=False)
class Features:
    """`MMADFER.encode` of N clips, (T, W) each, by what the model got, one of MODALITIES.

    What a clip lacks, or loses here, is zeros, as at run time.
    """

    plain: dict[str, Tensor]  # (N, T, W) of the test clips
    views: dict[str, Tensor]  # (N, VIEWS, T, W) of the augmented ones
    labels: Tensor  # int64 (N,)
    has_sound: np.ndarray  # bool (N,)


def read_features(
    model: MMADFER,
    entries: Sequence[ClipEntry],
    seed: int,
    device: torch.device,
    progress: Callable[[int], None] = lambda done: None,
) -> Features:
    """Decode, augment and compute; `progress` is told the number of clips done. A function of clips and seed alone."""
    model, size = model.eval().to(device), model.config.image_size
    shapes = input_shapes(size)
    dark, silence = _embed(model, np.zeros((1, *shapes["frames"]), np.uint8), np.zeros((1, *shapes["mel"]), np.float32))
    found: dict[str, list[Tensor]] = {name: [] for name in MODALITIES}
    for index, entry in enumerate(entries):
        rngs = [None, *(np.random.default_rng((seed, view, index)) for view in range(VIEWS))]
        clips = [load_clip(entry, size, rng) for rng in rngs]
        # The sound is not augmented: it is the same in all views.
        image, audio = _embed(model, np.stack([frames for frames, _ in clips]), clips[0][1][None])
        video = _encode(model, image, silence, len(clips))
        found["video"].append(video)
        found["both"].append(video if entry.wav is None else _encode(model, image, audio, len(clips)))
        found["audio"].append(_encode(model, dark, audio, 1).expand_as(video))
        progress(index + 1)
    whole = {name: torch.stack(parts) for name, parts in found.items()}
    return Features(
        plain={name: tokens[:, 0] for name, tokens in whole.items()},
        views={name: tokens[:, 1:] for name, tokens in whole.items()},
        labels=torch.tensor([entry.label for entry in entries]),
        has_sound=np.array([entry.wav is not None for entry in entries]),
    )


def _embed(model: MMADFER, frames: np.ndarray, mels: np.ndarray) -> Modalities:
    """uint8 (B, 16, S, S, 3) and log-mels (K, 512, 128) -> tokens before layer 0, (B * 16, ...) and (K, ...)."""
    device, config = model.classifier.weight.device, model.config
    with torch.no_grad():  # not in inference mode: the head is trained on them
        images = prepare_frames(torch.from_numpy(frames).to(device), config.color).flatten(0, 1)
        heard = prepare_mel(torch.from_numpy(mels).to(device))
        return (
            model.embed_image(images) if config.uses_image else None,
            model.embed_audio(heard) if config.uses_audio else None,
        )


def _encode(model: MMADFER, image: Tensor | None, audio: Tensor | None, count: int) -> Tensor:
    """Tokens of `count` clips with one sound -> (count, T, W) on the CPU."""
    with torch.no_grad():
        return model.encode(image, None if audio is None else audio.expand(count, -1, -1)).float().cpu()
