"""What is minimised."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def training_loss(
    outputs: Tensor | tuple[Tensor, ...], labels: Tensor, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy, and the logits (B, C) in float32.

    A model may answer with several heads while it trains; all are taught, the first is the answer.
    """
    heads = [head.float() for head in (outputs if isinstance(outputs, tuple) else (outputs,))]
    losses = [F.cross_entropy(head, labels, label_smoothing=label_smoothing) for head in heads]
    return sum(losses[1:], losses[0]), heads[0]
