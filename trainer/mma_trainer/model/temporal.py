"""Time: the multimodal temporal transformer (paper, section 3.4), and what the paper compares it with.

    mtt    the paper's: one transformer block with a new [CLS] over the frames, after the encoders
    ita    intermediate temporal adaptors: a small attention over the frames in every layer of the
           image encoder; after it the frames are averaged
    both   the adaptors, then the transformer
    mean   plain averaging of the frames

The paper does not describe its adaptors further, and the published code has none. Ours are made like the fusion
bottleneck: see `TemporalAdaptor`.

Trainable parameters of the temporal part at ViT-B (M), beside the paper's:

    mtt       2.11   2.2   (the published checkpoint's own tensors make 2.11)
    ita  64   1.40   1.3
    ita 128   3.19   0.8
    ita 256   7.94   4.3
    both      5.30   2.9   (with adaptors of 128; 3.52 with 64)

The paper's three figures cannot be those of one block at three widths in any order: a count C + A d + B d^2
with A, B >= 0 grows between two and four times as much from 128 to 256 as from 64 to 128; sorted, they grow
six times as much. 64 and 128 look exchanged, and 2.9 = 2.1 + 0.8 says that "both" has the smallest.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mma_trainer.model.config import MMADFERConfig
from mma_trainer.model.encoder import CrossAttention, attend


class TemporalBlock(nn.Module):
    """Pre-norm attention, without bias on q, k and v, and MLP with tanh GELU."""

    def __init__(self, width: int, num_heads: int, head_dim: int, mlp: int) -> None:
        super().__init__()
        self.norm_attn, self.attn = nn.LayerNorm(width), CrossAttention(width, num_heads, head_dim, bias=False)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp), nn.GELU(approximate="tanh"), nn.Linear(mlp, width))
        # Not used by forward. The authors' checkpoints carry these two norms and the paper's
        # parameter count includes them; without them a file could not make the round trip.
        self.unused_norm_attn, self.unused_norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_attn(x)
        x = x + self.attn(y, y)
        return x + self.mlp(self.norm_mlp(x))


class TemporalTransformer(nn.Module):
    """A [CLS] token attends to the fused frames: (N, T, W) -> (N, W)."""

    def __init__(self, config: MMADFERConfig) -> None:
        super().__init__()
        c, width = config, config.temporal_width
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        # One token per frame, or the sound's single one.
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + (c.num_frames if c.uses_image else 1), width) * 0.02)
        sizes = width, c.temporal_heads, c.temporal_head_dim, c.temporal_mlp
        self.blocks = nn.ModuleList(TemporalBlock(*sizes) for _ in range(c.temporal_depth))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed  # (N, 1+T, W)
        for block in self.blocks:
            x = block(x)
        return x[:, 0]


class FrameMean(nn.Module):
    """Plain averaging in place of the transformer: (N, T, W) -> (N, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


class TemporalAdaptor(nn.Module):
    """One layer's attention over time inside the image encoder, gated from zero.

    c^ = LN(W [CLS] + b) per frame, plus a learned position per frame
    v <- v + tanh(alpha) GELU(F(c^ + attention over the frames(c^)))    for all tokens of the frame

    Our definition (the paper names width and place only): the [CLS] of each frame is projected down, attends to those
    of the other frames, and is added to its frame's tokens as in the fusion bottleneck.
    """

    def __init__(self, width: int, inner: int, num_frames: int, num_heads: int) -> None:
        super().__init__()
        self.num_frames, self.num_heads = num_frames, num_heads
        self.down, self.norm = nn.Linear(width, inner), nn.LayerNorm(inner)
        self.positions = nn.Parameter(torch.randn(1, num_frames, inner) * 0.02)
        self.to_qkv, self.to_out = nn.Linear(inner, 3 * inner), nn.Linear(inner, inner)
        self.up = nn.Linear(inner, width)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor) -> Tensor:
        """(N * num_frames, Tv, W) -> the same shape."""
        T, H = self.num_frames, self.num_heads
        d = self.positions.shape[-1]
        c = self.norm(self.down(image[:, 0])).reshape(-1, T, d) + self.positions  # (N, T, d)
        qkv = self.to_qkv(c).reshape(-1, T, 3, H, d // H).permute(2, 0, 3, 1, 4)
        x = attend(*qkv.unbind(0)).transpose(1, 2).reshape(-1, T, d)  # (N, T, d)
        nudge = F.gelu(self.up((c + self.to_out(x)).reshape(-1, 1, d)))  # (N*T, 1, W)
        return image + torch.tanh(self.gate) * nudge
