"""Augmentation in torch, whole batches at a time. Frames are float (..., H, W) in [0, 1] until the end."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from mma_edge.audio.logmel import NUM_MEL_BINS, NUM_MEL_FRAMES

LOG_FLOOR = math.log(torch.finfo(torch.float32).eps)  # Kaldi's log-mel of digital silence
DB_TO_LOG = math.log(10) / 10  # the mels are natural logarithms of power
SNR_DB = (8.0, 45.0)
NOISY_SHARE = 0.7
SHORTEST_EXCERPT = 200  # frames


def uniform(shape: tuple[int, ...], low: float, high: float, rng: Generator) -> Tensor:
    return torch.rand(shape, generator=rng) * (high - low) + low


def warp(images: Tensor, angle: Tensor, scale: Tensor, shift_x: Tensor, shift_y: Tensor, flip: Tensor) -> Tensor:
    """Affine warp of (B, C, H, W). angle in radians, shift in halves of the image, flip +1 or -1; each (B,)."""
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    rows = [torch.stack([cos * flip, -sin, shift_x], -1), torch.stack([sin * flip, cos, shift_y], -1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def light(images: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Multiply by brightness and stretch around the mean by contrast; both broadcast over (B, ...)."""
    mean = images.mean(dim=(-3, -2, -1), keepdim=True)
    return ((images - mean) * contrast + mean * brightness).clamp(0, 1)


def blur(images: Tensor, amount: Tensor) -> Tensor:
    """Blend (B, C, H, W) with its 3x3 mean by amount (B,) in [0, 1]: the softness of upscaled or moving faces."""
    soft = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    return torch.lerp(images, soft, amount.view(-1, 1, 1, 1))


def erase(images: Tensor, probability: float, rng: Generator) -> Tensor:
    """Hide one random rectangle (a hand, a microphone) of some images (B, C, H, W) behind grey."""
    B, _, H, W = images.shape
    y = torch.arange(H).view(1, H, 1)
    x = torch.arange(W).view(1, 1, W)
    height, width = (uniform((B, 1, 1), 0.15, 0.45, rng) for _ in range(2))
    top = torch.rand((B, 1, 1), generator=rng) * (1 - height) * H
    left = torch.rand((B, 1, 1), generator=rng) * (1 - width) * W
    inside = (y >= top) & (y < top + height * H) & (x >= left) & (x < left + width * W)
    chosen = torch.rand((B, 1, 1), generator=rng) < probability
    fill = torch.rand((B, 1, 1, 1), generator=rng)
    return torch.where((inside & chosen).unsqueeze(1), fill, images)


def augment_stills(images: Tensor, rng: Generator) -> Tensor:
    """Random pose, light, softness and occlusion of faces (B, C, H, W)."""
    B = len(images)
    flip = (torch.rand(B, generator=rng) < 0.5).float() * 2 - 1
    ranges = ((-0.2, 0.2), (0.88, 1.14), (-0.12, 0.12), (-0.12, 0.12))  # angle, scale, shifts
    images = warp(images, *(uniform((B,), *bounds, rng) for bounds in ranges), flip)
    images = light(images, uniform((B, 1, 1, 1), 0.75, 1.25, rng), uniform((B, 1, 1, 1), 0.75, 1.3, rng))
    images = blur(images, torch.rand(B, generator=rng) * (torch.rand(B, generator=rng) < 0.2))
    return erase(images, 0.1, rng)


def stills_to_clips(images: Tensor, num_frames: int, rng: Generator) -> Tensor:
    """Faces (B, C, H, W) -> clips (B, num_frames, C, H, W): the pose drifts smoothly, the light wavers.

    A still repeated 16 times would teach the temporal transformer that nothing ever moves.
    """
    B, C, H, W = images.shape
    time = torch.linspace(0, 2 * math.pi, num_frames)

    def drift(amount: float) -> Tensor:  # a slow random wave per clip: (B * F,)
        speed, phase = uniform((B, 1), 0.2, 2.0, rng), uniform((B, 1), 0, 2 * math.pi, rng)
        return (uniform((B, 1), 0, amount, rng) * torch.sin(speed * time + phase)).reshape(-1)

    frames = images.unsqueeze(1).expand(-1, num_frames, -1, -1, -1).reshape(B * num_frames, C, H, W)
    frames = warp(frames, drift(0.12), 1 + drift(0.1), drift(0.12), drift(0.12), torch.ones(B * num_frames))
    wave = 1 + drift(0.15)
    return (frames * wave.view(-1, 1, 1, 1)).clamp(0, 1).reshape(B, num_frames, C, H, W)


