"""The training loop: one for pre-training an encoder and for adapting the whole model."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from mma_edge.errors import CheckpointError, DataError, UsageError
from mma_trainer.data.batch import Batch, Task
from mma_trainer.evaluation.metrics import Metrics, metrics_of
from mma_trainer.model import MMADFERConfig
from mma_trainer.model.encoder import part_of_batch
from mma_trainer.report.figures import plot_curves
from mma_trainer.training.execution import Execution, checkpointed, deterministic
from mma_trainer.training.log import FIELDS, RunLog, write_csv
from mma_trainer.training.precision import MIN_SCALE, Precision
from mma_trainer.training.processes import Processes, has_batch_statistics
from mma_trainer.training.recipe import Recipe, WeightAverage, build_optimizer, build_scheduler, training_loss
from mma_trainer.training.state import LAST, Position, State, StopRequest

__all__ = ["FIELDS", "LAST", "Run"]

MAX_NAMED = 8


@dataclass
class Run:
    """A training run in a folder: `last.pt`, `log.csv` and `curves.png`.

    Attributes:
        model: on any device; float32. After `fit` it holds the result.
        recipe, execution: what is learnt how, and how this machine does it.
        processes: those that share the run; None: as torchrun's environment says.
    """

    model: nn.Module
    config: MMADFERConfig
    recipe: Recipe
    task: Task
    folder: Path
    provenance: dict
    console: Console
    device: torch.device
    execution: Execution = field(default_factory=Execution)
    processes: Processes | None = None

    def fit(self, resume: bool) -> Metrics:
        """Train to the last epoch, whose metrics are the result (no selection by validation).

        Raises:
            DataError: too few clips, or a loss that is no number, with the clips that made it.
            CheckpointError: the folder holds another run, or none to resume.
            KeyboardInterrupt, SystemExit: stopped by a signal, after the step was saved.
        """
        self.processes = self.processes or Processes.from_environment()
        self.console = self.processes.console(self.console)
        self._precision = Precision(self.recipe.precision, self.device)
        self._check(resume)
        self.model.to(self.device)
        self._stop = StopRequest(insist=self.processes.world == 1)
        with (
            self.processes.joined(self.device),
            self._stop.listening(),
            deterministic(self.execution.deterministic),
            checkpointed(self.model, self.execution.activation_checkpointing),
        ):
            return self._fit(resume)

    def _check(self, resume: bool) -> None:
        part = self.processes.shard.part(self.recipe.batch_size)
        if self.task.num_batches < 1:
            raise DataError(
                "the training set is smaller than a batch",
                f"at least {self.recipe.batch_size} clips",
                "lower --batch-size",
            )
        if 0 < self.execution.micro_batch < part.stop - part.start and has_batch_statistics(self.model):
            raise UsageError(
                f"--micro-batch {self.execution.micro_batch} with batch normalisation in training",
                "whole batches: its statistics are of what is computed at once",
                "leave --micro-batch away",
            )
        if not resume and (self.folder / LAST).exists():
            raise CheckpointError(
                f"{self.folder} holds a run already",
                "an empty folder",
                "add --resume to go on, or choose another --run",
            )
        self.folder.mkdir(parents=True, exist_ok=True)

    def _fit(self, resume: bool) -> Metrics:
        self._optimizer = build_optimizer(self.model, self.recipe)
        self._scheduler = build_scheduler(self._optimizer, self.recipe, self.task.num_batches)
        self._average = WeightAverage(self.model, self.recipe.ema_decay) if self.recipe.ema_decay else None
        self._trainable = [p for p in self.model.parameters() if p.requires_grad]
        self._state = State(self.folder / LAST, self.config, self.recipe, getattr(self.task, "fingerprint", ""))
        self._parts = {
            "optimizer": self._optimizer,
            "scheduler": self._scheduler,
            "ema": self._average,
            "scaler": self._precision.scaler,
        }
        at = Position()
        if resume:
            at = self._state.load(self.model, self._parts)
            self.console.print(f"resumed {self.folder} {at.describe()}")
        # Whoever computes starts from the same weights and the same file.
        self.processes.gather(at.epoch)
        metrics = None
        with self._precision.applied(self.model), RunLog(self, at) as self._log:
            if self.processes.world > 1 and self.device.type == "cpu" and has_batch_statistics(self.model):
                self.console.print("note: batch statistics are of each process's share of a batch")
            self._parallel = self.processes.wrap(self.model, self.device)
            self._saved_at = time.monotonic()
            while at.epoch < self.recipe.epochs:
                metrics = self._epoch(at)
            metrics = metrics or self._validate_average()
        if self._average:
            self._average.adopt()
        return metrics

    def _epoch(self, at: Position) -> Metrics:
        """From `at` to the end of its epoch, and validation; `at` moves along."""
        if at.batch == 0:
            at.lr = self._optimizer.param_groups[0]["lr"]
        self.model.train()
        start = time.monotonic()
        # Everything random of a batch depends on its number: those already learnt from are passed over.
        batches = itertools.islice(self._train_batches(at), at.batch, None)
        # Sums of this process alone; those from before a resumption count once.
        sums = at.sums if self.processes.is_writer else [0.0] * len(at.sums)
        for batch in batches:
            loss, correct = self._step(at, batch)
            clips = len(batch.labels)
            sums = [sums[0] + loss * clips, sums[1] + correct, sums[2] + clips]
            at.batch += 1
            self._log.step(at, sums[0] / sums[2], loss)
            stop, due = self.processes.any([self._stop.made, self._save_is_due()])
            if stop or (due and at.batch < self.task.num_batches):
                now = at.seconds + time.monotonic() - start
                self._save(replace(at, sums=self.processes.sum(sums), seconds=now))
            if stop:
                self._leave(at)
        losses, correct, seen = sums = self.processes.sum(sums)
        seconds = at.seconds + time.monotonic() - start
        metrics = self._validate_average()
        if self._stop.made and self.processes.world == 1:  # in the middle of the validation
            self._save(replace(at, sums=sums, seconds=seconds))
            self._leave(at)
        row = {
            "epoch": at.epoch + 1,
            "lr": at.lr,
            "train_loss": losses / max(seen, 1),
            "train_war": correct / max(seen, 1),
            "val_loss": metrics.loss,
            "val_uar": metrics.uar,
            "val_war": metrics.war,
            "seconds": seconds,
            "clips_per_second": seen / seconds,
        }
        if self.recipe.schedule == "epoch":
            self._scheduler.step()
        at.next_epoch(row)
        self._save(at)
        if self.processes.is_writer:
            write_csv(at.rows, self.folder)
            plot_curves(at.rows, self.folder / "curves.png")
        self._log.epoch(row, time.monotonic() - start)
        self._report(row)
        if self.processes.any([self._stop.made])[0]:
            self._leave(at)
        return metrics

    def _train_batches(self, at: Position) -> Iterable[Batch]:
        if at.batch == self.task.num_batches:  # stopped while it was validated
            return ()
        return self.task.train_batches(at.epoch, self.processes.shard)

    def _step(self, at: Position, batch: Batch) -> tuple[float, int]:
        """One step of the optimiser; the share's mean loss and number of right answers."""
        inputs = [tensor.to(self.device, non_blocking=True) for tensor in batch.inputs]
        labels = batch.labels.to(self.device, non_blocking=True)
        self._optimizer.zero_grad(set_to_none=True)
        loss, correct = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        for part, is_last in self._parts_of(len(labels)):
            last = contextlib.nullcontext() if is_last or self.processes.world == 1 else self._parallel.no_sync()
            with last, self._part(at, part, len(labels)):
                with self._precision.autocast():
                    outputs = self._parallel(*(tensor[part] for tensor in inputs))
                part_loss, logits = training_loss(outputs, labels[part], self.recipe.label_smoothing)
                part_loss = part_loss * (len(logits) / len(labels))
                scaled = self._precision.scaler.scale(part_loss) if self._precision.scaler else part_loss
                scaled.backward()
            loss += part_loss.detach()
            correct += (logits.detach().argmax(dim=1) == labels[part]).sum()
        self._update(at, batch, loss)
        return loss.item(), int(correct)

    def _update(self, at: Position, batch: Batch, loss: Tensor) -> None:
        scaler = self._precision.scaler
        if scaler:
            scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self._trainable, self.recipe.clip_grad or torch.inf)
        finite_loss, finite_norm = torch.stack([loss.isfinite(), norm.isfinite()]).tolist()
        if scaler and scaler.get_scale() > MIN_SCALE:
            finite_norm = True  # an overflow of float16: this step is left out and the scale lowered
        bad_loss, bad_norm = self.processes.any([not finite_loss, not finite_norm])
        if bad_loss or bad_norm:
            self._give_up(at, batch, loss.item() if bad_loss else norm.item(), "loss" if bad_loss else "gradient")
        if scaler:
            scaler.step(self._optimizer)
            scaler.update()
        else:
            self._optimizer.step()
        if self._average:
            self._average.update()
        if self.recipe.schedule == "step":
            self._scheduler.step()

    def _parts_of(self, clips: int) -> Iterator[tuple[slice, bool]]:
        """The passes that a share of the batch is computed in, and whether each is the last."""
        size = self.execution.micro_batch or clips
        for start in range(0, clips, size):
            yield slice(start, min(start + size, clips)), start + size >= clips

    def _part(self, at: Position, part: slice, share: int) -> contextlib.AbstractContextManager:
        """Randomness of a batch is a function of its number, whoever computes which part of it."""
        seed = (self.recipe.seed * 100_003 + at.epoch) * 1_000_003 + at.batch
        start = self.processes.rank * share + part.start
        return part_of_batch(start, part.stop - part.start, share * self.processes.world, seed)

    def validate(self) -> Metrics:
        """Metrics on the validation batches of all processes, in eval mode."""
        self.model.eval()
        logits, labels = [], []
        with torch.inference_mode(), self._precision.autocast():
            for inputs, batch_labels, _ in self.task.val_batches(self.processes.shard):
                logits.append(self.model(*(tensor.to(self.device) for tensor in inputs)).float().cpu().numpy())
                labels.append(batch_labels.numpy())
                if self._stop.made and self.processes.world == 1:
                    break
        gathered = self.processes.gather((labels, logits))
        labels, logits = ([array for parts in gathered for array in parts[key]] for key in (0, 1))
        return metrics_of(np.concatenate(labels), np.concatenate(logits))

    def _validate_average(self) -> Metrics:
        with self._average.applied() if self._average else contextlib.nullcontext():
            return self.validate()

    def _save_is_due(self) -> bool:
        minutes = self.execution.save_every_minutes
        return bool(minutes) and time.monotonic() - self._saved_at >= 60 * minutes

    def _save(self, at: Position) -> None:
        self._saved_at = time.monotonic()
        if not self.processes.is_writer:
            return
        states = {name: part.state_dict() if part else {} for name, part in self._parts.items()}
        with self._average.applied() if self._average else contextlib.nullcontext():
            self._state.save(at, self._precision.state_dict(self.model), states, self.provenance)

    def _leave(self, at: Position) -> None:
        self.console.print(f"stopped {at.describe()}; {self.folder / LAST} holds it: repeat the command with --resume")
        self._stop.leave()

    def _give_up(self, at: Position, batch: Batch, value: float, what: str) -> None:
        found = (value, blame(self.model, batch, self.device, self._precision))
        gathered = self.processes.gather(found)
        value = next((value for value, _ in gathered if not math.isfinite(value)), value)
        names = [name for _, part in gathered for name in part]
        who = f": {', '.join(names)}" if names else "; each of its clips alone is finite"
        where = f"the {what} became {value} in epoch {at.epoch + 1}, batch {at.batch + 1}"
        kept = "the last state saved is kept" if (self.folder / LAST).exists() else "nothing was saved yet"
        raise DataError(f"{where}{who}", hint=f"look at these clips, lower --lr, or try --precision fp32 ({kept})")

    def _report(self, row: dict) -> None:
        self.console.print(
            f"epoch {row['epoch']}/{self.recipe.epochs}  lr {row['lr']:.2e}  train loss {row['train_loss']:.3f} "
            f"WAR {row['train_war']:.3f}  val loss {row['val_loss']:.3f} UAR {row['val_uar']:.4f} "
            f"WAR {row['val_war']:.4f}  {row['clips_per_second']:.1f} clips/s{self._log.left()}"
        )


