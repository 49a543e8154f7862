"""Raw videos in the layouts that people have: one folder per class, a CSV, or the lists of DFEW and MAFW."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from mma_edge.errors import DataError, UsageError
from mma_edge.sources.file import videos_in
from mma_trainer.data.lists import BadClipError, last_part, parse_line, read_lines
from mma_trainer.data.protocols import Protocol, find_list
from mma_trainer.labels import in_our_order

TRAIN, TEST = "train", "test"
TEST_NAMES = {"test", "val", "valid", "validation"}


@dataclass(frozen=True)
class Video:
    """One raw video, its class, who is in it and its folds."""

    name: str  # of the clip that is made of it, unique and usable as a folder's name
    path: Path | None  # None when it was not found
    label: int
    tests: tuple[int, ...] = ()  # numbers of the folds that it is a test clip of
    trains: tuple[int, ...] | None = None  # of those that it is a training clip of; None: all but `tests`
    person: str | None = None  # None: not known

    def split(self, fold: int) -> str | None:
        """ "train", "test" or None: in neither list of this fold."""
        if fold in self.tests:
            return TEST
        return TRAIN if self.trains is None or fold in self.trains else None


@dataclass(frozen=True)
class Layout:
    """Everything there is to prepare: videos, class names in order, number of folds (0: not divided yet)."""

    videos: tuple[Video, ...]
    labels: tuple[str, ...]
    folds: int
    complaints: tuple[tuple[str, str], ...] = ()  # (name or path, what is wrong with it)

    @property
    def absent(self) -> list[str]:
        """Names of the classes without a video."""
        present = {video.label for video in self.videos}
        return [name for label, name in enumerate(self.labels) if label not in present]


def clip_name(relative: str) -> str:
    """A flat name of a video: its path without suffix, whatever is awkward in a file name replaced."""
    return re.sub(r"[^\w.-]+", "_", "__".join(Path(relative).with_suffix("").parts)).strip("._") or "clip"


def class_folders(root: Path, labels: Sequence[str] | None) -> Layout:
    """`root/<class>/**/*.mp4`; the classes are the folders' names in `in_our_order`, or `labels` in their order.

    A folder within that of a class is a person: `root/<class>/<person>/**/*.mp4`. A label may have no folder.
    """
    try:
        folders = sorted(item.name for item in root.iterdir() if item.is_dir() and not item.name.startswith("."))
    except OSError as error:
        raise DataError(f"{root} cannot be read ({error})", "a folder with one folder of videos per class") from error
    names = tuple(labels or in_our_order(folders))
    wanted = "one folder of videos per class"
    if not folders:
        raise DataError(f"{root} has no folders", wanted, "or give a CSV")
    if not set(names) & set(folders):
        raise DataError(f"{root} has no folder {', '.join(names)}", wanted, f"its folders are {', '.join(folders)}")
    complaints = [(name, "folder is not among --labels: left out") for name in folders if name not in names]
    videos = []
    for label, name in enumerate(names):
        for path in videos_in(root / name) if name in folders else ():
            inside = path.relative_to(root / name).parts
            person = inside[0] if len(inside) > 1 else None
            videos.append(Video(clip_name(os.fspath(path.relative_to(root))), path, label, person=person))
    if not videos:
        raise DataError(f"no videos in the folders of {root}", f"files such as {root / names[0] / 'clip.mp4'}")
    return Layout(tuple(videos), names, 0, tuple(complaints))


def csv_table(path: Path, root: Path | None, labels: Sequence[str] | None) -> Layout:
    """A CSV with columns path and label, and maybe person and fold.

    Paths are relative to `root`, else to the CSV. A label is a name or a number. A fold is a number
    (the clip is a test clip of that fold and a training clip of the others), or train or test.
    """
    rows = _rows(path)
    if not rows:
        raise DataError(
            f"{path} has no rows", "path,label[,person][,fold] in the first line, one video per line after it"
        )
    words = [row["label"] for row in rows]
    numbered = all(re.fullmatch(r"\d+", word) for word in words)
    if labels:
        names = tuple(labels)
    elif numbered:
        names = tuple(f"class{number}" for number in range(max(map(int, words)) + 1))
    else:
        names = in_our_order({word for word in words if word})
    folds, base = _folds([row["fold"] for row in rows], path), root or path.parent
    numbers = {name: label for label, name in enumerate(names)}
    videos, complaints = [], []
    for line, (row, word, fold) in enumerate(zip(rows, words, folds, strict=True), 2):
        label = int(word) if numbered else numbers.get(word, len(names))
        if label < len(names):
            videos.append(Video(_name(row["path"], base), base / row["path"], label, *fold, row["person"] or None))
        else:
            complaints.append((f"{path.name} line {line}", f"label {word!r} is not one of {', '.join(names)}"))
    count = max((fold for tests, trains in folds for fold in (*tests, *(trains or ()))), default=0)
    return Layout(tuple(videos), names, count, tuple(complaints))


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            reader.fieldnames = columns = [name.strip().lower() for name in reader.fieldnames or ()]
            rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read ({error})", "a CSV with columns path,label[,person][,fold]") from error
    if not {"path", "label"} <= set(columns):
        raise DataError(f"{path} has the columns {', '.join(columns)}", "path,label[,person][,fold] in its first line")
    return [{"fold": "", "person": "", **row} for row in rows if row["path"]]


def _name(path: str, base: Path) -> str:
    """Of a path as a CSV has it: relative to `base`, or absolute anywhere."""
    file, root = Path(path), base.absolute()
    if file.is_absolute():
        file = file.relative_to(root) if file.is_relative_to(root) else Path(file.parent.name) / file.name
    return clip_name(os.fspath(file))


def _folds(values: Sequence[str], path: Path) -> list[tuple[tuple[int, ...], tuple[int, ...] | None]]:
    """(test folds, training folds or None) of each row."""
    words = [value.lower() for value in values]
    if not any(words):
        return [((), None)] * len(words)
    if all(re.fullmatch(r"\d+", word) for word in words):
        numbers = list(map(int, words))
        found, start = sorted(set(numbers)), min(numbers)  # people count from 0 or from 1
        if start > 1 or len(found) < 2 or found[-1] - start >= len(found):
            raise DataError(f"{path} has the folds {found}", "at least two, numbered from 0 or 1 without gaps")
        return [((number - start + 1,), None) for number in numbers]
    if unknown := sorted(set(words) - TEST_NAMES - {TRAIN}):
        raise DataError(f"{path} has the fold {unknown[0]!r}", "a number in every line, or train or test in every line")
    return [((), (1,)) if word == TRAIN else ((1,), ()) for word in words]


def annotated(protocol: Protocol, lists: Path, videos: Path) -> Layout:
    """The raw videos of DFEW or MAFW with the data set's lists of all its folds.

    Clip `00012` is made of `00012.mp4` or `12.mp4`, anywhere below `videos`.
    """
    files: dict[str, Path] = {}
    for path in videos_in(videos):
        files.setdefault(path.stem, path)
        files.setdefault(path.stem.lstrip("0") or "0", path)
    if not files:
        raise DataError(f"no videos in {videos}", f"{protocol.name}'s raw videos", "check --videos")
    known: dict[str, Video] = {}
    complaints = []
    for fold, split in product(range(1, protocol.folds + 1), (TRAIN, TEST)):
        for where, line in read_lines(find_list(protocol, lists, fold, split)):
            try:
                folder, _, label = parse_line(line, protocol.labels)
            except BadClipError as error:
                complaints.append((where, error.args[2]))
                continue
            name, folds = last_part(folder), f"{split}s"  # the fields Video.trains and Video.tests
            found = files.get(name) or files.get(name.lstrip("0") or "0")
            video = known.setdefault(name, Video(name, found, label, (), ()))
            if video.label == label:
                known[name] = replace(video, **{folds: (*getattr(video, folds), fold)})
            else:
                complaints.append((where, f"clip {name} as class {label}, and as {video.label} before"))
    return Layout(tuple(known.values()), protocol.labels, protocol.folds, tuple(complaints))


def check_division(folds: int, val_share: float) -> None:
    if folds < 1:
        raise UsageError(f"--folds {folds}", "at least 1")
    if not 0 < val_share < 1:
        raise UsageError(f"--val-share {val_share:g}", "between 0 and 1")


def split_folds(layout: Layout, folds: int, val_share: float, seed: int) -> Layout:
    """Divide videos that come without folds: stratified by class, a function of names and seed alone.

    Each of K > 1 parts is the test list of one fold; a single fold has `val_share` of each class to test.
    """
    check_division(folds, val_share)
    tests: dict[str, tuple[int, ...]] = {}
    for label in range(len(layout.labels)):
        names = sorted(video.name for video in layout.videos if video.label == label)
        shuffled = [names[index] for index in np.random.default_rng((seed, label)).permutation(len(names))]
        if folds == 1:
            # From two videos on, each of the two lists gets at least one.
            count = min(max(1, round(len(names) * val_share)), len(names) - 1)
            tests.update({name: (1,) if place < count else () for place, name in enumerate(shuffled)})
        else:
            # Each class continues where the one before stopped: else the first folds would get all surplus clips.
            start = len(tests)
            tests.update({name: ((start + place) % folds + 1,) for place, name in enumerate(shuffled)})
    return replace(layout, videos=tuple(replace(v, tests=tests[v.name]) for v in layout.videos), folds=folds)


def with_unique_names(layout: Layout) -> Layout:
    """Of videos that would make clips of one name only the first is kept; the others become complaints."""
    kept: dict[str, Video] = {}
    complaints = list(layout.complaints)
    for video in layout.videos:
        first = kept.setdefault(video.name, video)
        if first is not video:
            complaints.append((video.name, f"{video.path} and {first.path} have one name: only the second is used"))
    return replace(layout, videos=tuple(kept.values()), complaints=tuple(complaints))
