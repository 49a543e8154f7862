"""Faces as a camera and the runtime's own crop would give them. Pictures are float (B, C, H, W) in [0, 1];
what befalls a picture befalls all of its channels.

FER2013's pictures are cut like the runtime's square boxes: of 210 of them in which MTCNN found a face its square was
1.07 times as wide as the picture (median; a twentieth below 0.77 and above 1.33), with the same centre. So faces are
shown smaller and larger, and what lies outside the picture is filled in three ways: black, its border, its reflection.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from mma_trainer.data.augment.draw import chance, integer, uniform

PADDINGS = ("zeros", "border", "reflection")
ANGLE, SCALE, ASPECT, SHIFT = (-0.25, 0.25), (0.82, 1.25), (0.9, 1.1), (-0.14, 0.14)
"""Radians; size to the picture's; width to height; halves of the picture."""
PERSPECTIVE = (-0.18, 0.18)  # how much nearer one side of the face is: a head that is turned
ELASTIC, ELASTIC_GRID = 0.03, 5  # halves of the picture, at so many points down and across: mouths that speak
SMALL_PX, SMALL_SHARE = (20, 44), 0.15  # faces far away
LOG_GAMMA = (-0.5, 0.5)
LIGHT_ACROSS, LIGHT_DOWN = (-0.35, 0.35), (-0.25, 0.25)  # a lamp on one side
NOISE, NOISY_SHARE = 0.04, 0.3
SOFT_SHARE, MOVING_SHARE, CODED_SHARE = 0.12, 0.08, 0.06
HIDDEN_SHARES = (0.15, 0.08)  # a hand and a microphone
MOUTH_CENTRE, MOUTH_RADII = ((-0.08, 0.08), (0.42, 0.65)), ((0.35, 0.5), (0.25, 0.4))
"""Where the mouth of a cropped face is, and how far around it: x and y, in halves of the picture."""
MOUTH_EDGE = 0.15  # width of the seam, in radii


def augment_stills(images: Tensor, rng: Generator) -> Tensor:
    """Random pose, distance, light, softness, noise, coding and occlusion."""
    images = _moved(images, rng)
    images = _shrunk(images, rng)
    images = _lit(images, rng)
    images = _softened(images, rng)
    for share in HIDDEN_SHARES:
        images = hide(images, share, rng)
    return images


