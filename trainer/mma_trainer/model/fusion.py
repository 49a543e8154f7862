"""How the modalities meet inside the encoders: the paper's fusion bottleneck (section 3.3) and its rivals (Table 3).

After every layer something of the other modality is added to all tokens of each, through a tanh gate that starts at
zero. Only what is added differs:

    none         nothing; the modalities meet in the joint projection after the encoders
    add          v + tanh(alpha) mean(a): in the encoders' own space, without compression and expansion
    bottleneck   the paper's: v + tanh(alpha) GELU(F(v^ + mean(a^))), v^ and a^ projected to d and normalised
    mult         v + tanh(alpha) A(LN v, LN a): a cross-attention per direction (Tsai et al. 2019), d over all heads
    mult-concat  v + tanh(alpha) F(mean(T([v^, a^]))): ONE transformer block T, d wide, over the tokens of both as one
                 sequence; what is added is the same for all tokens of both

and the same for a with the roles exchanged. The paper describes the rivals in one sentence each; the gates, the norms
before the attention, that "add" adds the other's mean token, and the projections around T are ours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mma_trainer.model.config import MMADFERConfig
from mma_trainer.model.encoder import Block, CrossAttention


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

    def forward(self, image: Tensor, audio: Tensor, num_frames: int, cls_only: bool = False) -> tuple[Tensor, Tensor]:
        """image (N * num_frames, Tv, W), audio (N, Ta, W) -> the same shapes, or their first tokens alone.

        After the last layer only [CLS] is read, so an exported graph computes no more than that; the means are still
        over all tokens.
        """
        N, d = audio.shape[0], self.image_up.in_features
        v = self.image_norm(self.image_down(image))  # (N*F, Tv, d)
        a = self.audio_norm(self.audio_down(audio))  # (N, Ta, d)
        v = v.reshape(N, num_frames, -1, d)
        a_mean = a.mean(dim=1).reshape(N, 1, 1, d)
        v_mean = v.mean(dim=(1, 2)).reshape(N, 1, d)
        if cls_only:
            image, audio, v, a = image[:, :1], audio[:, :1], v[:, :, :1], a[:, :1]
        v_mixed = (v + a_mean).reshape(N * num_frames, -1, d)
        image = image + torch.tanh(self.image_gate) * F.gelu(self.image_up(v_mixed))
        return image, audio + torch.tanh(self.audio_gate) * F.gelu(self.audio_up(a + v_mean))


class AddFusion(nn.Module):
    """Each modality plus the other's mean token; only the two gates are learnt.

    v <- v + tanh(alpha_v) mean_tokens a
    a <- a + tanh(alpha_a) mean_frames,tokens v
    """

    def __init__(self) -> None:
        super().__init__()
        self.image_gate, self.audio_gate = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor, audio: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
        """image (N * num_frames, Tv, W), audio (N, Ta, W) -> the same shapes."""
        N, W = audio.shape[0], audio.shape[2]
        frames = image.reshape(N, num_frames, -1, W)
        v_mean = frames.mean(dim=(1, 2)).reshape(N, 1, W)
        frames = frames + torch.tanh(self.image_gate) * audio.mean(dim=1).reshape(N, 1, 1, W)
        return frames.reshape(image.shape), audio + torch.tanh(self.audio_gate) * v_mean


class CrossAttentionFusion(nn.Module):
    """Each modality plus what its tokens find in the other ("mult").

    Every token of every frame looks at all tokens of the clip's sound, and every token of the sound at
    all tokens of all frames.

    v <- v + tanh(alpha_v) A_v(LN v, LN a)
    a <- a + tanh(alpha_a) A_a(LN a, LN v)
    """

    def __init__(self, width: int, inner: int, num_heads: int) -> None:
        super().__init__()
        self.image_norm, self.audio_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.image_attn = CrossAttention(width, num_heads, inner // num_heads, bias=True)
        self.audio_attn = CrossAttention(width, num_heads, inner // num_heads, bias=True)
        self.image_gate, self.audio_gate = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor, audio: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
        """image (N * num_frames, Tv, W), audio (N, Ta, W) -> the same shapes."""
        v = self.image_norm(image).reshape(audio.shape[0], num_frames * image.shape[1], -1)  # (N, F*Tv, W)
        a = self.audio_norm(audio)  # (N, Ta, W)
        image = image + torch.tanh(self.image_gate) * self.image_attn(v, a).reshape(image.shape)
        return image, audio + torch.tanh(self.audio_gate) * self.audio_attn(a, v)


class ConcatFusion(nn.Module):
    """Each modality plus the mean of one transformer block over the tokens of both ("mult-concat").

    m = F(mean_tokens T([LN(W v + b), LN(W' a + b')]))
    v <- v + tanh(alpha_v) m
    a <- a + tanh(alpha_a) m
    """

    def __init__(self, width: int, inner: int, num_heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.image_down, self.image_norm = nn.Linear(width, inner), nn.LayerNorm(inner)
        self.audio_down, self.audio_norm = nn.Linear(width, inner), nn.LayerNorm(inner)
        self.block, self.up = Block(inner, num_heads, mlp_ratio, drop_path=0.0), nn.Linear(inner, width)
        self.image_gate, self.audio_gate = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor, audio: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
        """image (N * num_frames, Tv, W), audio (N, Ta, W) -> the same shapes."""
        N, W = audio.shape[0], audio.shape[2]
        v = self.image_norm(self.image_down(image)).reshape(N, num_frames * image.shape[1], -1)  # (N, F*Tv, d)
        a = self.audio_norm(self.audio_down(audio))  # (N, Ta, d)
        mixed = self.up(self.block(torch.cat([v, a], dim=1)).mean(dim=1))  # (N, W)
        frames = image.reshape(N, num_frames, -1, W) + torch.tanh(self.image_gate) * mixed.reshape(N, 1, 1, W)
        return frames.reshape(image.shape), audio + torch.tanh(self.audio_gate) * mixed.reshape(N, 1, W)


def build_fusion(config: MMADFERConfig) -> nn.ModuleList:
    """One exchange per layer; empty for fusion "none" or a single modality."""
    c = config
    if c.fusion == "none" or c.modalities != "both":
        return nn.ModuleList()
    make, *sizes = {
        "add": (AddFusion,),
        "bottleneck": (FusionBottleneck, c.width, c.bottleneck_width),
        "mult": (CrossAttentionFusion, c.width, c.bottleneck_width, c.adaptor_heads),
        "mult-concat": (ConcatFusion, c.width, c.bottleneck_width, c.adaptor_heads, c.mlp_ratio),
    }[c.fusion]
    return nn.ModuleList(make(*sizes) for _ in range(c.depth))
