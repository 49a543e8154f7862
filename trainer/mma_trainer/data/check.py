"""What is wrong with a data set, clip by clip: all of it collected and said once, before any training starts."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mma_edge.errors import DataError
from mma_trainer.data.entries import ClipEntry

MAX_SHOWN = 50  # problems that are printed; the file has them all

# Kinds of problems, as the counts name them.
BAD_LINE = "unreadable line"
BAD_LABEL = "label out of range"
MISSING_FRAMES = "missing frames"
BAD_FRAME = "unreadable frame"
EMPTY_SOUND = "zero-length wav"
BAD_SOUND = "unreadable wav"
LISTED_TWICE = "clip listed twice"
ONE_NAME = "two clips with one name"
IN_BOTH_LISTS = "clip in both lists"
ABSENT_CLASS = "class without clips"


@dataclass(frozen=True)
class Problem:
    """One thing wrong: one of the kinds above, and what was found and expected."""

    kind: str
    where: str  # list and line, "set_1_train.txt line 3"
    clip: str  # its name; empty when the problem is not that of a single clip
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


def say_on_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def counts(kinds: Iterable[str]) -> str:
    """ "3 missing frames, 1 zero-length wav": most frequent kind first."""
    return ", ".join(f"{count} {kind}" for kind, count in Counter(kinds).most_common())


def settle(
    problems: Sequence[Problem],
    skip_bad: bool,
    folder: Path | None = None,
    notify: Callable[[str], None] = say_on_stderr,
) -> None:
    """Say every problem on a line of its own, then go on without the bad clips or stop.

    Args:
        problems: everything found; nothing is said when it is empty.
        skip_bad: go on (the caller has left the bad clips out); otherwise a DataError has the counts in one line.
        folder: where `bad_clips.csv` with all of them is written; None for no file.
    """
    if not problems:
        return
    for problem in problems[:MAX_SHOWN]:
        notify(f"bad: {problem}")
    if len(problems) > MAX_SHOWN:
        notify(f"bad: and {len(problems) - MAX_SHOWN} more")
    written = f", all in {_write(problems, folder)}" if folder is not None else ""
    kinds = counts(problem.kind for problem in problems)
    summary = f"{len(problems)} problem{'s' * (len(problems) > 1)} in the data: {kinds}{written}"
    if not skip_bad:
        raise DataError(summary, hint="repair them, or go on without these clips: --skip-bad")
    notify(f"going on (--skip-bad) with {summary}")


def _write(problems: Sequence[Problem], folder: Path) -> Path:
    path = folder / "bad_clips.csv"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("kind", "where", "clip", "problem"))
            writer.writerows((p.kind, p.where, p.clip, p.text) for p in problems)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error})", "a writable run folder", "choose another one") from error
    return path


def without_doubles(entries: Sequence[ClipEntry]) -> tuple[list[ClipEntry], list[Problem]]:
    """One clip per name: of equal lines the first stays; of a name that stands for two things no clip stays."""
    first: dict[str, ClipEntry] = {}
    problems, dropped = [], set()
    for entry in entries:
        other = first.setdefault(entry.name, entry)
        if other is entry:
            continue
        if entry.folder != other.folder:
            kind, text = ONE_NAME, f"{entry.folder} and {other.folder} ({other.where}) have one name"
        elif entry.label != other.label:
            text = f"clip {entry.name} as class {entry.label}, and as {other.label} in {other.where}"
            kind = LISTED_TWICE
        else:
            kind, text = LISTED_TWICE, f"clip {entry.name} is listed in {other.where} already"
        problems.append(Problem(kind, entry.where, entry.name, text))
        if (entry.folder, entry.label) != (other.folder, other.label):
            dropped.add(entry.name)
    return [entry for name, entry in first.items() if name not in dropped], problems


def without_tested(train: Sequence[ClipEntry], val: Sequence[ClipEntry]) -> tuple[list[ClipEntry], list[Problem]]:
    """Training clips that are not test clips as well, and a problem for each of the others."""
    tested = {entry.name: entry for entry in val}
    shared = [entry for entry in train if entry.name in tested]
    text = "clip {} is in {} too: what was trained on proves nothing when tested"
    problems = [
        Problem(IN_BOTH_LISTS, entry.where, entry.name, text.format(entry.name, tested[entry.name].where))
        for entry in shared
    ]
    return [entry for entry in train if entry.name not in tested], problems


def absent_classes(entries: Sequence[ClipEntry], labels: Sequence[str], where: str) -> list[Problem]:
    """A problem for each class that no usable clip of a list has."""
    present = {entry.label for entry in entries}
    return [
        Problem(ABSENT_CLASS, where, "", f"no usable clip of class {index} ({label})")
        for index, label in enumerate(labels)
        if index not in present
    ]
