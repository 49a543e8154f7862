"""How a run uses the machine: nothing in here changes what is learnt, only speed, memory and records."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mma_edge.errors import UsageError
from mma_trainer.model import MMADFER
from mma_trainer.model.encoder import Block


@dataclass(frozen=True)
class Execution:
    """Options of a run beside its recipe.

    Attributes:
        micro_batch: clips per forward pass; gradients are summed up to the whole batch. 0: all at once.
        activation_checkpointing: compute the inside of each layer twice instead of keeping it.
        deterministic: refuse operations whose result depends on chance.
        save_every_minutes: last.pt is written this often within an epoch, too; 0: only after epochs.
        tensorboard: write event files beside log.csv.
    """

    micro_batch: int = 0
    activation_checkpointing: bool = False
    deterministic: bool = False
    save_every_minutes: float = 10.0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if self.micro_batch < 0:
            raise UsageError(f"--micro-batch {self.micro_batch}", "1 or more clips, 0 for the whole batch")
        if not self.save_every_minutes >= 0:
            raise UsageError(f"--save-every {self.save_every_minutes}", "minutes, 0 for never within an epoch")


@contextlib.contextmanager
def checkpointed(model: nn.Module, enabled: bool) -> Iterator[None]:
    """Activation checkpointing of MMA-DFER's layers, or of a lone encoder's blocks."""
    wholes = [module for module in model.modules() if isinstance(module, MMADFER)] if enabled else []
    blocks = [module for module in model.modules() if isinstance(module, Block)] if enabled and not wholes else []
    for whole in wholes:
        whole.recompute_layers = True
    for block in blocks:
        block.forward = _recomputing(block)
    try:
        yield
    finally:
        for whole in wholes:
            whole.recompute_layers = False
        for block in blocks:
            del block.forward


def _recomputing(block: Block) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        if not (block.training and torch.is_grad_enabled()):
            return Block.forward(block, x)
        return checkpoint(Block.forward, block, x, use_reentrant=False)

    return forward


@contextlib.contextmanager
def deterministic(enabled: bool) -> Iterator[None]:
    """Deterministic algorithms or an error from those operations that have none."""
    if not enabled:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS refuses
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
