"""How a run uses the machine. Nothing here changes what is learnt, only speed, memory and what is recorded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from mma_edge.errors import UsageError
from mma_trainer.model import MMADFER
from mma_trainer.model.encoder import Encoder


@dataclass(frozen=True)
class Execution:
    """Options of a run besides its recipe."""

    micro_batch: int = 0  # clips per forward pass; gradients are summed up to the whole batch. 0: all at once
    activation_checkpointing: bool = False  # compute the inside of each layer twice instead of keeping it in memory
    deterministic: bool = False  # refuse operations whose result is not repeatable
    save_every_minutes: float = 10.0  # how often last.pt is written within an epoch; 0: only after epochs
    tensorboard: bool = False  # write event files beside log.csv

    def __post_init__(self) -> None:
        if self.micro_batch < 0:
            raise UsageError(f"--micro-batch {self.micro_batch}", "1 or more clips, 0 for the whole batch")
        if not self.save_every_minutes >= 0:
            raise UsageError(f"--save-every {self.save_every_minutes}", "minutes, 0 for never within an epoch")


@contextlib.contextmanager
def checkpointed(model: nn.Module, enabled: bool) -> Iterator[None]:
    """Activation checkpointing of MMA-DFER's layers, or of the blocks of an encoder that is trained alone."""
    wholes = [module for module in model.modules() if isinstance(module, (MMADFER, Encoder))]
    for whole in wholes:
        whole.recompute_layers = enabled
    try:
        yield
    finally:
        for whole in wholes:
            whole.recompute_layers = False


@contextlib.contextmanager
def deterministic(enabled: bool) -> Iterator[None]:
    """Deterministic algorithms; an operation that has none raises an error."""
    if not enabled:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS raises an error
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
