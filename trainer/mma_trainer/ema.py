"""Exponential moving average of the weights: what is evaluated and kept is smoother than the last step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


class WeightAverage:
    """Averages of the trainable parameters; frozen ones do not move, and buffers are the model's own.

    The decay of step t (from 0) is min(decay, (1 + t) / (10 + t)), so that the random first weights are
    forgotten soon however short the run is.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.step = decay, 0
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.averages = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """After a step of the optimiser."""
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        self.step += 1
        torch._foreach_lerp_(list(self.averages.values()), [p.data for p in self.parameters.values()], 1 - decay)

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
        for name, parameter in self.parameters.items():
            parameter.data.copy_(self.averages[name])

    def _swap(self) -> None:
        for name, parameter in self.parameters.items():
            parameter.data, self.averages[name] = self.averages[name], parameter.data

    def state_dict(self) -> dict:
        """What a checkpoint of the averages lacks: the weights as the optimiser left them, and the step."""
        return {"step": self.step, "raw": {name: p.detach().cpu() for name, p in self.parameters.items()}}

    @torch.no_grad()
    def load_state_dict(self, state: dict) -> None:
        """With a model that holds the averages: put the optimiser's weights back into it."""
        self.step = state["step"]
        for name, parameter in self.parameters.items():
            self.averages[name].copy_(parameter)
            parameter.copy_(state["raw"][name])
