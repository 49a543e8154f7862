"""ViT encoder of either modality, pre-norm, as MAE pre-trains it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

LAYER_NORM_EPS = 1e-6  # of MAE's encoders; the fusion's own norms keep PyTorch's 1e-5


@dataclass(frozen=True)
class _Part:
    start: int
    count: int
    whole: int


_part: _Part | None = None
"""A batch may be shared by processes, and each share computed in parts, without an effect on stochastic depth: every
part draws for the whole batch from the same state of the generator and keeps its own rows."""


@contextlib.contextmanager
def part_of_batch(start: int, count: int, whole: int, seed: int) -> Iterator[None]:
    """The block computes the clips [start, start + count) of a batch of `whole` clips; `seed` is the batch's."""
    global _part
    torch.manual_seed(seed)
    _part = _Part(start, count, whole)
    try:
        yield
    finally:
        _part = None


def rand_per_row(rows: int, device: torch.device) -> Tensor:
    """Uniform numbers (rows,) in [0, 1); each clip of the part has equally many, e.g. one per frame."""
    if _part is None:
        return torch.rand(rows, device=device)
    per_clip = rows // _part.count
    drawn = torch.rand(_part.whole * per_clip, device=device)
    return drawn[_part.start * per_clip : (_part.start + _part.count) * per_clip]


class Attention(nn.Module):
    """Multi-head self-attention with a joint qkv projection and bias."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = width // num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        B, T, W = x.shape
        qkv = self.qkv(x).reshape(B, T, 3, self.num_heads, self.head_dim)  # (B, T, 3, H, D)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # 3 x (B, H, T, D)
        x = attend(q, k, v)  # (B, H, T, D)
        return self.proj(x.transpose(1, 2).reshape(B, T, W))  # (B, T, W)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v, all (B, H, T, D)."""
    if not torch.compiler.is_exporting():
        return F.scaled_dot_product_attention(q, k, v)
    # In the graph: plain matmuls and one Softmax, which every runtime fuses, with the scale
    # on q before the product so that fp16 scores cannot overflow.
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, H, T, T)
    return scores.softmax(dim=-1) @ v


class DropPath(nn.Module):
    """Stochastic depth: drops a whole residual branch per sample while training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = rand_per_row(x.shape[0], x.device) >= self.rate
        scale = keep.to(x.dtype) / (1.0 - self.rate)
        return x * scale.reshape(-1, *[1] * (x.ndim - 1))


class Block(nn.Module):
    """x + attention(LN x), then x + MLP(LN x); erf GELU."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(width, mlp_ratio * width), nn.GELU(), nn.Linear(mlp_ratio * width, width))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class ResidualBlock(nn.Module):
    """x + two 3x3 convolutions of it, (B, C, H, W) -> the same; batch-normalised."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm2.weight)  # starts as the identity

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(y)))


class PatchEmbed(nn.Module):
    """Image (B, C, H, W) -> patches (B, H/p * W/p, width), optionally after a convolutional stem."""

    def __init__(
        self, channels: int, patch: int, width: int, stem: tuple[int, ...], blocks: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for out_channels, num_blocks in zip(stem, blocks or (0,) * len(stem), strict=True):
            layers += [
                nn.Conv2d(channels, out_channels, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.ReLU() if blocks else nn.GELU(),
            ]
            layers += [ResidualBlock(out_channels) for _ in range(num_blocks)]
            channels, patch = out_channels, patch // 2
        self.stem = nn.Sequential(*layers)
        self.proj = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.stem(x)).flatten(2).transpose(1, 2)


class Encoder(nn.Module):
    """Patch embedding, [CLS], learned positions, blocks and final norm.

    Args:
        grid: patches down and across.
        num_prompts: prompt tokens that follow the patches; the position embedding covers them too.

    Attributes:
        recompute_layers: activation checkpointing in `encode`: see `MMADFER`.
    """

    recompute_layers = False

    def __init__(
        self,
        channels: int,
        grid: tuple[int, int],
        patch: int,
        width: int,
        depth: int,
        num_heads: int,
        mlp_ratio: int,
        drop_path: float,
        stem: tuple[int, ...] = (),
        stem_blocks: tuple[int, ...] = (),
        num_prompts: int = 0,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.patch_embed = PatchEmbed(channels, patch, width, stem, stem_blocks)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + grid[0] * grid[1] + num_prompts, width))
        rates = [drop_path * layer / max(1, depth - 1) for layer in range(depth)]
        self.blocks = nn.ModuleList(Block(width, num_heads, mlp_ratio, rate) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        with torch.no_grad():
            # Prompt positions stay ~ N(0, 1) (design of the authors); patches start small as in ViT.
            self.pos_embed[:, : 1 + grid[0] * grid[1]] *= 0.02
            self.cls_token.normal_(std=0.02)

    def embed(self, x: Tensor, prompts: Tensor | None = None) -> Tensor:
        """(B, C, H, W) and prompts (K, width) -> tokens [CLS], patches, prompts: (B, 1 + P + K, width)."""
        B = x.shape[0]
        parts = [self.cls_token.expand(B, -1, -1), self.patch_embed(x)]
        if prompts is not None:
            parts.append(prompts.expand(B, -1, -1))
        tokens = torch.cat(parts, dim=1)
        return tokens + self.pos_embed[:, : tokens.shape[1]]

    def encode(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, width) through all blocks -> normalised [CLS] (B, width)."""
        recompute = self.recompute_layers and self.training and torch.is_grad_enabled()
        for block in self.blocks:
            tokens = checkpoint(block, tokens, use_reentrant=False) if recompute else block(tokens)
        return self.norm(tokens[:, 0])
