"""Time: the multimodal temporal transformer (paper, section 3.4), and what the paper compares it with (Table 2).

    mtt    the paper's: one transformer block with a new [CLS] over the frames, after the encoders
    ita    intermediate temporal adaptors: an attention over the frames after every layer's fusion; the joint
           features are averaged over the frames
    both   the adaptors, then the transformer
    mean   plain averaging of the frames

Trainable parameters of the temporal part at ViT-B (M), beside the paper's:

    mtt       2.11   2.2   (the published checkpoint's own tensors make 2.11)
    ita  64   1.39   1.3
    ita 128   0.79   0.8
    ita 256   3.96   4.3
    both      2.91   2.9   (with adaptors of 128)

The published code has no adaptors. See `TemporalAdaptor` for what the paper's text leaves open.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mma_trainer.model.config import MMADFERConfig
from mma_trainer.model.encoder import Attention, CrossAttention
from mma_trainer.model.fusion import FusionBottleneck


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
    """One layer's attention over time among the [CLS] tokens of a clip's frames, after the fusion, gated from zero.

    c = LN(W [CLS] + b) per frame
    v <- v + tanh(alpha) GELU(F(attention over the frames(c)))    for all tokens of the frame

    As wide as the layer's fusion bottleneck, it works in the bottleneck's own space: LN, W and F are those of its
    vision branch, and only the attention is the adaptor's own (4 d^2 parameters and biases). The paper does not give
    the projections of other widths. Ours are those with the counts nearest to its own: a narrower adaptor, or one
    without a bottleneck, has W and F from and to the encoder's width (2 W d); a wider one widens the bottleneck's space
    and returns to it (2 * 128 d). From and to the encoder's width, that of 256 would have 7.90 M instead of 3.96.

    The gate, the GELU, that all tokens of the frame get the result, and that frames have no positions are our reading:
    the text does not say, and positions would not be in the counts. Adaptors alone hence do not know the frames' order.
    """

    def __init__(self, width: int, inner: int, num_heads: int, bottleneck: int | None) -> None:
        """bottleneck: width of the layer's fusion bottleneck; None without one."""
        super().__init__()
        self.is_inside = bottleneck is not None and inner >= bottleneck
        outer = bottleneck if self.is_inside else width
        self.attn = Attention(inner, num_heads)
        own = inner != outer or not self.is_inside
        self.down = nn.Sequential(nn.Linear(outer, inner), nn.LayerNorm(inner)) if own else nn.Identity()
        self.up = nn.Linear(inner, outer) if own else nn.Identity()
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor, num_frames: int, fusion: FusionBottleneck | None = None) -> Tensor:
        """image (N * num_frames, Tv, W) -> the same shape; `fusion`: the layer's bottleneck, if it has one."""
        c = image[:, 0]  # (N*F, W)
        if self.is_inside:
            c = fusion.image_norm(fusion.image_down(c))
        c = self.down(c)
        x = self.attn(c.reshape(-1, num_frames, c.shape[-1])).reshape(-1, 1, c.shape[-1])  # (N*F, 1, d)
        x = self.up(x)
        if self.is_inside:
            x = fusion.image_up(x)
        return image + torch.tanh(self.gate) * F.gelu(x)
