"""Training hyper-parameters. The defaults are the paper's to the letter."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from mma_edge.errors import UsageError
from mma_trainer.precision import PRECISIONS


@dataclass(frozen=True)
class Recipe:
    """AdamW with a cosine to zero, cross-entropy, the last epoch is the result.

    Attributes:
        epochs, batch_size, lr, weight_decay, seed: as named; the paper's values.
        warmup_epochs: linear warm-up before the cosine (0 in the paper; used to pre-train encoders).
        label_smoothing: of the cross-entropy (0 in the paper).
        clip_grad: largest gradient norm, 0 for no limit (the paper has none).
        precision: of the matrix products, see precision.py; "fp32" in the paper.
        modality_dropout: probability of losing each modality of a training clip, never both (0 in the paper).
        schedule: the learning rate changes after each "epoch" as in the paper, or after each "step".
        ema_decay: the result is an exponential moving average of the weights (0, as in the paper: the weights).
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
    schedule: str = "epoch"
    ema_decay: float = 0.0

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
                (self.schedule not in ("epoch", "step"), f"schedule {self.schedule}"),
                (not 0 <= self.ema_decay < 1, f"EMA decay {self.ema_decay}"),
                (self.precision not in PRECISIONS, f"precision {self.precision}"),
            )
            if bad
        ]
        if wrong:
            raise UsageError(", ".join(wrong) + " is out of range", hint="see mma-train --help")


def build_optimizer(model: nn.Module, recipe: Recipe) -> AdamW:
    """AdamW over what is trainable; frozen parts hold no state."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)


def build_scheduler(optimizer: AdamW, recipe: Recipe, num_batches: int = 1) -> LambdaLR:
    """Linear warm-up, then lr * (1 + cos(pi t)) / 2; stepped once per epoch, or per step where the recipe says so."""
    per_epoch = num_batches if recipe.schedule == "step" else 1
    warmup, total = recipe.warmup_epochs * per_epoch, recipe.epochs * per_epoch

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2

    return LambdaLR(optimizer, factor)