def place_mel(rows: Tensor, rng: Generator | None) -> Tensor:
    """Log-mel rows (n, 128) -> (512, 128), zero-padded: from the start, or with `rng` a random excerpt.

    A live window starts anywhere in a sentence and holds silence before or after it.
    """
    mel = torch.zeros(NUM_MEL_FRAMES, NUM_MEL_BINS)
    length = min(len(rows), NUM_MEL_FRAMES)
    if rng is None:
        mel[:length] = rows[:length]
        return mel
    if length > SHORTEST_EXCERPT and torch.rand((), generator=rng) < 0.5:
        length = int(torch.randint(SHORTEST_EXCERPT, length + 1, (), generator=rng))
    start = int(torch.randint(0, len(rows) - length + 1, (), generator=rng))
    mel[:length] = rows[start : start + length]
    if torch.rand((), generator=rng) < 0.3 and length < NUM_MEL_FRAMES:  # quiet lead-in, as live
        lead = int(torch.randint(0, NUM_MEL_FRAMES - length + 1, (), generator=rng))
        mel = torch.roll(mel, lead, dims=0)
        mel[:lead] = rows[: max(1, len(rows) // 20)].mean(dim=0)
    return mel


def loudest_part(mels: Tensor, count: int, rng: Generator) -> Tensor:
    """The loudest `count` frames in a row of log-mels (B, n, 128), give or take a quarter: (B, count, 128)."""
    B, frames, _ = mels.shape
    loudness = torch.where((mels == 0).all(dim=-1), torch.zeros(()), mels.mean(dim=-1) - LOG_FLOOR)
    sums = F.pad(loudness.cumsum(dim=1), (1, 0))
    first = (sums[:, count:] - sums[:, :-count]).argmax(dim=1)
    first = (first + torch.randint(-count // 4, count // 4 + 1, (B,), generator=rng)).clamp(0, frames - count)
    return torch.stack([mel[start : start + count] for mel, start in zip(mels, first.tolist(), strict=True)])


def augment_mel(mels: Tensor, rng: Generator) -> Tensor:
    """Log-mels (B, n, 128) heard elsewhere: gain, tone, noise, masks (SpecAugment, Park et al. 2019)."""
    B = len(mels)
    padding = (mels == 0).all(dim=-1, keepdim=True)
    mels = mels + uniform((B, 1, 1), -2, 2, rng)  # gain, then tilt
    mels = mels + uniform((B, 1, 1), -1, 1, rng) * torch.linspace(-1, 1, NUM_MEL_BINS)
    # Noise below the loudest frame of this very voice: quiet recordings would drown in a fixed level.
    loud = mels.masked_fill(padding, LOG_FLOOR).mean(dim=2).amax(dim=1).view(B, 1, 1)
    floor = loud - DB_TO_LOG * uniform((B, 1, 1), *SNR_DB, rng) + 0.8 * torch.randn(mels.shape, generator=rng)
    noisy = torch.rand((B, 1, 1), generator=rng) < NOISY_SHARE
    mels = torch.where(noisy, torch.logaddexp(mels, floor), mels)
    for axis, widest in ((1, 32), (1, 32), (2, 12), (2, 12)):
        place, width = torch.arange(mels.shape[axis]), torch.randint(0, widest, (B, 1), generator=rng)
        start = (torch.rand((B, 1), generator=rng) * (len(place) - width)).long()
        masked = (place >= start) & (place < start + width)
        mels = torch.where(masked.unsqueeze(3 - axis), mels.mean(dim=(1, 2), keepdim=True), mels)
    return torch.where(padding, torch.zeros(()), mels)