def blame(model: nn.Module, batch: Batch, device: torch.device, precision: Precision) -> list[str]:
    """Names of the clips that are not finite, each with what of it is not; each is computed alone."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()  # batch statistics would mix the clips
    try:
        found = []
        for index in range(len(batch.labels)):
            inputs = tuple(tensor[index : index + 1] for tensor in batch.inputs)
            if fault := _fault(model, inputs, batch.labels[index : index + 1], device, precision):
                name = batch.names[index] if batch.names else f"clip {index + 1} of the batch"
                found.append(f"{name} ({fault})")
    finally:
        model.train()
    more = [f"and {len(found) - MAX_NAMED} more"] if len(found) > MAX_NAMED else []
    return found[:MAX_NAMED] + more


def _fault(
    model: nn.Module, inputs: tuple[Tensor, ...], labels: Tensor, device: torch.device, precision: Precision
) -> str:
    if not all(tensor.isfinite().all() for tensor in inputs):
        return "its input has NaN or infinity"
    with precision.autocast():
        outputs = model(*(tensor.to(device) for tensor in inputs))
    loss, _ = training_loss(outputs, labels.to(device), label_smoothing=0.0)
    if not loss.isfinite():
        return f"its loss is {loss.item()}"
    trainable = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, trainable, allow_unused=True)
    finite = all(gradient.isfinite().all() for gradient in gradients if gradient is not None)
    return "" if finite else "its gradient is not finite"
