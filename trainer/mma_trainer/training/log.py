"""What a run tells about itself while it runs: progress bars, log.csv, TensorBoard."""

from __future__ import annotations

import csv
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mma_edge.errors import DependencyError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from mma_trainer.training.loop import Run
    from mma_trainer.training.state import Position

FIELDS = ("epoch", "lr", "train_loss", "train_war", "val_loss", "val_uar", "val_war", "seconds", "clips_per_second")
SPEED_PERIOD_S = 600.0
"""Bars estimate the time left from so many seconds: a step of a large model may take half a minute."""


def write_csv(rows: list[dict], folder: Path) -> None:
    with (folder / "log.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)


class RunLog:
    """Bars for the run and for its epoch; event files where they are wanted. Only the writer's says anything.

    Raises:
        DependencyError: TensorBoard is asked for and not installed.
    """

    def __init__(self, run: Run, at: Position) -> None:
        self._epochs, self._batches = run.recipe.epochs, run.task.num_batches
        wanted = run.execution.tensorboard and run.processes.is_writer
        self._events = _open_events(run.folder, at, self._batches) if wanted else None
        self._wall_s: list[float] = []
        self._left_epochs = self._epochs - at.epoch
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=run.console,
            transient=True,
            speed_estimate_period=SPEED_PERIOD_S,
        )
        done = at.epoch * self._batches + at.batch
        self._whole = self._progress.add_task("run", total=self._epochs * self._batches, completed=done, loss="")
        self._part = self._progress.add_task("epoch", total=self._batches, completed=at.batch, loss="")

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
        self._left_epochs = self._epochs - row["epoch"]
        if self._events:
            for name in FIELDS[1:]:
                self._events.add_scalar(f"epoch/{name}", row[name], row["epoch"])
            self._events.flush()

    def left(self) -> str:
        """Time to the end of the run, validation included; nothing to say after the last epoch."""
        if not self._left_epochs or not self._wall_s:
            return ""
        seconds = self._left_epochs * sum(self._wall_s) / len(self._wall_s)
        return f"  {timedelta(seconds=round(seconds))} left"


def _open_events(folder: Path, at: Position, batches: int) -> SummaryWriter:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise DependencyError(
            "--tensorboard needs TensorBoard, which is not installed", hint="pip install tensorboard"
        ) from error
    done = at.epoch * batches + at.batch
    # What a stopped run wrote after its last save happens again.
    return SummaryWriter(str(folder / "events"), purge_step=done + 1 if done else None)
