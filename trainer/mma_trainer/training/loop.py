"""The training loop: one for pre-training an encoder and for adapting the whole model."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from mma_edge.errors import DataError, UsageError
from mma_trainer.data.batch import Batch, Task
from mma_trainer.evaluation.metrics import Metrics, metrics_of
from mma_trainer.model import MMADFERConfig
from mma_trainer.model.encoder import part_of_batch
from mma_trainer.report.figures import plot_curves
from mma_trainer.training.execution import Execution, checkpointed, deterministic
from mma_trainer.training.log import RunLog, write_csv
from mma_trainer.training.precision import MIN_SCALE, Precision
from mma_trainer.training.processes import Processes, has_batch_statistics
from mma_trainer.training.recipe import Recipe, hardest, training_loss
from mma_trainer.training.state import LAST, Position, State, StopRequest, refuse_used

MAX_NAMED = 8


@dataclass
class Run:
    """A training run in a folder: `last.pt`, `log.csv` and `curves.png`."""

    model: nn.Module  # on any device; float32. After `fit` it holds the result
    config: MMADFERConfig
    recipe: Recipe
    task: Task
    folder: Path
    provenance: dict
    console: Console
    device: torch.device
    execution: Execution = field(default_factory=Execution)

    def fit(self, resume: bool) -> Metrics:
        """Train to the last epoch, whose metrics are the result (no selection by validation).

        Under torchrun this is one of the processes that share the run.

        Raises:
            DataError: too few clips, or a loss that is not a number, with the clips that made it.
            CheckpointError: the folder holds another run, or none to resume.
            KeyboardInterrupt, SystemExit: stopped by a signal, after the step was saved.
        """
        processes = Processes.from_environment()
        precision = Precision(self.recipe.precision, self.device)
        batch = processes.shard.part(self.recipe.batch_size)
        if self.task.num_batches < 1:
            clips = f"at least {self.recipe.batch_size} clips"
            raise DataError("the training set is smaller than a batch", clips, "lower --batch-size")
        if 0 < self.execution.micro_batch < batch.stop - batch.start and has_batch_statistics(self.model):
            raise UsageError(
                f"--micro-batch {self.execution.micro_batch} with batch normalisation in training",
                "whole batches: its statistics are of what is computed at once",
                "leave --micro-batch out",
            )
        if not resume:
            refuse_used(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.model.to(self.device)
        stop, console = StopRequest(insist=processes.world == 1), processes.console(self.console)
        with (
            processes.joined(self.device),
            stop.listening(),
            deterministic(self.execution.deterministic),
            checkpointed(self.model, self.execution.activation_checkpointing),
        ):
            fingerprint, num_batches = getattr(self.task, "fingerprint", ""), self.task.num_batches
            state = State(self.folder / LAST, self.model, self.config, self.recipe, precision, num_batches, fingerprint)
            at = state.load() if resume else Position()
            if resume:
                console.print(f"resumed {self.folder} {at.describe()}")
            # Every process that computes starts from the same weights and the same file.
            processes.gather(at.epoch)
            events = self.folder / "events" if self.execution.tensorboard and processes.is_writer else None
            with precision.applied(self.model), RunLog(self.recipe.epochs, num_batches, at, console, events) as log:
                return Loop(self, processes, precision, state, stop, log).train(at)


@dataclass
class Loop:
    """What exists only while a run trains; made once its files are read and its precision is applied."""

    run: Run
    processes: Processes
    precision: Precision
    state: State
    stop: StopRequest
    log: RunLog

    def __post_init__(self) -> None:
        if self.processes.world > 1 and self.run.device.type == "cpu" and has_batch_statistics(self.run.model):
            self.log.console.print("note: batch statistics are of each process's share of a batch")
        self.recipe = self.run.recipe
        self.parallel = self.processes.wrap(self.run.model, self.run.device)
        self.saved_at_s = time.monotonic()

    def train(self, at: Position) -> Metrics:
        """From `at` to the end of the run; `at` moves along."""
        metrics = None
        while at.epoch < self.recipe.epochs:
            metrics = self._epoch(at)
        metrics = metrics or self.validate()
        if self.state.average:
            self.state.average.adopt()
        return metrics

    def _epoch(self, at: Position) -> Metrics:
        """From `at` to the end of its epoch, and validation; `at` moves along."""
        if at.batch == 0:
            at.lr = self.state.optimizer.param_groups[0]["lr"]
        self.run.model.train()
        start_s, task = time.monotonic(), self.run.task
        batches: Iterable[Batch] = ()
        if at.batch < task.num_batches:  # else it was stopped while it was validated
            # Everything random of a batch depends on its number: those already learnt from are passed over.
            batches = itertools.islice(task.train_batches(at.epoch, self.processes.shard), at.batch, None)
        # Sums of this process alone; those from before a resumption count once.
        sums = at.sums if self.processes.is_writer else [0.0] * len(at.sums)
        for batch in batches:
            loss, correct = self._step(at, batch)
            clips = len(batch.labels)
            sums = [sums[0] + loss * clips, sums[1] + correct, sums[2] + clips]
            at.batch += 1
            self.log.step(at, sums[0] / sums[2], loss)
            period_s = 60 * self.run.execution.save_every_minutes or math.inf
            stop, due = self.processes.any([self.stop.made, time.monotonic() - self.saved_at_s >= period_s])
            if stop or (due and at.batch < task.num_batches):
                now_s = at.seconds + time.monotonic() - start_s
                self._save(replace(at, sums=self.processes.sum(sums), seconds=now_s))
            if stop:
                self._leave(at)
        losses, correct, seen = sums = self.processes.sum(sums)
        seconds = at.seconds + time.monotonic() - start_s
        metrics = self.validate()
        if self.stop.made and self.processes.world == 1:  # in the middle of the validation
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
            self.state.scheduler.step()
        at.next_epoch(row)
        self._save(at)
        if self.processes.is_writer:
            write_csv(at.rows, self.run.folder)
            plot_curves(at.rows, self.run.folder / "curves.png")
        self.log.epoch(row, time.monotonic() - start_s)
        if self.processes.any([self.stop.made])[0]:
            self._leave(at)
        return metrics

    def _step(self, at: Position, batch: Batch) -> tuple[float, int]:
        """One step of the optimiser; mean loss and number of right answers of this process's clips."""
        device, rank, world, clips = self.run.device, self.processes.rank, self.processes.world, len(batch.labels)
        *inputs, labels = (tensor.to(device, non_blocking=True) for tensor in (*batch.inputs, batch.labels))
        # Randomness of a batch is a function of its number, whichever process computes which part of it.
        seed = (self.recipe.seed * 100_003 + at.epoch) * 1_000_003 + at.batch
        loss, correct = torch.zeros((), device=device), torch.zeros((), device=device)
        self.state.optimizer.zero_grad(set_to_none=True)
        size = self.run.execution.micro_batch or clips
        for start in range(0, clips, size):
            end = min(start + size, clips)
            # Gradients are averaged over the processes once, on the way back of the last part.
            is_local = world > 1 and end < clips
            with (
                self.parallel.no_sync() if is_local else contextlib.nullcontext(),
                part_of_batch(rank * clips + start, end - start, clips * world, seed),
            ):
                with self.precision.autocast():
                    outputs = self.parallel(*(tensor[start:end] for tensor in inputs))
                part_loss, logits = training_loss(outputs, labels[start:end], self.recipe.label_smoothing)
                part_loss = part_loss * (len(logits) / clips)
                self.precision.scaler.scale(part_loss).backward()
            loss += part_loss.detach()
            correct += (logits.detach().argmax(dim=1) == hardest(labels[start:end])).sum()
        self._update(at, batch, loss)
        return loss.item(), int(correct)

    def _update(self, at: Position, batch: Batch, loss: Tensor) -> None:
        scaler, optimizer = self.precision.scaler, self.state.optimizer
        scaler.unscale_(optimizer)
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(trained, self.recipe.clip_grad or torch.inf)
        self._check_finite(at, batch, loss, norm)
        scaler.step(optimizer)
        scaler.update()
        if self.state.average:
            self.state.average.update()
        if self.recipe.schedule == "step":
            self.state.scheduler.step()

    def _check_finite(self, at: Position, batch: Batch, loss: Tensor, norm: Tensor) -> None:
        """DataError, with the clips to blame, where a step of any process would put a NaN into the weights."""
        finite_loss, finite_norm = torch.stack([loss.isfinite(), norm.isfinite()]).tolist()
        # Above that scale it is an overflow of float16: this step is left out and the scale lowered.
        finite_norm = finite_norm or self.precision.scaler.get_scale() > MIN_SCALE
        bad_loss, bad_norm = self.processes.any([not finite_loss, not finite_norm])
        if not (bad_loss or bad_norm):
            return
        value, what = (loss.item(), "loss") if bad_loss else (norm.item(), "gradient")
        gathered = self.processes.gather((value, blame(self.run.model, batch, self.run.device, self.precision)))
        value = next((value for value, _ in gathered if not math.isfinite(value)), value)
        names = ", ".join(name for _, part in gathered for name in part)
        who = f": {names}" if names else "; each of its clips alone is finite"
        where = f"the {what} became {value} in epoch {at.epoch + 1}, batch {at.batch + 1}"
        kept = "the last state saved is kept" if self.state.path.exists() else "nothing was saved yet"
        raise DataError(f"{where}{who}", hint=f"look at these clips, lower --lr, or try --precision fp32 ({kept})")

    def validate(self) -> Metrics:
        """Metrics on the validation batches of all processes, in eval mode, of the average where there is one."""
        model = self.run.model.eval()
        logits, labels = [], []
        with self.state.averaged(), torch.inference_mode(), self.precision.autocast():
            for inputs, batch_labels, _ in self.run.task.val_batches(self.processes.shard):
                logits.append(model(*(tensor.to(self.run.device) for tensor in inputs)).float().cpu().numpy())
                labels.append(batch_labels.numpy())
                if self.stop.made and self.processes.world == 1:
                    break
        gathered = self.processes.gather((labels, logits))
        return metrics_of(*(np.concatenate([array for parts in gathered for array in parts[key]]) for key in (0, 1)))

    def _save(self, at: Position) -> None:
        self.saved_at_s = time.monotonic()
        if self.processes.is_writer:
            self.state.save(at, self.run.provenance)

    def _leave(self, at: Position) -> None:
        self.log.console.print(f"stopped {at.describe()}; {self.state.path} holds it: repeat the command with --resume")
        self.stop.leave()


