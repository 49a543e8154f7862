"""What a run reports while it runs: progress bars, a line per epoch, log.csv, TensorBoard."""

from __future__ import annotations

import csv
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import TextColumn, TimeRemainingColumn

from mma_edge.commands.support import progress
from mma_edge.errors import DependencyError
from mma_edge.files import replaced
from mma_trainer.training.state import Position

FIELDS = ("epoch", "lr", "train_loss", "train_war", "val_loss", "val_uar", "val_war", "seconds", "clips_per_second")
SPEED_PERIOD_S = 600.0
"""The bars estimate the time left from this many seconds: a step of a large model may take half a minute."""


def write_csv(rows: list[dict], folder: Path) -> None:
    with replaced(folder / "log.csv") as aside, aside.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)


class RunLog:
    """Bars for the whole run from `at` on and for its epoch; TensorBoard's event files in the folder `events`, if any.

    The console is quiet in every process but the writer. DependencyError: TensorBoard is not installed.
    """

    def __init__(self, epochs: int, batches: int, at: Position, console: Console, events: Path | None) -> None:
        self._epochs, self._batches, self.console = epochs, batches, console
        done = at.epoch * batches + at.batch
        self._events = None
        if events:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                what = "--tensorboard needs TensorBoard, which is not installed"
                raise DependencyError(what, hint="pip install tensorboard") from error
            # The steps that a stopped run wrote after its last save are run again.
            self._events = SummaryWriter(str(events), purge_step=done + 1 if done else None)
        self._wall_s: list[float] = []
        self._progress = progress(console, TextColumn("{task.fields[loss]}"), TimeRemainingColumn())
        self._progress.speed_estimate_period = SPEED_PERIOD_S
        self._whole = self._progress.add_task("run", total=epochs * batches, completed=done, loss="")
        self._part = self._progress.add_task("epoch", total=batches, completed=at.batch, loss="")

    def __enter__(self) -> RunLog:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        if self._events:
            self._events.close()

    def step(self, at: Position, mean_loss: float, loss: float) -> None:
        """After a batch; `mean_loss` is the epoch's so far."""
        done = at.epoch * self._batches + at.batch
        self._progress.update(self._whole, completed=done)
        text = f"epoch {at.epoch + 1}/{self._epochs}"
        self._progress.update(self._part, description=text, completed=at.batch, loss=f"loss {mean_loss:.3f}")
        if self._events:
            self._events.add_scalar("step/loss", loss, done)

    def epoch(self, row: dict, wall_s: float) -> None:
        """After an epoch with its validation, which took `wall_s` in this process."""
        self._wall_s.append(wall_s)
        if self._events:
            for name in FIELDS[1:]:
                self._events.add_scalar(f"epoch/{name}", row[name], row["epoch"])
            self._events.flush()
        # Time to the end of the run, validation included.
        left_s = (self._epochs - row["epoch"]) * sum(self._wall_s) / len(self._wall_s)
        left = f"  {timedelta(seconds=round(left_s))} left" if row["epoch"] < self._epochs else ""
        self.console.print(
            f"epoch {row['epoch']}/{self._epochs}  lr {row['lr']:.2e}  train loss {row['train_loss']:.3f} "
            f"WAR {row['train_war']:.3f}  val loss {row['val_loss']:.3f} UAR {row['val_uar']:.4f} "
            f"WAR {row['val_war']:.4f}  {row['clips_per_second']:.1f} clips/s{left}"
        )
