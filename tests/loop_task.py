"""Clips of random tensors for the tests of the training loop, and a run over them small enough for seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from conftest import TINY, make_model
from rich.console import Console

from mma_trainer.data.batch import WHOLE, Batch, Shard, share
from mma_trainer.model.inputs import ContractModel
from mma_trainer.training.execution import Execution
from mma_trainer.training.loop import Run
from mma_trainer.training.recipe import Recipe

BATCH = 4
VAL_CLIPS = 7
DEEP = TINY.replace(drop_path=0.4)  # stochastic depth that one cannot overlook


class RandomClips:
    """Training batches that depend on the epoch, and seven clips to validate on.

    Args:
        poison: (epoch, batch, clip) whose sound is not a number.
        before: called with (epoch, batch) before each batch is handed out.
    """

    def __init__(
        self,
        num_batches: int = 4,
        poison: tuple[int, int, int] | None = None,
        before: Callable[[int, int], None] = lambda epoch, batch: None,
    ) -> None:
        self.num_batches, self.poison, self.before = num_batches, poison, before

    def train_batches(self, epoch: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(epoch)
        for batch in range(self.num_batches):
            whole = random_batch(BATCH, generator)
            if self.poison and self.poison[:2] == (epoch, batch):
                whole.inputs[1][self.poison[2], 3, 5] = math.nan
            self.before(epoch, batch)
            yield share(whole, shard)

    def val_batches(self, shard: Shard = WHOLE) -> Iterator[Batch]:
        frames, mel = random_batch(VAL_CLIPS, torch.Generator().manual_seed(99)).inputs
        labels = torch.arange(VAL_CLIPS) % 3
        for start in range(0, VAL_CLIPS, 2)[shard.rank :: shard.world]:
            yield Batch((frames[start : start + 2], mel[start : start + 2]), labels[start : start + 2])


def random_batch(size: int, generator: torch.Generator) -> Batch:
    frames = torch.randint(0, 256, (size, 16, 16, 16, 3), dtype=torch.uint8, generator=generator)
    mel = torch.randn(size, 512, 128, generator=generator) - 5
    labels = torch.randint(0, 3, (size,), generator=generator)
    return Batch((frames, mel), labels, tuple(f"clip-{index}" for index in range(size)))


def make_run(
    folder: Path,
    recipe: Recipe | None = None,
    task: RandomClips | None = None,
    execution: Execution | None = None,
    console: Console | None = None,
) -> Run:
    recipe = recipe or Recipe(epochs=2, batch_size=BATCH, lr=0.01)
    return Run(
        ContractModel(make_model(DEEP)),
        DEEP,
        recipe,
        task or RandomClips(),
        folder,
        {},
        console or Console(quiet=True),
        torch.device("cpu"),
        execution or Execution(),
    )
