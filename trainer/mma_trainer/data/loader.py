"""Batches of annotation lists: decoded by worker processes ahead of time, the same for any number of them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from multiprocessing.synchronize import Semaphore

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mma_edge.errors import BackendError, DataError, MMAEdgeError, UsageError, first_line
from mma_trainer.data.batch import WHOLE, Batch, Shard, epoch_generator
from mma_trainer.data.entries import FILES, ClipEntry, ClipFiles, load_clip

PREFETCH = 4  # batches that each worker prepares ahead
Item = tuple[torch.Tensor, torch.Tensor, int, str]
"""frames uint8 (16, S, S, 3), log-mel (512, 128), class, name of the clip."""


class ListDataset(Dataset):
    """Clips as tensors, asked for by (epoch, index): a training item is a function of (seed, epoch, index) alone.

    Epoch None is the test clip, neither sampled nor augmented at random. With `modality_dropout` a training clip loses
    its face or its sound with this probability each, never both: what is lost is zeros, as at run time.
    """

    def __init__(
        self,
        entries: Sequence[ClipEntry],
        image_size: int,
        seed: int,
        files: ClipFiles,
        modality_dropout: float = 0.0,
    ) -> None:
        self.entries, self.image_size, self.seed, self.files = entries, image_size, seed, files
        self.modality_dropout = modality_dropout

    def __getitem__(self, asked: tuple[int | None, int]) -> Item | MMAEdgeError:
        epoch, index = asked
        entry = self.entries[index]
        rng = None if epoch is None else np.random.default_rng((self.seed, epoch, index))
        try:
            frames, mel = load_clip(entry, self.image_size, rng, self.files)
        except MMAEdgeError as error:
            # Raised in a worker, it would reach the user with the worker's traceback for a message.
            return error
        if rng is not None and self.modality_dropout:
            draw = rng.random()
            if draw < self.modality_dropout and entry.wav is not None:  # a silent clip has its face only
                frames = np.zeros_like(frames)
            elif draw > 1 - self.modality_dropout:
                mel = np.zeros_like(mel)
        return torch.from_numpy(frames), torch.from_numpy(mel), entry.label, entry.name


class ListLoader:
    """A DataLoader that outlives the epochs: workers, pinned memory and batches ahead stay in place.

    Because the workers live for the whole run, the epoch travels to them with every index.
    """

    def __init__(self, dataset: ListDataset, workers: int, pin_memory: bool) -> None:
        self._asked: list[list[tuple[int | None, int]]] = []  # the batches of the next pass
        context = _fresh_processes() if workers else None
        self._begun = context.Semaphore(0) if context else None
        self._awaited = workers  # of them are still to be started
        self._loader = DataLoader(
            dataset,
            batch_sampler=self._asked,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            prefetch_factor=PREFETCH if workers else None,
            multiprocessing_context=context,
            worker_init_fn=functools.partial(_start_worker, self._begun),
            # Otherwise the first pass draws from the global generator, and a resumed run differs from a whole one.
            generator=torch.Generator().manual_seed(0),
        )

    def batches(self, epoch: int | None, indices: Sequence[Sequence[int]]) -> Iterator[Batch]:
        """Batches of these entries; DataError of the first bad one, BackendError where a worker was killed."""
        self._asked[:] = [[(epoch, int(index)) for index in batch] for batch in indices]
        try:
            for batch in self._start():
                if isinstance(batch, MMAEdgeError):
                    raise batch
                yield batch
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            hint = "mostly memory is used up: lower --workers or --batch-size; with --workers 0 there is none"
            raise BackendError(f"a loader process was killed ({first_line(error)})", hint=hint) from error

    def _start(self) -> Iterator[Batch | MMAEdgeError]:
        """A pass. The first one starts the workers and waits until they run: an interrupt before that would take away
        what they are about to be given, and they would say so in tracebacks."""
        with _interrupts_later():
            batches = iter(self._loader)
            for worker in batches._workers if self._awaited else ():
                while worker.is_alive() and not self._begun.acquire(timeout=0.5):
                    pass
            self._awaited = 0
        return batches


def collate(items: Sequence[Item | MMAEdgeError]) -> Batch | MMAEdgeError:
    """Items of one batch behind each other, or the error of the first bad one."""
    for item in items:
        if isinstance(item, MMAEdgeError):
            return item
    frames, mels, labels, names = zip(*items, strict=True)
    return Batch((torch.stack(frames), torch.stack(mels)), torch.tensor(labels, dtype=torch.int64), tuple(names))


def _fresh_processes() -> BaseContext:
    """Processes that are no copies of this one: forked, they would have its locks without the threads that hold them.

    A thread that multiplies matrices, decodes or draws a progress bar while a worker is forked stops both for ever.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once, not by every worker
    # Ctrl-C reaches the whole process group, and the training process decides when its workers end. Blocked here, it is
    # blocked in the server and in its workers from their first moment on; the tracker, which would unblock it, must be
    # there before.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


