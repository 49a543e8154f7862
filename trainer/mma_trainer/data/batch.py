"""What a training loop needs from data: labelled batches, and this process's share of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Generator, Tensor

from mma_edge.errors import UsageError


class Batch(NamedTuple):
    """Inputs of the model, labels, and where the clips come from (empty when they have no names).

    Labels are classes, int64 (B,); in training also targets, float32 (B, C): see `recipe.soft_cross_entropy`.
    """

    inputs: tuple[Tensor, ...]
    labels: Tensor
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shard:
    """This process's share of the work: process `rank` of `world`."""

    rank: int = 0
    world: int = 1

    def part(self, batch_size: int) -> slice:
        """This process's clips of a training batch; UsageError when they cannot be shared equally."""
        size, rest = divmod(batch_size, self.world)
        if rest:
            what = f"a batch of {batch_size} clips cannot be shared by {self.world} processes"
            raise UsageError(what, "a multiple", f"try --batch-size {max(1, size) * self.world}")
        return slice(self.rank * size, (self.rank + 1) * size)

    def slices(self, count: int, size: int) -> list[slice]:
        """This process's batches of at most `size` of `count` validation clips."""
        return [slice(start, min(start + size, count)) for start in range(0, count, size)[self.rank :: self.world]]


WHOLE = Shard()  # a single process


def epoch_generator(seed: int, epoch: int) -> Generator:
    """Randomness of one epoch, a function of (seed, epoch) alone."""
    return Generator().manual_seed(seed * 1_000_003 + epoch)


def share(batch: Batch, shard: Shard) -> Batch:
    """A shard's clips of a whole training batch."""
    part = shard.part(len(batch.labels))
    return Batch(tuple(tensor[part] for tensor in batch.inputs), batch.labels[part], batch.names[part])


class Task(Protocol):
    """Where batches come from.

    Everything random is a function of (seed, epoch, position in the epoch) alone, so that a resumed
    run repeats it and that a global batch is the same clips however many processes share it:
    of each training batch, shard r of w is given clips [r * B / w, (r + 1) * B / w).

    A task may have a `fingerprint`, a text of its training clips: a run is not resumed on other ones.
    """

    num_batches: int
    """Global training batches of an epoch, the same in every process."""

    def train_batches(self, epoch: int, shard: Shard = WHOLE) -> Iterator[Batch]: ...

    def val_batches(self, shard: Shard = WHOLE) -> Iterator[Batch]:
        """The validation clips of this shard; all shards together have every clip exactly once."""
        ...
