"""Training hyper-parameters. The defaults are the paper's to the letter."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from mma_edge.errors import UsageError


@dataclass(frozen=True)
class Recipe:
    """AdamW with a cosine to zero stepped per epoch, cross-entropy, the last epoch is the result.

    Attributes:
        epochs, batch_size, lr, weight_decay, seed: as named; the paper's values.
        warmup_epochs: linear warm-up before the cosine (0 in the paper; used to pre-train encoders).
        label_smoothing: of the cross-entropy (0 in the paper).
        clip_grad: largest gradient norm, 0 for no limit (the paper has none).
        precision: "fp32" as the paper, or "bf16" autocast of the matrix products.
        modality_dropout: probability of losing each modality of a training clip, never both (0 in the paper).
    """

    epochs: int = 25
    batch_size: int = 8
    lr: float = 1e-4
    weight_decay: float = 1e-2
    seed: int = 1
    warmup_epochs: int = 0
    label_smoothing: float = 0.0
    clip_grad: float = 0.0
    precision: str = "fp32"
    modality_dropout: float = 0.0

    def __post_init__(self) -> None:
        wrong = [
            text
            for bad, text in (
                (self.epochs < 1, f"epochs {self.epochs}"),
                (self.batch_size < 1, f"batch size {self.batch_size}"),
                (not self.lr > 0, f"lr {self.lr}"),
                (self.weight_decay < 0, f"weight decay {self.weight_decay}"),
                (not 0 <= self.warmup_epochs < self.epochs, f"warm-up of {self.warmup_epochs} epochs"),
                (not 0 <= self.label_smoothing < 1, f"label smoothing {self.label_smoothing}"),
                (not 0 <= self.modality_dropout <= 0.5, f"modality dropout {self.modality_dropout}"),
                (self.precision not in ("fp32", "bf16"), f"precision {self.precision}"),
            )
            if bad
        ]
        if wrong:
            raise UsageError(", ".join(wrong) + " is out of range", hint="see mma-train --help")


def build_optimizer(model: nn.Module, recipe: Recipe) -> AdamW:
    """AdamW over what is trainable; frozen parts hold no state."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)


def build_scheduler(optimizer: AdamW, recipe: Recipe) -> LambdaLR:
    """Linear warm-up, then lr * (1 + cos(pi t)) / 2, stepped once per epoch."""

    def factor(epoch: int) -> float:
        if epoch < recipe.warmup_epochs:
            return (epoch + 1) / (recipe.warmup_epochs + 1)
        progress = (epoch - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
        return (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, factor)
