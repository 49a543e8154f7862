"""ViT encoder of either modality, pre-norm, as MAE pre-trains it, and the prompts that join its tokens."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mma_edge.audio.logmel import MEL_MEAN, MEL_STD, NUM_MEL_FRAMES
from mma_trainer.model.config import MMADFERConfig

LAYER_NORM_EPS = 1e-6  # of MAE's encoders; the fusion's own norms keep PyTorch's 1e-5
MIN_CONTRAST = 0.01  # deviation of a picture in [0, 1] below which `FrameNorm` stretches no further: it would be noise
PADDING = -MEL_MEAN / (2.0 * MEL_STD)  # a row of padding, after the normalisation
PADDING_TOLERANCE = 1e-3  # float16 has no exact PADDING; 128 bins of a sound are never all as near to it
LOWEST = (math.log(torch.finfo(torch.float32).eps) - MEL_MEAN) / (2.0 * MEL_STD)  # digital silence, normalised
RANGE = 14.0 / (2.0 * MEL_STD)  # 61 dB, in units of the normalised log-mel

_part: tuple[int, int, int] | None = None
"""First clip, clips and those of the whole batch. A batch may be shared by processes, and each share computed in parts,
without an effect on stochastic depth: every part draws for the whole batch from the same state of the generator and
keeps its own rows."""


@contextlib.contextmanager
def part_of_batch(start: int, count: int, whole: int, seed: int) -> Iterator[None]:
    """The block computes the clips [start, start + count) of a batch of `whole` clips; `seed` is the batch's."""
    global _part
    torch.manual_seed(seed)
    _part = start, count, whole
    try:
        yield
    finally:
        _part = None


def rand_per_row(rows: int, device: torch.device) -> Tensor:
    """Uniform numbers (rows,) in [0, 1); each clip of the part has equally many, e.g. one per frame."""
    if _part is None:
        return torch.rand(rows, device=device)
    start, count, whole = _part
    per_clip = rows // count
    return torch.rand(whole * per_clip, device=device)[start * per_clip : (start + count) * per_clip]


class Attention(nn.Module):
    """Multi-head self-attention with a joint qkv projection and bias."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, width // num_heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        B, T, W = x.shape
        # As one more group of heads, not as a dimension of their own: in the graph a Transpose and a Split, where every
        # one of them had a Squeeze and a Transpose.
        qkv = self.qkv(x).reshape(B, T, 3 * self.num_heads, self.head_dim).transpose(1, 2)  # (B, 3 H, T, D)
        q, k, v = qkv.chunk(3, dim=1)  # 3 x (B, H, T, D)
        return self.proj(attend(q, k, v).transpose(1, 2).reshape(B, T, W))


class CrossAttention(nn.Module):
    """Multi-head attention of tokens (N, Tq, W) on others (N, Tk, W), maybe themselves: (N, Tq, W).

    The inner width is heads * head_dim; `bias` is that of q, k and v.
    """

    def __init__(self, width: int, num_heads: int, head_dim: int, bias: bool) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        self.to_q = nn.Linear(width, num_heads * head_dim, bias)
        self.to_kv = nn.Linear(width, 2 * num_heads * head_dim, bias)
        self.to_out = nn.Linear(num_heads * head_dim, width)

    def forward(self, query: Tensor, other: Tensor) -> Tensor:
        N, T, _ = query.shape

        def heads(x: Tensor) -> Tensor:  # (N, T, H*D) -> (N, H, T, D)
            return x.reshape(N, x.shape[1], -1, self.head_dim).transpose(1, 2)

        k, v = heads(self.to_kv(other)).chunk(2, dim=1)
        x = attend(heads(self.to_q(query)), k, v)  # (N, H, Tq, D)
        return self.to_out(x.transpose(1, 2).reshape(N, T, -1))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v, all (B, H, T, D)."""
    if not torch.compiler.is_exporting():
        return F.scaled_dot_product_attention(q, k, v)
    # In the graph: plain matmuls and one Softmax, which every runtime fuses, with the scale
    # on q before the product so that fp16 scores cannot overflow.
    return ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1) @ v


