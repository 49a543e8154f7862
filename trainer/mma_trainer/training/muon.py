"""Muon: steps of equal size in every direction that a weight matrix can take."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import AdamW

MATRIX_LR = 10.0  # times the learning rate of the other parameters
MOMENTUM = 0.95
SMALLEST = 16  # rows and columns of a matrix; what is smaller (the input of a stem, a head) is left to AdamW
ITERATIONS = ((3.4445, -4.7750, 2.0315),) * 5


class Muon(AdamW):
    """Orthogonalised momentum (Jordan et al. 2024) for the weights of linear and convolutional layers, AdamW for the
    rest of the trainable parameters.

    From random weights and with few clips it needs half the steps of AdamW or fewer.
    """

    def __init__(self, model: nn.Module, lr: float, weight_decay: float) -> None:
        matrices = [layer.weight for layer in model.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
        matrices = [weight for weight in matrices if weight.requires_grad and min(weight.flatten(1).shape) >= SMALLEST]
        chosen = {id(weight) for weight in matrices}
        others = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
        groups = [{"params": others}, {"params": matrices, "lr": lr * MATRIX_LR}]
        super().__init__(groups, lr=lr, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure=None):
        matrices = self.param_groups[1]
        for weight in _with_gradient(matrices["params"]):
            state, gradient = self.state[weight], weight.grad
            if not state:
                state |= {"step": torch.zeros(()), "momentum": torch.zeros_like(weight)}
            state["step"] += 1
            state["momentum"].mul_(MOMENTUM).add_(gradient)
            direction = orthogonal(gradient.add(state["momentum"], alpha=MOMENTUM).flatten(1))
            rows, columns = direction.shape
            weight.mul_(1 - matrices["lr"] * matrices["weight_decay"])
            size = matrices["lr"] * max(1.0, rows / columns) ** 0.5
            weight.add_(direction.view_as(weight), alpha=-size)
            weight.grad = None  # done: AdamW passes over it
        return super().step(closure)


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix (M, N) with its singular values brought to about 1 by Newton-Schulz iterations."""
    x = matrix / (matrix.norm() + 1e-7)
    x = x.T if len(matrix) > matrix.shape[1] else x
    for a, b, c in ITERATIONS:
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if len(matrix) > matrix.shape[1] else x


def _with_gradient(parameters: Iterable[Tensor]) -> list[Tensor]:
    return [parameter for parameter in parameters if parameter.grad is not None]
