"""The clips of a prepared folder as tuning needs them: each once, with its person and the folds that test it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mma_edge.errors import DataError
from mma_trainer.data import check
from mma_trainer.data.entries import ClipEntry
from mma_trainer.data.lists import scan_list
from mma_trainer.data.protocols import describe, prepared_list

SPLITS = ("train", "test")


@dataclass(frozen=True)
class TuningClips:
    """Usable clips in the order of their names."""

    labels: tuple[str, ...]
    entries: tuple[ClipEntry, ...]
    people: tuple[str | None, ...]  # of each clip
    folds: tuple[tuple[list[int], list[int]], ...]  # places of the training and of the test clips

    @property
    def who(self) -> str:
        """What clips that were left out stand for, a key of `report.tuning.WHO`."""
        known = set(self.people)
        if None in known:
            return "unknown"
        return "strangers" if len(known) > 1 else "one person"

    @property
    def counts(self) -> dict:
        """What the model is tuned on, for its provenance."""
        per_class = np.bincount([entry.label for entry in self.entries], minlength=len(self.labels))
        return {
            "clips": len(self.entries),
            "silent clips": sum(entry.wav is None for entry in self.entries),
            "people": len(set(self.people) - {None}) or "unknown",
            "clips per class": dict(zip(self.labels, per_class.tolist(), strict=True)),
        }


def read_clips(prepared: Path, notify: Callable[[str], None]) -> TuningClips:
    """Read what mma-train prepare wrote; clips that cannot be used are said and left out.

    Raises:
        DataError: fewer than two classes have clips, or no fold has clips on both sides.
    """
    description = describe(prepared)
    labels, people = description["labels"], description["people"]
    found: dict[str, ClipEntry] = {}
    problems: dict[tuple[str, str], check.Problem] = {}
    names: list[list[list[str]]] = []
    for fold in range(1, description["folds"] + 1):
        sides = []
        for path in (prepared_list(prepared, fold, split) for split in SPLITS):
            # The only video of a person may have failed: an empty list is no mistake of the user's.
            entries, bad = scan_list(path, prepared, None, labels) if path.stat().st_size else ([], [])
            found |= {entry.name: entry for entry in entries}
            problems |= {(problem.kind, problem.clip): problem for problem in bad}
            sides.append([entry.name for entry in entries])
        names.append(sides)
    check.settle(list(problems.values()), skip_bad=True, notify=notify)
    place = {name: index for index, name in enumerate(sorted(found))}
    entries = tuple(found[name] for name in place)
    if len({entry.label for entry in entries}) < 2:
        raise DataError(f"usable clips of one class in {prepared}", "at least two classes", "add videos of another")
    folds = tuple(tuple([place[name] for name in side] for side in sides) for sides in names if all(sides))
    if not folds:
        raise DataError(f"{len(entries)} usable clips in {prepared}", "enough to leave some out", "add videos")
    return TuningClips(labels, entries, tuple(people.get(name) for name in place), folds)
