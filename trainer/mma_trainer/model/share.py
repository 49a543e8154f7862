"""Which clips of the whole batch a forward pass has, for what is drawn at random per clip.

A batch may be shared by processes, and each share computed in parts. Stochastic depth must not notice:
every part draws for the whole batch from the same state of the generator and keeps its own rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class _Part:
    start: int
    count: int
    whole: int


_part: _Part | None = None


@contextlib.contextmanager
def part_of_batch(start: int, count: int, whole: int, seed: int) -> Iterator[None]:
    """Forward and backward inside are of the clips [start, start + count) of `whole`; `seed` is the batch's."""
    global _part
    torch.manual_seed(seed)
    _part = _Part(start, count, whole)
    try:
        yield
    finally:
        _part = None


def rand_per_row(rows: int, device: torch.device) -> Tensor:
    """Uniform numbers (rows,) in [0, 1); a clip has rows / count of them, e.g. one per frame."""
    if _part is None:
        return torch.rand(rows, device=device)
    per_clip = rows // _part.count
    drawn = torch.rand(_part.whole * per_clip, device=device)
    return drawn[_part.start * per_clip : (_part.start + _part.count) * per_clip]
