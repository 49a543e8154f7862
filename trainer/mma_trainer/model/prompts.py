"""Prompt tokens of one modality (paper, section 3.2): progressive, or static for comparison."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mma_trainer.model.config import MMADFERConfig


class StaticPrompts(nn.Module):
    """Learned tokens that enter with the patches and are not touched again ("not updated with depth")."""

    def __init__(self, width: int, num_prompts: int) -> None:
        super().__init__()
        self.num_prompts = num_prompts
        self.init = nn.Parameter(torch.randn(num_prompts, width) * width**-0.5)

    def update(self, tokens: Tensor, layer: int) -> Tensor:
        """Tokens (B, T, W) after `layer`, as they are."""
        return tokens


class ProgressivePrompts(StaticPrompts):
    """Prompt tokens of one modality; with depth, new rows are added to one group after another.

    Args:
        width: of a token. num_prompts: tokens in all. per_update: rows renewed by one step.
        depth: encoder layers. With K = num_prompts / per_update steps, step j follows layer j * depth / K.
            With as many steps as layers the last one follows the last layer, where only [CLS] is
            read: it exists, as in the authors' scheme, but has no effect and no gradient.
    """

    def __init__(self, width: int, num_prompts: int, per_update: int, depth: int) -> None:
        super().__init__(width, num_prompts)
        num_updates = num_prompts // per_update
        self.per_update, self.stride = per_update, depth // num_updates
        self.updates = nn.ParameterList(torch.randn(per_update, width) * width**-0.5 for _ in range(num_updates))

    def update(self, tokens: Tensor, layer: int) -> Tensor:
        """Tokens (B, T, W), prompts last, after `layer`: the same, or with this layer's step added."""
        if layer % self.stride:
            return tokens
        step = layer // self.stride
        # One row of zeros per token that this step leaves alone: a single Add in the graph.
        before = tokens.shape[1] - self.num_prompts + step * self.per_update
        after = tokens.shape[1] - before - self.per_update
        return tokens + F.pad(self.updates[step], (0, 0, before, after))


def build_prompts(config: MMADFERConfig) -> StaticPrompts | None:
    """The prompts of one modality; None for prompts "none"."""
    c = config
    if c.prompts == "none":
        return None
    if c.prompts == "static":
        return StaticPrompts(c.width, c.num_prompts)
    return ProgressivePrompts(c.width, c.num_prompts, c.prompts_per_update, c.depth)
