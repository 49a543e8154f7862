"""Random numbers for a batch: one row per clip."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def uniform(shape: tuple[int, ...], low: float, high: float, rng: Generator) -> Tensor:
    return torch.rand(shape, generator=rng) * (high - low) + low


def chance(shape: tuple[int, ...], probability: float, rng: Generator) -> Tensor:
    """True with `probability`, bool of `shape`."""
    return torch.rand(shape, generator=rng) < probability


def integer(low: int, high: int, rng: Generator) -> int:
    """One whole number in [low, high]."""
    return int(torch.randint(low, high + 1, (), generator=rng))
