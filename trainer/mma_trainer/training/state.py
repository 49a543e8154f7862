"""Where a run is, the file that it goes on from, and the request to stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import nn

from mma_edge.errors import CheckpointError
from mma_trainer.model import MMADFERConfig, differences
from mma_trainer.training.precision import Precision
from mma_trainer.training.recipe import Recipe, WeightAverage, build_optimizer, build_scheduler
from mma_trainer.weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint

LAST, MODEL = "last.pt", "model.pt"
"""What a run goes on from, and the finished model, in its folder."""


def refuse_used(folder: Path, *results: str) -> None:
    """CheckpointError where `folder` holds a run already: its state, or one of the files of a finished one."""
    if any((folder / name).exists() for name in (LAST, *results)):
        raise CheckpointError(
            f"{folder} holds a run already", "an empty folder", "add --resume to go on, or choose another --run"
        )


@dataclass
class Position:
    """Where a run is: the epoch (from 0) and how many of its batches are learnt."""

    epoch: int = 0
    batch: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 3)  # loss times clips, right answers, clips; of the epoch
    lr: float = 0.0  # at the beginning of the epoch
    seconds: float = 0.0  # that the epoch has taken so far
    rows: list[dict] = field(default_factory=list)  # the log of the epochs before

    def next_epoch(self, row: dict) -> None:
        self.epoch, self.batch, self.sums, self.seconds = self.epoch + 1, 0, [0.0] * 3, 0.0
        self.rows.append(row)

    def describe(self) -> str:
        return f"in epoch {self.epoch + 1} after batch {self.batch}" if self.batch else f"after epoch {self.epoch}"


@dataclass
class State:
    """What a run changes while it trains, and the checkpoint that keeps it, whose `training` part is laid out here.

    training: recipe, fingerprint (of the data), position, rows (the log), and the states of optimizer,
    scheduler, ema and scaler.

    `average` is that of the weights; None where the recipe has none.
    """

    path: Path
    model: nn.Module
    config: MMADFERConfig
    recipe: Recipe
    precision: Precision
    num_batches: int
    fingerprint: str

    def __post_init__(self) -> None:
        self.optimizer = build_optimizer(self.model, self.recipe)
        self.scheduler = build_scheduler(self.optimizer, self.recipe, self.num_batches)
        self.average = WeightAverage(self.model, self.recipe.ema_decay) if self.recipe.ema_decay else None
        self._parts = {"optimizer": self.optimizer, "scheduler": self.scheduler, "ema": self.average}
        self._parts["scaler"] = self.precision.scaler

    def averaged(self) -> contextlib.AbstractContextManager:
        """The average in the model's place, where there is one."""
        return self.average.applied() if self.average else contextlib.nullcontext()

    def save(self, at: Position, provenance: dict) -> None:
        position = asdict(at)
        rows = position.pop("rows")
        training = {"recipe": asdict(self.recipe), "fingerprint": self.fingerprint, "position": position, "rows": rows}
        training |= {name: part.state_dict() if part else {} for name, part in self._parts.items()}
        with self.averaged():
            weights = self.precision.state_dict(self.model)
            save_checkpoint(self.path, Checkpoint(self.config, weights, provenance, training))

    def load(self) -> Position:
        """Put the file's state into the model and what trains it.

        Raises:
            CheckpointError: no such file, or it is of another config, recipe or data (what differs, in words).
        """
        saved = read_checkpoint(self.path)
        training = saved.training
        if "recipe" not in training:
            what = f"{self.path} is not the state of a run"
            raise CheckpointError(what, "the last.pt of an unfinished run", "start from it with --init")
        changed = differences(saved.config.to_dict(), self.config.to_dict())
        changed += recipe_differences(training["recipe"], self.recipe)
        before = training.get("fingerprint", "")
        if before and self.fingerprint and before != self.fingerprint:
            changed.append(f"the data has fingerprint {before[:12]} in the file, {self.fingerprint[:12]} here")
        if changed:
            raise CheckpointError(
                f"{self.path} was trained with another config or recipe: {'; '.join(changed)}",
                "the same options as before",
                "repeat the first command with --resume, or start in another --run folder",
            )
        self.model.load_state_dict(saved.state_dict)
        for name, part in self._parts.items():
            if part and training.get(name):
                part.load_state_dict(training[name])
        rows = list(training["rows"])
        return Position(**training.get("position", {"epoch": len(rows)}), rows=rows)


def recipe_differences(file: dict, here: Recipe) -> list[str]:
    """What differs, in words. A field that an older file does not have counts as its default."""
    before, now = {**asdict(Recipe()), **file}, asdict(here)
    plain = ({key.replace("_", " "): value for key, value in values.items()} for values in (before, now))
    return differences(*plain) + [f"{key} is {file[key]} in the file, unknown here" for key in file if key not in now]


class StopRequest:
    """Ctrl-C and SIGTERM ask the loop to stop; it finishes its step, saves, and ends.

    With `insist` a second Ctrl-C stops at once, without saving. Not under torchrun, where each Ctrl-C arrives twice:
    from the terminal and from torchrun.
    """

    def __init__(self, insist: bool) -> None:
        self.signal: int | None = None  # the first that arrived
        self._insist = insist

    @property
    def made(self) -> bool:
        return self.signal is not None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the two signals; only a main thread can, in others nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def leave(self) -> None:
        """End the program with the signal's exit code: 130 for Ctrl-C, 143 for SIGTERM."""
        raise SystemExit(128 + signal.SIGTERM) if self.signal == signal.SIGTERM else KeyboardInterrupt

    def _receive(self, number: int, _frame: object) -> None:
        if self.made and self._insist and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or number
