"""Several processes that share one run: which one this is, what they tell each other, and which one writes.

Start them with torchrun, which sets RANK, WORLD_SIZE and LOCAL_RANK:

    torchrun --nproc-per-node 2 -m -- mma_trainer --batch-size 8 ...

followed by mma-train's options; without the "--", torchrun takes some of them for its own. The batch size is that of
all processes together.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from rich.console import Console
from torch import nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from mma_edge.errors import BackendError, UsageError
from mma_trainer.data.batch import Shard
from mma_trainer.model import MMADFER
from mma_trainer.training.pretrain import EncoderClassifier

TIMEOUT = timedelta(minutes=15)
"""How long a process waits for the others: longer than a checkpoint takes to write, not forever."""
RELEASE_S = 10.0
"""How long to wait for gloo's thread to release a tensor; see `_reduced`."""

_runs = itertools.count()
"""Of this process; in every process the same."""
LOST_PEER = ("connection closed", "connection reset", "gloo", "nccl", "timed out", "broken pipe")
"""How a RuntimeError says that another process went away."""


@dataclass(frozen=True)
class Processes:
    """This process among those that share a run; the only one unless torchrun started it."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> Processes:
        """As torchrun set it; UsageError where it is not numbers."""
        values = [os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
        if None in values[:2]:
            return cls()
        try:
            return cls(*(int(value or 0) for value in values))
        except ValueError as error:
            raise UsageError(f"RANK, WORLD_SIZE, LOCAL_RANK are {values}", "numbers", "start with torchrun") from error

    @property
    def is_writer(self) -> bool:
        """Only one process writes files and prints."""
        return self.rank == 0

    @property
    def shard(self) -> Shard:
        return Shard(self.rank, self.world)

    def console(self, console: Console) -> Console:
        return console if self.is_writer else Console(quiet=True)

    @contextlib.contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """Connected with the other processes: NCCL between CUDA devices, gloo between CPUs.

        Raises:
            BackendError: the others cannot be found, or one of them went away.
        """
        if self.world == 1:
            yield
            return
        try:
            if not dist.is_initialized():
                # Flags and metrics are small and on the host: they go by gloo on any device.
                backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
                # torchrun's store outlives a group. Of several runs in a row each needs keys of its own: with those of
                # the run before, a process that comes first looks for the others where they no longer are, for ever.
                store, rank, world = next(rendezvous("env://", self.rank, self.world, timeout=TIMEOUT))
                store = dist.PrefixStore(f"run_{next(_runs)}", store)
                dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=TIMEOUT)
            if device.type == "cuda":
                torch.cuda.set_device(device)
            yield
            self.any([False])  # no process leaves while another still needs it
        except (dist.DistError, RuntimeError) as error:
            text = str(error).lower()
            if not isinstance(error, dist.DistError) and not any(words in text for words in LOST_PEER):
                raise
            raise BackendError(
                f"process {self.rank} of {self.world} lost the others ({str(error).splitlines()[0][:100]})",
                hint="look for the first error above; start again with --resume",
            ) from error
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model whose backward pass averages the gradients of all processes."""
        if self.world == 1:
            return model
        mixes_clips = has_batch_statistics(model)
        if mixes_clips and device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        with warnings.catch_warnings():
            # torch 2.13 has another name for broadcast_buffers, which older ones do not know.
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(
                model,
                device_ids=[device.index] if device.type == "cuda" else None,
                broadcast_buffers=mixes_clips,
                # The official layout carries norms that no forward pass uses, an encoder may leave its blocks out.
                find_unused_parameters=any(isinstance(m, MMADFER | EncoderClassifier) for m in model.modules()),
                gradient_as_bucket_view=True,
            )

    def any(self, flags: list[bool]) -> list[bool]:
        """For each flag: whether it is set in any process."""
        return [bool(value) for value in self._reduced(flags, torch.int32, dist.ReduceOp.MAX)]

    def sum(self, values: list[float]) -> list[float]:
        return self._reduced(values, torch.float64, dist.ReduceOp.SUM)

    def gather(self, value: object) -> list:
        """Every process's value, in the order of their ranks, in every process."""
        if self.world == 1:
            return [value]
        gathered: list = [None] * self.world
        dist.all_gather_object(gathered, value)
        return gathered

    def _reduced(self, values: list, dtype: torch.dtype, how: dist.ReduceOp.RedOpType) -> list:
        """Over all processes; returns once gloo's thread has released the tensor.

        That thread releases it a moment after the collective is done, and needs the interpreter for it. It outlives the
        group (DistributedDataParallel holds it): if the interpreter is ending by then, it aborts the process, as seen
        on busy machines where a run ended right after a collective.
        """
        if self.world == 1:
            return values
        tensor = torch.tensor(values, dtype=dtype)
        before = tensor._use_count()
        dist.all_reduce(tensor, how)
        end = time.monotonic() + RELEASE_S
        while tensor._use_count() > before and time.monotonic() < end:
            time.sleep(0.001)
        return tensor.tolist()


def has_batch_statistics(model: nn.Module) -> bool:
    """Whether training changes batch statistics: those of a part of a batch are not those of the whole."""
    model.train()
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training for module in model.modules())