@contextlib.contextmanager
def _interrupts_later() -> Iterator[None]:
    """Ctrl-C within is heard at the end."""
    if threading.current_thread() is not threading.main_thread():  # no other hears it
        yield
        return
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if heard:
            signal.raise_signal(signal.SIGINT)


def _start_worker(begun: Semaphore, _: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be blocked
    begun.release()
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    # DataLoader's own watch looks at the process that forked the worker: the server, which lives as long as a worker.
    multiprocessing.parent_process().join()
    os._exit(1)


class ListTask:
    """The paper's protocol: shuffled batches with the last incomplete one dropped; one test clip per video.

    Args:
        modality_dropout: probability that a training clip loses a modality, never both.
        workers: loader processes for training, and as many for validation; 0: this process loads.
        cache: store of decoded clips (`mma_trainer.data.cache.ClipCache`).
        pin_memory: page-locked batches, for a CUDA device only; None: where there is one.
    """

    def __init__(
        self,
        train: Sequence[ClipEntry],
        val: Sequence[ClipEntry],
        image_size: int,
        batch_size: int,
        seed: int,
        modality_dropout: float,
        workers: int,
        cache: ClipFiles | None = None,
        pin_memory: bool | None = None,
    ) -> None:
        if workers < 0:
            raise UsageError(f"--workers {workers}", "0 or more")
        self.train, self.val, self.batch_size, self.seed = list(train), list(val), batch_size, seed
        self.num_batches = len(self.train) // batch_size
        if self.num_batches == 0:
            what = f"the training list has {len(self.train)} clips"
            raise DataError(what, f"at least a batch of {batch_size}", "lower --batch-size")
        if not self.val:
            raise DataError("the test list has no usable clip", "at least one")
        pin = torch.cuda.is_available() and pin_memory is not False
        self._train_loader, self._val_loader = (
            ListLoader(ListDataset(entries, image_size, seed, cache or FILES, dropout), workers, pin)
            for entries, dropout in ((self.train, modality_dropout), (self.val, 0.0))
        )

    @property
    def fingerprint(self) -> str:
        """Of the training clips, in order: a resumed run that found other ones would not repeat itself."""
        lines = (f"{e.name} {len(e.files)} {e.wav is not None} {e.label}" for e in self.train)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def train_batches(self, epoch: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        size = self.batch_size
        order = torch.randperm(len(self.train), generator=epoch_generator(self.seed, epoch))
        mine = order[: self.num_batches * size].reshape(-1, size)[:, shard.part(size)]
        yield from self._train_loader.batches(epoch, mine.tolist())

    def val_batches(self, shard: Shard = WHOLE) -> Iterator[Batch]:
        mine = list(range(len(self.val)))[shard.rank :: shard.world]
        size = self.batch_size
        yield from self._val_loader.batches(None, [mine[start : start + size] for start in range(0, len(mine), size)])
