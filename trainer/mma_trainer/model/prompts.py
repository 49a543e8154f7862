"""Progressive prompt tokens (paper, section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ProgressivePrompts(nn.Module):
    """Prompt tokens of one modality; with depth, new rows are added to one group after another.

    Args:
        width: of a token. num_prompts: tokens in all. per_update: rows renewed by one step.
        depth: encoder layers. With K = num_prompts / per_update steps, step j follows layer j * depth / K.
    """

    def __init__(self, width: int, num_prompts: int, per_update: int, depth: int) -> None:
        super().__init__()
        num_updates = num_prompts // per_update
        self.num_prompts, self.per_update, self.stride = num_prompts, per_update, depth // num_updates
        std = width**-0.5
        self.init = nn.Parameter(torch.randn(num_prompts, width) * std)
        self.updates = nn.ParameterList(torch.randn(per_update, width) * std for _ in range(num_updates))

    def update(self, tokens: Tensor, layer: int) -> Tensor:
        """Tokens (B, T, W), prompts last, after `layer`: the same, or with this layer's step added."""
        if layer % self.stride:
            return tokens
        step = layer // self.stride
        # One row of zeros per token that this step leaves alone: a single Add in the graph.
        before = tokens.shape[1] - self.num_prompts + step * self.per_update
        after = tokens.shape[1] - before - self.per_update
        return tokens + F.pad(self.updates[step], (0, 0, before, after))
