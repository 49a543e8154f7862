"""From the bundle's inputs (uint8 frames, raw log-mel) to the paper's, as a part of the exported graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mma_edge.audio.logmel import MEL_MEAN, MEL_STD
from mma_trainer.model.mma import MMADFER

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's "L"


def prepare_frames(frames: Tensor, color: str) -> Tensor:
    """uint8 (..., S, S, 3) RGB -> float32 (..., 3, S, S) in [0, 1]; three equal channels when `color` is grey.

    It casts before it permutes: TensorRT takes uint8 at a network's input, and only into a Cast.
    """
    frames = frames.float().movedim(-1, -3) / 255.0
    if color == "rgb":
        return frames
    luma = torch.tensor(LUMA, device=frames.device).reshape(3, 1, 1)
    return (frames * luma).sum(dim=-3, keepdim=True).expand_as(frames)


def prepare_mel(mel: Tensor) -> Tensor:
    """log-mel (N, 512, 128) -> normalised (N, 1, 512, 128), AudioMAE's statistics."""
    return ((mel - MEL_MEAN) / (2.0 * MEL_STD)).unsqueeze(1)


class ContractModel(nn.Module):
    """MMA-DFER with the bundle's inputs; what is exported, and what training and evaluation call.

    A model trained on grey faces makes its input grey itself, so no caller can feed it colour.
    """

    def __init__(self, model: MMADFER) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, mel: Tensor) -> Tensor:
        """frames uint8 (N, 16, S, S, 3), mel float32 (N, 512, 128) -> logits (N, C)."""
        return self.model(prepare_frames(frames, self.model.config.color), prepare_mel(mel))