def _moved(images: Tensor, rng: Generator) -> Tensor:
    """Turned, shifted, nearer or farther, seen from the side, mirrored, and bent a little as by speech."""
    B, _, H, W = images.shape
    flip = chance((B,), 0.5, rng).float() * 2 - 1
    angle, scale, aspect = (uniform((B,), *bounds, rng) for bounds in (ANGLE, SCALE, ASPECT))
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    rows = [
        torch.stack([cos * flip * aspect, -sin, uniform((B,), *SHIFT, rng)], -1),
        torch.stack([sin * flip, cos / aspect, uniform((B,), *SHIFT, rng)], -1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), [B, 1, H, W], align_corners=False)
    bends = torch.randn((B, 2, ELASTIC_GRID, ELASTIC_GRID), generator=rng) * ELASTIC
    bends = F.interpolate(bends, (H, W), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    grid = grid + bends * chance((B, 1, 1, 1), 0.7, rng)
    turn = uniform((B, 1, 1), *PERSPECTIVE, rng) * chance((B, 1, 1), 0.5, rng)
    grid = grid / (1 + turn * grid[..., 0]).unsqueeze(-1)
    padding = PADDINGS[integer(0, len(PADDINGS) - 1, rng)]
    return F.grid_sample(images, grid, padding_mode=padding, align_corners=False)


def _shrunk(images: Tensor, rng: Generator) -> Tensor:
    """Some of the faces as if they had been only SMALL_PX wide."""
    size = images.shape[-1]
    small = images.clone()
    for index in chance((len(images),), SMALL_SHARE, rng).nonzero().flatten().tolist():
        side = max(4, integer(*SMALL_PX, rng) * size // 48)
        one = F.interpolate(images[index : index + 1], (side, side), mode="bilinear", antialias=True)
        mode = "bilinear" if side % 2 else "bicubic"
        small[index] = F.interpolate(one, (size, size), mode=mode)[0].clamp(0, 1)
    return small


def _lit(images: Tensor, rng: Generator) -> Tensor:
    """Another exposure curve, and light from one side. Brightness and contrast are left to the model's `FrameNorm`."""
    B, _, H, W = images.shape
    images = images.clamp(1e-4, 1) ** torch.exp(uniform((B, 1, 1, 1), *LOG_GAMMA, rng))
    y, x = torch.meshgrid(torch.linspace(-1, 1, H), torch.linspace(-1, 1, W), indexing="ij")
    slope = uniform((B, 1, 1, 1), *LIGHT_ACROSS, rng) * x + uniform((B, 1, 1, 1), *LIGHT_DOWN, rng) * y
    return images * (1 + slope * chance((B, 1, 1, 1), 0.5, rng))


def _softened(images: Tensor, rng: Generator) -> Tensor:
    """Out of focus, moving, noisy, or coded with too few bits."""
    B, _, H, W = images.shape
    one = (B, 1, 1, 1)
    soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    images = torch.where(chance(one, SOFT_SHARE, rng), torch.lerp(images, soft, uniform(one, 0.3, 1.0, rng)), images)
    moving = F.avg_pool2d(F.pad(images, (2, 2, 0, 0), mode="replicate"), (1, 5), 1)
    images = torch.where(chance(one, MOVING_SHARE, rng), moving, images)
    noise = uniform(one, 0, NOISE, rng) * chance(one, NOISY_SHARE, rng)
    images = images + torch.randn(images.shape, generator=rng) * noise
    # What is lost when a codec keeps little more than the mean of a block.
    blocks = F.interpolate(F.avg_pool2d(images, 4), (H, W), mode="nearest")
    return torch.where(chance(one, CODED_SHARE, rng), torch.lerp(images, blocks, uniform(one, 0.1, 0.5, rng)), images)


def hide(images: Tensor, probability: float, rng: Generator) -> Tensor:
    """Hide one random rectangle of some images behind grey."""
    B, _, H, W = images.shape
    y = torch.arange(H).view(1, H, 1)
    x = torch.arange(W).view(1, 1, W)
    height, width = (uniform((B, 1, 1), 0.1, 0.45, rng) for _ in range(2))
    top = torch.rand((B, 1, 1), generator=rng) * (1 - height) * H
    left = torch.rand((B, 1, 1), generator=rng) * (1 - width) * W
    inside = (y >= top) & (y < top + height * H) & (x >= left) & (x < left + width * W)
    fill = torch.rand((B, 1, 1, 1), generator=rng)
    return torch.where((inside & chance((B, 1, 1), probability, rng)).unsqueeze(1), fill, images)


def other_mouths(images: Tensor, rng: Generator) -> Tensor:
    """The faces (B, 1, H, W) with the mouths of others of the batch.

    Who speaks opens and closes the mouth, whatever is felt; people who are photographed seldom speak. A face's eyes and
    brows then have to tell more, and an open mouth no longer stands for surprise.
    """
    B, _, H, W = images.shape
    y, x = torch.meshgrid(torch.linspace(-1, 1, H), torch.linspace(-1, 1, W), indexing="ij")
    (cx, cy), (rx, ry) = ([uniform((B, 1, 1), *b, rng) for b in bounds] for bounds in (MOUTH_CENTRE, MOUTH_RADII))
    radius = (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2).sqrt()
    mask = torch.sigmoid((1 - radius) * (4 / MOUTH_EDGE)).unsqueeze(1)
    others = images[torch.randperm(B, generator=rng)]
    # The other's skin gets the brightness and contrast of this one's.
    total = mask.sum(dim=(2, 3), keepdim=True)
    (mean, spread), (other_mean, other_spread) = (_moments(part, mask, total) for part in (images, others))
    others = (others - other_mean) * (spread / other_spread) + mean
    return torch.lerp(images, others.clamp(0, 1), mask)


def _moments(images: Tensor, mask: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation under a mask, (B, 1, 1, 1) each."""
    mean = (images * mask).sum(dim=(2, 3), keepdim=True) / total
    variance = ((images - mean).square() * mask).sum(dim=(2, 3), keepdim=True) / total
    return mean, variance.sqrt().clamp(min=0.02)


def stills_to_clips(images: Tensor, num_frames: int, rng: Generator) -> Tensor:
    """Faces (B, 2, H, W) -> clips (B, num_frames, 1, H, W): the pose drifts, the light wavers, the mouth speaks.

    A still repeated 16 times would teach the temporal transformer that nothing ever moves. The second channel is the
    same face with another's mouth, see `other_mouths`; who speaks shows both by turns.
    """
    B, C, H, W = images.shape
    time = torch.linspace(0, 2 * math.pi, num_frames)

    def drift(amount: float) -> Tensor:  # a slow random wave per clip: (B * F,)
        speed, phase = uniform((B, 1), 0.2, 2.0, rng), uniform((B, 1), 0, 2 * math.pi, rng)
        return (uniform((B, 1), 0, amount, rng) * torch.sin(speed * time + phase)).reshape(-1)

    frames = images.unsqueeze(1).expand(-1, num_frames, -1, -1, -1).reshape(B * num_frames, C, H, W)
    angle, scale = drift(0.12), 1 + drift(0.1)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    rows = [torch.stack([cos, -sin, drift(0.12)], -1), torch.stack([sin, cos, drift(0.12)], -1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(frames.shape), align_corners=False)
    # Speech bends a face to and fro: one field per clip, whose sign and size change with time.
    bends = torch.randn((B, 2, ELASTIC_GRID, ELASTIC_GRID), generator=rng) * ELASTIC
    bends = F.interpolate(bends, (H, W), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    talk = torch.sin(uniform((B, 1), 2, 12, rng) * time + uniform((B, 1), 0, 2 * math.pi, rng))  # (B, F)
    talk = talk * chance((B, 1), 0.6, rng)
    grid = grid + (bends.unsqueeze(1) * talk.view(B, num_frames, 1, 1, 1)).reshape(B * num_frames, H, W, 2)
    frames = F.grid_sample(frames, grid, padding_mode="border", align_corners=False)
    own, other = frames[:, :1], frames[:, 1:]
    frames = torch.lerp(own, other, talk.clamp(min=0).reshape(-1, 1, 1, 1))
    wave = 1 + drift(0.15)
    return (frames * wave.view(-1, 1, 1, 1)).clamp(0, 1).reshape(B, num_frames, 1, H, W)