def blame(model: nn.Module, batch: Batch, device: torch.device, precision: Precision) -> list[str]:
    """Names of the clips that are not finite, each with what of it is not; each is computed alone."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()  # batch statistics would mix the clips
    found = []
    try:
        for index in range(len(batch.labels)):
            *inputs, label = (tensor[index : index + 1] for tensor in (*batch.inputs, batch.labels))
            if fault := _fault(model, inputs, label, device, precision):
                name = batch.names[index] if batch.names else f"clip {index + 1} of the batch"
                found.append(f"{name} ({fault})")
    finally:
        model.train()
    more = [f"and {len(found) - MAX_NAMED} more"] if len(found) > MAX_NAMED else []
    return found[:MAX_NAMED] + more


def _fault(model: nn.Module, inputs: list[Tensor], label: Tensor, device: torch.device, precision: Precision) -> str:
    if not all(tensor.isfinite().all() for tensor in inputs):
        return "its input has NaN or infinity"
    with precision.autocast():
        outputs = model(*(tensor.to(device) for tensor in inputs))
    loss, _ = training_loss(outputs, label.to(device), 0.0)
    if not loss.isfinite():
        return f"its loss is {loss.item()}"
    trainable = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, trainable, allow_unused=True)
    finite = all(gradient.isfinite().all() for gradient in gradients if gradient is not None)
    return "" if finite else "its gradient is not finite"
