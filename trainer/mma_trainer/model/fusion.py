"""How the modalities meet inside the encoders: the paper's fusion bottleneck (section 3.3) and its rivals.

The paper's table of fusions names its rows, and says of mult: two cross-attentions, 2 heads, 128 wide. It does not
say how they enter the encoders, and the published code has the bottleneck only. All rows here are
therefore one family: after every layer, a summary of the other modality is added to all tokens of each,
through a tanh gate that starts at zero. Only the summary differs:

    none         no exchange; the modalities meet in the joint projection after the encoders
    add          v + tanh(alpha) mean(a): the bottleneck's exchange without the bottleneck
    bottleneck   the paper's: v + tanh(alpha) GELU(F(v^ + mean(a^)))
    mult         the mean becomes a cross-attention (Tsai et al. 2019): v + tanh(alpha) GELU(F(v^ + A(v^, a^)))
    mult-concat  and is concatenated instead of added: v + tanh(alpha) GELU(F([v^, A(v^, a^)]))

with v^, a^ the modalities projected to d and normalised, and the same for a with the roles exchanged.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mma_trainer.model.config import MMADFERConfig
from mma_trainer.model.encoder import CrossAttention


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
    """The bottleneck with attention in place of the mean ("mult"), optionally concatenated ("mult-concat").

    Every token of every frame looks at all tokens of the clip's sound, and every token of the sound at
    all tokens of all frames.
    """

    def __init__(self, width: int, bottleneck: int, num_heads: int, concat: bool) -> None:
        super().__init__()
        self.concat = concat
        self.image_down, self.image_norm = nn.Linear(width, bottleneck), nn.LayerNorm(bottleneck)
        self.audio_down, self.audio_norm = nn.Linear(width, bottleneck), nn.LayerNorm(bottleneck)
        self.image_attn = CrossAttention(bottleneck, num_heads, bottleneck // num_heads, bias=True)
        self.audio_attn = CrossAttention(bottleneck, num_heads, bottleneck // num_heads, bias=True)
        inner = 2 * bottleneck if concat else bottleneck
        self.image_up, self.audio_up = nn.Linear(inner, width), nn.Linear(inner, width)
        self.image_gate, self.audio_gate = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor, audio: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
        """image (N * num_frames, Tv, W), audio (N, Ta, W) -> the same shapes."""
        N = audio.shape[0]
        v = self.image_norm(self.image_down(image))  # (N*F, Tv, d)
        v = v.reshape(N, num_frames * v.shape[1], v.shape[2])  # (N, F*Tv, d)
        a = self.audio_norm(self.audio_down(audio))  # (N, Ta, d)
        v_mixed = F.gelu(self.image_up(self._mix(v, self.image_attn(v, a))))  # (N, F*Tv, W)
        a_mixed = F.gelu(self.audio_up(self._mix(a, self.audio_attn(a, v))))  # (N, Ta, W)
        image = image + torch.tanh(self.image_gate) * v_mixed.reshape(image.shape)
        return image, audio + torch.tanh(self.audio_gate) * a_mixed

    def _mix(self, own: Tensor, other: Tensor) -> Tensor:
        return torch.cat([own, other], dim=-1) if self.concat else own + other


def build_fusion(config: MMADFERConfig) -> nn.ModuleList:
    """One exchange per layer; empty for fusion "none" or a single modality."""
    c = config
    if c.fusion == "none" or c.modalities != "both":
        return nn.ModuleList()
    make, *sizes = {
        "add": (AddFusion,),
        "bottleneck": (FusionBottleneck, c.width, c.bottleneck_width),
        "mult": (CrossAttentionFusion, c.width, c.bottleneck_width, c.adaptor_heads, False),
        "mult-concat": (CrossAttentionFusion, c.width, c.bottleneck_width, c.adaptor_heads, True),
    }[c.fusion]
    return nn.ModuleList(make(*sizes) for _ in range(c.depth))