class DropPath(nn.Module):
    """Stochastic depth: drops a whole residual branch per sample while training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = rand_per_row(x.shape[0], x.device) >= self.rate
        return x * (keep.to(x.dtype) / (1.0 - self.rate)).reshape(-1, *[1] * (x.ndim - 1))


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
    """x + two 3x3 convolutions of it, (B, C, H, W) -> the same; batch-normalised unless they have biases instead."""

    def __init__(self, channels: int, normed: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=not normed)
        self.norm1 = nn.BatchNorm2d(channels) if normed else nn.Identity()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=not normed)
        self.norm2 = nn.BatchNorm2d(channels) if normed else nn.Identity()
        if normed:
            nn.init.zeros_(self.norm2.weight)  # starts as the identity

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(y)))


class FrameNorm(nn.Module):
    """Faces (B, C, H, W) with zero mean and unit deviation each: exposure and contrast of a camera are no expression.

    A picture of one colour, which stands for a face that is not there, becomes zeros.
    """

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(dim=(1, 2, 3), keepdim=True)
        deviation = (centred * centred).mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return centred / deviation.clamp(min=MIN_CONTRAST)


class ClipNorm(nn.Module):
    """Log-mels (B, 1, T, F) relative to the mean power of the clip, so that a microphone's gain makes no difference.

    The mean is one of powers, not of logarithms: it follows the loud frames, that is the voice, however much silence
    is around it. What lies more than RANGE below it is cut there: what is quieter than a room's noise tells nothing.
    Rows of padding, which are zeros before the normalisation of the log-mel, count for nothing and become silence.
    """

    def forward(self, x: Tensor) -> Tensor:
        # The largest of a row instead of `all`, which ONNX lacks: it would become a minimum over int64.
        padding = (x - PADDING).abs().amax(dim=3, keepdim=True) < PADDING_TOLERANCE  # (B, 1, T, 1)
        x = x.masked_fill(padding, LOWEST)
        loudest = x.amax(dim=(2, 3), keepdim=True)
        # Relative to the loudest bin, so that the powers are at most 1: float16 holds them.
        power = ((x - loudest) * (2.0 * MEL_STD)).exp().mean(dim=3, keepdim=True).mean(dim=2, keepdim=True)
        heard = 1.0 - padding.to(x.dtype).mean(dim=2, keepdim=True)
        level = loudest + (power / heard.clamp(min=1.0 / NUM_MEL_FRAMES)).log() / (2.0 * MEL_STD)
        # A bin of digital silence, or of a filter too narrow to hold a frequency, says nothing of the loudness.
        x = (x - level).masked_fill(x < LOWEST + PADDING_TOLERANCE, -RANGE)
        return x.clamp(min=-RANGE) + RANGE / 2


class PatchEmbed(nn.Module):
    """Image (B, C, H, W) -> patches (B, H/p * W/p, width), optionally after a convolutional stem."""

    def __init__(
        self, channels: int, patch: int, width: int, stem: tuple[int, ...], blocks: tuple[int, ...], normed: bool
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for out_channels, num_blocks in zip(stem, blocks or (0,) * len(stem), strict=True):
            layers += [
                nn.Conv2d(channels, out_channels, 3, stride=2, padding=1, bias=not normed),
                nn.BatchNorm2d(out_channels) if normed else nn.Identity(),
                nn.ReLU() if blocks else nn.GELU(),
                *(ResidualBlock(out_channels, normed) for _ in range(num_blocks)),
            ]
            channels, patch = out_channels, patch // 2
        self.stem = nn.Sequential(*layers)
        self.proj = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.stem(x)).flatten(2).transpose(1, 2)


class Encoder(nn.Module):
    """The "image" or "audio" encoder of a config: patch embedding, [CLS], learned positions, blocks and final norm.

    The positions cover the prompt tokens too, which follow the patches; pre-trained alone it has none.
    """

    recompute_layers = False  # activation checkpointing in `encode`: see `MMADFER`

    def __init__(self, config: MMADFERConfig, modality: str, num_prompts: int = 0) -> None:
        super().__init__()
        c, normed = config, config.stem_norm == "batch"
        if modality == "image":
            self.grid = c.image_grid
            self.input_norm = FrameNorm() if c.image_norm == "frame" else nn.Identity()
            self.patch_embed = PatchEmbed(3, c.image_patch, c.width, c.image_stem, c.image_stem_blocks, normed)
        else:
            self.grid = c.audio_grid
            self.input_norm = ClipNorm() if c.audio_norm == "clip" else nn.Identity()
            self.patch_embed = PatchEmbed(1, c.audio_patch, c.width, c.audio_stem, c.audio_stem_blocks, normed)
        patches = self.grid[0] * self.grid[1]
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.width))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + patches + num_prompts, c.width))
        rates = (c.drop_path * layer / max(1, c.depth - 1) for layer in range(c.depth))
        self.blocks = nn.ModuleList(Block(c.width, c.num_heads, c.mlp_ratio, rate) for rate in rates)
        self.norm = nn.LayerNorm(c.width, eps=LAYER_NORM_EPS)
        with torch.no_grad():
            # Prompt positions stay ~ N(0, 1) (design of the authors); patches start small as in ViT.
            self.pos_embed[:, : 1 + patches] *= 0.02
            self.cls_token.normal_(std=0.02)

    def patches(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> patches (B, P, width), without positions."""
        return self.patch_embed(self.input_norm(x))

    def embed(self, x: Tensor, prompts: Tensor | None = None) -> Tensor:
        """(B, C, H, W) and prompts (K, width) -> tokens [CLS], patches, prompts: (B, 1 + P + K, width)."""
        parts = [self.cls_token.expand(x.shape[0], -1, -1), self.patches(x)]
        parts += [] if prompts is None else [prompts.expand(x.shape[0], -1, -1)]
        tokens = torch.cat(parts, dim=1)
        return tokens + self.pos_embed[:, : tokens.shape[1]]

    def encode(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, width) through all blocks -> normalised [CLS] (B, width)."""
        recompute = self.recompute_layers and self.training and torch.is_grad_enabled()
        for block in self.blocks:
            tokens = checkpoint(block, tokens, use_reentrant=False) if recompute else block(tokens)
        return self.norm(tokens[:, 0])


class StaticPrompts(nn.Module):
    """Prompts of one modality (paper, section 3.2) that enter with the patches and are "not updated with depth"."""

    def __init__(self, width: int, num_prompts: int) -> None:
        super().__init__()
        self.num_prompts = num_prompts
        self.init = nn.Parameter(torch.randn(num_prompts, width) * width**-0.5)

    def update(self, tokens: Tensor, layer: int) -> Tensor:
        """Tokens (B, T, W) after `layer`, as they are."""
        return tokens


class ProgressivePrompts(StaticPrompts):
    """Prompts of which, with depth, one group after another gets new rows added: `per_update` in each of K steps.

    K = num_prompts / per_update; step j follows layer j * depth / K. With as many steps as layers the last one follows
    the last layer, where only [CLS] is read: it exists, as in the authors' scheme, but has no effect and no gradient.
    """

    def __init__(self, width: int, num_prompts: int, per_update: int, depth: int) -> None:
        super().__init__(width, num_prompts)
        num_updates = num_prompts // per_update
        self.per_update, self.stride = per_update, depth // num_updates
        self.updates = nn.ParameterList(torch.randn(per_update, width) * width**-0.5 for _ in range(num_updates))

    def update(self, tokens: Tensor, layer: int) -> Tensor:
        """Tokens (B, T, W), prompts last, after `layer`: the same, or with this layer's step added."""
        step, rest = divmod(layer, self.stride)
        if rest:
            return tokens
        # One row of zeros per token that this step does not change: a single Add in the graph.
        before = tokens.shape[1] - self.num_prompts + step * self.per_update
        return tokens + F.pad(self.updates[step], (0, 0, before, tokens.shape[1] - before - self.per_update))
