"""Fusion bottleneck (paper, section 3.3): each modality is nudged by a summary of the other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FusionBottleneck(nn.Module):
    """One layer's exchange, over all tokens, gated from zero so that training starts at the encoders.

    v^ = LN(W v + b)    a^ = LN(W' a + b')
    v <- v + tanh(alpha_v) GELU(F_v(v^ + mean_tokens a^))
    a <- a + tanh(alpha_a) GELU(F_a(a^ + mean_frames,tokens v^))
    """

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.image_down, self.image_norm = nn.Linear(width, bottleneck), nn.LayerNorm(bottleneck)
        self.audio_down, self.audio_norm = nn.Linear(width, bottleneck), nn.LayerNorm(bottleneck)
        self.image_up, self.audio_up = nn.Linear(bottleneck, width), nn.Linear(bottleneck, width)
        self.image_gate, self.audio_gate = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor, audio: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
        """image (N * num_frames, Tv, W), audio (N, Ta, W) -> the same shapes."""
        N, Tv = audio.shape[0], image.shape[1]
        v = self.image_norm(self.image_down(image))  # (N*F, Tv, d)
        a = self.audio_norm(self.audio_down(audio))  # (N, Ta, d)
        d = v.shape[-1]
        v = v.reshape(N, num_frames, Tv, d)
        a_mean = a.mean(dim=1).reshape(N, 1, 1, d)
        v_mean = v.mean(dim=(1, 2)).reshape(N, 1, d)
        v_mixed = (v + a_mean).reshape(N * num_frames, Tv, d)
        image = image + torch.tanh(self.image_gate) * F.gelu(self.image_up(v_mixed))
        audio = audio + torch.tanh(self.audio_gate) * F.gelu(self.audio_up(a + v_mean))
        return image, audio
