"""What is learnt, and how: hyper-parameters (the defaults are the paper's to the letter), loss, optimiser, schedule,
and the average of the weights.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from mma_edge.errors import UsageError
from mma_trainer.training.muon import Muon
from mma_trainer.training.precision import PRECISIONS

OPTIMIZERS = ("adamw", "muon")
TAUGHT_SHARE = 0.75  # of a first head's loss that compares it with a second one
UNKNOWN_LOGIT = -1e4
"""Of a class that a clip's corpus does not have: no probability, and finite."""


@dataclass(frozen=True)
class Recipe:
    """A cosine to zero, cross-entropy, the last epoch is the result. The defaults are the paper's."""

    epochs: int = 25
    batch_size: int = 8
    lr: float = 1e-4
    weight_decay: float = 1e-2
    seed: int = 1
    warmup_epochs: int = 0  # linear warm-up before the cosine; used to pre-train encoders
    label_smoothing: float = 0.0  # of the cross-entropy
    clip_grad: float = 0.0  # largest gradient norm; 0: no limit
    precision: str = "fp32"  # of the matrix products, see precision.py
    modality_dropout: float = 0.0  # probability of losing each modality of a training clip, never both
    schedule: str = "epoch"  # the learning rate changes after each "epoch", or after each "step"
    ema_decay: float = 0.0  # the result is an exponential moving average of the weights; 0: the weights
    optimizer: str = "adamw"  # or "muon", see muon.py

    def __post_init__(self) -> None:
        rules = (
            (self.epochs >= 1, f"epochs {self.epochs}"),
            (self.batch_size >= 1, f"batch size {self.batch_size}"),
            (self.lr > 0, f"lr {self.lr}"),
            (not self.weight_decay < 0, f"weight decay {self.weight_decay}"),
            (0 <= self.warmup_epochs < self.epochs, f"warm-up of {self.warmup_epochs} epochs"),
            (0 <= self.label_smoothing < 1, f"label smoothing {self.label_smoothing}"),
            (0 <= self.modality_dropout <= 0.5, f"modality dropout {self.modality_dropout}"),
            (self.schedule in ("epoch", "step"), f"schedule {self.schedule}"),
            (0 <= self.ema_decay < 1, f"EMA decay {self.ema_decay}"),
            (self.optimizer in OPTIMIZERS, f"optimizer {self.optimizer}"),
            (self.precision in PRECISIONS, f"precision {self.precision}"),
        )
        if wrong := [text for holds, text in rules if not holds]:
            raise UsageError(", ".join(wrong) + " is out of range", hint="see mma-train --help")


def build_optimizer(model: nn.Module, recipe: Recipe) -> AdamW:
    """AdamW, or Muon, over the trainable parameters; frozen ones take no memory in it."""
    if recipe.optimizer == "muon":
        return Muon(model, recipe.lr, recipe.weight_decay)
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


def training_loss(outputs: Tensor | tuple[Tensor, ...], labels: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy, and the logits (B, C) in float32.

    A model may have a second head while it trains: the losses are added, the logits are those of the first, which then
    learns less from the labels than from the second one's answers. `labels` are classes, int64 (B,), or targets, float
    (B, C): see `soft_cross_entropy`.
    """
    heads = [head.float() for head in (outputs if isinstance(outputs, tuple) else (outputs,))]
    if labels.is_floating_point():
        losses = [soft_cross_entropy(head, labels, smoothing) for head in heads]
    else:
        losses = [F.cross_entropy(head, labels, label_smoothing=smoothing) for head in heads]
    for other in heads[1:]:
        losses[0] = torch.lerp(losses[0], soft_cross_entropy(heads[0], other.detach().softmax(dim=1)), TAUGHT_SHARE)
    return sum(losses[1:], losses[0]), heads[0]


def soft_cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean over clips of -sum(target * log probability), logits and targets (B, C).

    A row of targets sums to the weight of its clip. Where it is negative the class is unknown to the clip's corpus: the
    probabilities are those among the other classes, so that the corpus does not tell the label.
    """
    known = targets >= 0
    log_probabilities = logits.masked_fill(~known, UNKNOWN_LOGIT).log_softmax(dim=1)
    wanted = targets.clamp(min=0)
    spread = known * (wanted.sum(dim=1, keepdim=True) / known.sum(dim=1, keepdim=True))
    return -(torch.lerp(wanted, spread, smoothing) * log_probabilities).sum(dim=1).mean()


def hardest(labels: Tensor) -> Tensor:
    """Classes int64 (B,) of labels that are classes or targets."""
    return labels.argmax(dim=1) if labels.is_floating_point() else labels


class WeightAverage:
    """Exponential moving average of the weights: smoother than the last step, so it is what is evaluated and kept.

    Frozen parameters are not averaged, they do not change. The statistics of batch norms are: those of the last few
    batches under the last weights do not fit the average, and cost a stem five points. The decay of step t (from 0) is
    min(decay, (1 + t) / (10 + t)), so that even a short run soon forgets the random first weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.step = decay, 0
        self.tensors = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.tensors |= {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
        self.averages = {name: tensor.detach().clone() for name, tensor in self.tensors.items()}

    @torch.no_grad()
    def update(self) -> None:
        """After a step of the optimiser."""
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        self.step += 1
        torch._foreach_lerp_(list(self.averages.values()), [tensor.data for tensor in self.tensors.values()], 1 - decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The averages in the model's place, and the model's own weights back afterwards."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def adopt(self) -> None:
        """Make the averages the model's weights, for good."""
        for name, tensor in self.tensors.items():
            tensor.data.copy_(self.averages[name])

    def _swap(self) -> None:
        for name, tensor in self.tensors.items():
            tensor.data, self.averages[name] = self.averages[name], tensor.data

    def state_dict(self) -> dict:
        """What a checkpoint of the averages does not hold: the weights as the optimiser left them, and the step."""
        return {"step": self.step, "raw": {name: tensor.detach().cpu() for name, tensor in self.tensors.items()}}

    @torch.no_grad()
    def load_state_dict(self, state: dict) -> None:
        """The model holds the averages: take them from it, and put the optimiser's weights back."""
        self.step = state["step"]
        for name, tensor in self.tensors.items():
            self.averages[name].copy_(tensor)
            tensor.copy_(state["raw"].get(name, tensor))  # earlier versions averaged no statistics
