"""The training loop: one for pre-training an encoder and for adapting the whole model."""

from __future__ import annotations

import contextlib
import csv
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from mma_edge.errors import CheckpointError, DataError
from mma_trainer.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from mma_trainer.metrics import Metrics, metrics_of
from mma_trainer.model import MMADFERConfig
from mma_trainer.plots import plot_curves
from mma_trainer.recipe import Recipe, build_optimizer, build_scheduler
from mma_trainer.task import Task

LAST = "last.pt"
FIELDS = ("epoch", "lr", "train_loss", "train_war", "val_loss", "val_uar", "val_war", "seconds", "clips_per_second")


@dataclass
class Run:
    """A training run in a folder: `last.pt` after each epoch, `log.csv` and `curves.png`."""

    model: nn.Module
    config: MMADFERConfig
    recipe: Recipe
    task: Task
    folder: Path
    provenance: dict
    console: Console
    device: torch.device

    def fit(self, resume: bool) -> Metrics:
        """Train to the last epoch, whose metrics are the result (no selection by validation)."""
        if self.task.num_batches < 1:
            raise DataError(
                "the training set is smaller than a batch",
                f"at least {self.recipe.batch_size} clips",
                "lower --batch-size",
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self.model.to(self.device)
        optimizer = build_optimizer(self.model, self.recipe)
        scheduler = build_scheduler(optimizer, self.recipe)
        rows: list[dict] = []
        if resume:
            rows = self._resume(optimizer, scheduler)
        elif (self.folder / LAST).exists():
            raise CheckpointError(
                f"{self.folder} holds a run already",
                "an empty folder",
                "add --resume to go on, or choose another --run",
            )
        metrics = None
        for epoch in range(len(rows), self.recipe.epochs):
            row, metrics = self._epoch(epoch, optimizer)
            scheduler.step()
            rows.append(row)
            self._save(optimizer, scheduler, rows)
            self._report(row)
        return metrics or self.validate()

    def _epoch(self, epoch: int, optimizer: torch.optim.Optimizer) -> tuple[dict, Metrics]:
        # Stochastic depth and dropout draw from the global generator.
        torch.manual_seed(self.recipe.seed * 100_003 + epoch)
        self.model.train()
        start, losses, correct, seen = time.monotonic(), 0.0, 0, 0
        with self._progress() as progress:
            bar = progress.add_task(f"epoch {epoch + 1}/{self.recipe.epochs}", total=self.task.num_batches, loss="")
            for inputs, labels, _ in self.task.train_batches(epoch):
                inputs = [tensor.to(self.device, non_blocking=True) for tensor in inputs]
                labels = labels.to(self.device, non_blocking=True)
                with self._autocast():
                    logits = self.model(*inputs)
                loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.recipe.label_smoothing)
                if not torch.isfinite(loss):
                    raise DataError(
                        f"the loss became {loss.item()} in epoch {epoch + 1}, batch {seen // len(labels) + 1}",
                        hint="lower --lr, or try --precision fp32; the last whole epoch is kept",
                    )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                if self.recipe.clip_grad:
                    torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_grad)
                optimizer.step()
                losses += loss.item() * len(labels)
                correct += int((logits.argmax(dim=1) == labels).sum())
                seen += len(labels)
                progress.update(bar, advance=1, loss=f"loss {losses / seen:.3f}")
        seconds = time.monotonic() - start
        metrics = self.validate()
        row = {
            "epoch": epoch + 1,
            "lr": optimizer.param_groups[0]["lr"],
            "train_loss": losses / max(seen, 1),
            "train_war": correct / max(seen, 1),
            "val_loss": metrics.loss,
            "val_uar": metrics.uar,
            "val_war": metrics.war,
            "seconds": seconds,
            "clips_per_second": seen / seconds,
        }
        return row, metrics

    def validate(self) -> Metrics:
        """Metrics on the validation batches, in eval mode."""
        self.model.eval()
        logits, labels = [], []
        with torch.inference_mode(), self._autocast():
            for inputs, batch_labels, _ in self.task.val_batches():
                logits.append(self.model(*(tensor.to(self.device) for tensor in inputs)).float().cpu().numpy())
                labels.append(batch_labels.numpy())
        return metrics_of(np.concatenate(labels), np.concatenate(logits))

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self.recipe.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def _resume(self, optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler) -> list[dict]:
        saved = read_checkpoint(self.folder / LAST)
        if saved.config != self.config or saved.training.get("recipe") != asdict(self.recipe):
            raise CheckpointError(
                f"{self.folder / LAST} was trained with another config or recipe",
                "the same options as before",
                "repeat the first command with --resume, or start in another --run folder",
            )
        self.model.load_state_dict(saved.state_dict)
        optimizer.load_state_dict(saved.training["optimizer"])
        scheduler.load_state_dict(saved.training["scheduler"])
        self.console.print(f"resumed {self.folder} after epoch {len(saved.training['rows'])}")
        return list(saved.training["rows"])

    def _save(
        self, optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler, rows: list[dict]
    ) -> None:
        training = {
            "recipe": asdict(self.recipe),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "rows": rows,
        }
        state = self.model.state_dict()
        save_checkpoint(self.folder / LAST, Checkpoint(self.config, state, self.provenance, training))
        with (self.folder / "log.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(rows)
        plot_curves(rows, self.folder / "curves.png")

    def _progress(self) -> Progress:
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )

    def _report(self, row: dict) -> None:
        self.console.print(
            f"epoch {row['epoch']}/{self.recipe.epochs}  lr {row['lr']:.2e}  train loss {row['train_loss']:.3f} "
            f"WAR {row['train_war']:.3f}  val loss {row['val_loss']:.3f} UAR {row['val_uar']:.4f} "
            f"WAR {row['val_war']:.4f}  {row['clips_per_second']:.1f} clips/s"
        )
