"""Multimodal temporal transformer (paper, section 3.4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mma_trainer.model.encoder import attend


class TemporalAttention(nn.Module):
    """Self-attention whose inner width is heads * head_dim; no bias on q, k and v."""

    def __init__(self, width: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        self.to_q = nn.Linear(width, num_heads * head_dim, bias=False)
        self.to_kv = nn.Linear(width, 2 * num_heads * head_dim, bias=False)
        self.to_out = nn.Linear(num_heads * head_dim, width)

    def forward(self, x: Tensor) -> Tensor:
        B, T, _ = x.shape

        def heads(y: Tensor) -> Tensor:  # (B, T, H*D) -> (B, H, T, D)
            return y.reshape(B, T, self.num_heads, self.head_dim).transpose(1, 2)

        k, v = self.to_kv(x).chunk(2, dim=-1)
        x = attend(heads(self.to_q(x)), heads(k), heads(v))  # (B, H, T, D)
        return self.to_out(x.transpose(1, 2).reshape(B, T, -1))


class TemporalBlock(nn.Module):
    """Pre-norm attention and MLP with tanh GELU."""

    def __init__(self, width: int, num_heads: int, head_dim: int, mlp: int) -> None:
        super().__init__()
        self.norm_attn = nn.LayerNorm(width)
        self.attn = TemporalAttention(width, num_heads, head_dim)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, mlp), nn.GELU(approximate="tanh"), nn.Linear(mlp, width))
        # Not used by forward. The authors' checkpoints carry these two norms and the paper's
        # parameter count includes them; without them a file could not make the round trip.
        self.unused_norm_attn, self.unused_norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm_attn(x))
        return x + self.mlp(self.norm_mlp(x))


class TemporalTransformer(nn.Module):
    """A [CLS] token looks over the fused frames: (N, T, W) -> (N, W)."""

    def __init__(self, width: int, num_frames: int, depth: int, num_heads: int, head_dim: int, mlp: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, num_frames + 1, width) * 0.02)
        self.blocks = nn.ModuleList(TemporalBlock(width, num_heads, head_dim, mlp) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed  # (N, 1+T, W)
        for block in self.blocks:
            x = block(x)
        return x[:, 0]
