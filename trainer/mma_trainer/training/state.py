"""Where a run is, the file that it goes on from, and the request to stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mma_edge.errors import CheckpointError
from mma_trainer.model import MMADFERConfig, describe_difference
from mma_trainer.training.recipe import Recipe
from mma_trainer.weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint

LAST = "last.pt"


@dataclass
class Position:
    """Of a run: the epoch (from 0), how many of its batches are learnt, and what they summed up to.

    Attributes:
        sums: loss times clips, right answers, clips; of the epoch so far.
        lr: the epoch's first. seconds: that it has taken so far.
        rows: the log of the epochs before.
    """

    epoch: int = 0
    batch: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    lr: float = 0.0
    seconds: float = 0.0
    rows: list[dict] = field(default_factory=list)

    def next_epoch(self, row: dict) -> None:
        self.epoch, self.batch, self.sums, self.seconds = self.epoch + 1, 0, [0.0, 0.0, 0.0], 0.0
        self.rows.append(row)

    def describe(self) -> str:
        if self.batch:
            return f"in epoch {self.epoch + 1} after batch {self.batch}"
        return f"after epoch {self.epoch}"


class State:
    """The checkpoint of a run, whose `training` part is laid out here.

    training: recipe, fingerprint (of the data), position, rows (the log), and the states of optimizer,
    scheduler, ema and scaler.
    """

    def __init__(self, path: Path, config: MMADFERConfig, recipe: Recipe, fingerprint: str) -> None:
        self.path, self.config, self.recipe, self.fingerprint = path, config, recipe, fingerprint

    def save(self, at: Position, weights: dict[str, Tensor], parts: dict[str, dict], provenance: dict) -> None:
        position = asdict(at)
        rows = position.pop("rows")
        training = {"recipe": asdict(self.recipe), "fingerprint": self.fingerprint, "position": position, "rows": rows}
        training.update(parts)
        save_checkpoint(self.path, Checkpoint(self.config, weights, provenance, training))

    def load(self, model: nn.Module, parts: dict[str, Any]) -> Position:
        """Put the file's state into model and parts.

        Raises:
            CheckpointError: no such file, or it is of another config, recipe or data; what differs is said.
        """
        saved = read_checkpoint(self.path)
        training = saved.training
        self._compare(saved)
        model.load_state_dict(saved.state_dict)
        for name, part in parts.items():
            if part and training.get(name):
                part.load_state_dict(training[name])
        rows = list(training["rows"])
        return Position(**training.get("position", {"epoch": len(rows)}), rows=rows)

    def _compare(self, saved: Checkpoint) -> None:
        if "recipe" not in saved.training:
            raise CheckpointError(
                f"{self.path} is no state of a run", "the last.pt of an unfinished run", "start from it with --init"
            )
        differences = [describe_difference(saved.config, self.config)] if saved.config != self.config else []
        differences += recipe_differences(saved.training["recipe"], self.recipe)
        before = saved.training.get("fingerprint", "")
        if before and self.fingerprint and before != self.fingerprint:
            differences.append(f"the data has fingerprint {before[:12]} in the file, {self.fingerprint[:12]} here")
        if differences:
            raise CheckpointError(
                f"{self.path} was trained with another config or recipe: {'; '.join(differences)}",
                "the same options as before",
                "repeat the first command with --resume, or start in another --run folder",
            )


def recipe_differences(file: dict, here: Recipe) -> list[str]:
    """What differs, in words. A field that an older file lacks had its default then."""
    defaults = {f.name: f.default for f in fields(Recipe)}
    now = asdict(here)
    before = {**defaults, **file}
    words = [
        f"{name.replace('_', ' ')} is {before[name]} in the file, {now[name]} here"
        for name in now
        if before[name] != now[name]
    ]
    return words + [f"{name} is {file[name]} in the file, unknown here" for name in file if name not in now]


class StopRequest:
    """Ctrl-C and SIGTERM ask the loop to stop; it finishes its step, saves, and leaves.

    Set by the first SIGINT or SIGTERM. Alone, a second Ctrl-C stops at once, without saving.

    Under torchrun a Ctrl-C arrives twice, from the terminal and from torchrun, so only the first counts.
    """

    def __init__(self, insist: bool) -> None:
        self.signal: int | None = None
        self._insist = insist

    @property
    def made(self) -> bool:
        return self.signal is not None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the two signals over; only a main thread can, others leave them as they are."""
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
        """End the program as the signal asked: 130 for Ctrl-C, 143 for SIGTERM."""
        if self.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    def _receive(self, number: int, _frame: object) -> None:
        if self.made and self._insist and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = self.signal or number
