"""Where the folds of DFEW, of MAFW and of prepared data lie, so that a user only names the data set.

Known places, in the order in which they are tried. Lists: those of MMA-DFER's and DFER-CLIP's
repositories (`annotation/DFEW_set_1_train.txt`, `annotation/MAFW_set_1_train_faces.txt`), then those
that come with the data (DFEW's `EmoLabel_DataSplit`, which M3DFEL reads, MAFW's `Train & Test Set`).
Frames and wavs: the authors' folders (`clip_224x224` beside `raw_wav`, `clips_faces` beside
`clips_wav`), as downloaded or moved to the top.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mma_edge.errors import DataError, UsageError
from mma_trainer.labels import DFEW_LABELS, MAFW_LABELS

DESCRIPTION = "dataset.json"  # what `mma-train prepare` writes at the top of its folder
SCHEMA = 1
NO_AUDIO = Path("none")  # `--audio-root none`: train without sound on purpose


@dataclass(frozen=True)
class Fold:
    """One fold on disk: its lists, the folder of the frames (None: as listed) and of the wavs (None: beside)."""

    train_list: Path
    val_list: Path
    frames_root: Path | None
    audio_root: Path | None
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Protocol:
    """A data set and its known places; `{fold}` and `{split}` ("train", "test") stand in the lists' names."""

    name: str
    labels: tuple[str, ...]
    folds: int
    lists: tuple[str, ...]
    frames: tuple[str, ...]
    audio: tuple[str, ...]


PROTOCOLS = {
    "dfew": Protocol(
        "DFEW",
        DFEW_LABELS,
        5,
        (
            "DFEW_set_{fold}_{split}.txt",
            "set_{fold}_{split}.txt",
            "EmoLabel_DataSplit/{split}(single-labeled)/set_{fold}.csv",
            "EmoLabel_DataSplit/{split}(single-labeled)/{split}_set_{fold}.csv",
            "label/single_{split}set_{fold}.csv",
        ),
        (
            "clip_224x224",
            "clips_faces",
            "Clip/clip_224x224/clip_224x224",
            "Clip/clip_224x224",
            "DFEW_Frame_Face",
            "data",
        ),
        ("raw_wav", "clips_wav", "Clip/raw_wav"),
    ),
    "mafw": Protocol(
        "MAFW",
        MAFW_LABELS,
        5,
        (
            "MAFW_set_{fold}_{split}_faces.txt",
            "MAFW_set_{fold}_{split}.txt",
            "set_{fold}_{split}.txt",
            "Train & Test Set/single/no_caption/set_{fold}/{split}.txt",
            "Train_Test_Set/single/no_caption/set_{fold}/{split}.txt",
            "split/single/no_caption/set_{fold}/{split}.txt",
        ),
        ("clips_faces", "data/clips_faces", "data/faces", "faces"),
        ("clips_wav", "data/clips_wav", "raw_wav"),
    ),
}


def find_fold(
    dataset: str, fold: int, data: Path | None, frames_root: Path | None = None, audio_root: Path | None = None
) -> Fold:
    """Lists and folders of a fold of "dfew", "mafw" or "prepared".

    Args:
        data: the data set's folder; None: that in the environment (DFEW_ROOT, MAFW_ROOT), else ./data/DFEW etc.
        frames_root, audio_root: given by the user, not searched for; `NO_AUDIO` for none.

    Raises:
        UsageError: there is no such fold.
        DataError: something is not there; the message has every place that was looked at.
    """
    if dataset == "prepared":
        root = _existing(data, "--data", "the folder that mma-train prepare wrote")
        found = describe(root)
        check_fold(fold, found["folds"], str(root))
        return Fold(*(prepared_list(root, fold, split) for split in ("train", "test")), root, None, found["labels"])
    protocol = PROTOCOLS[dataset]
    check_fold(fold, protocol.folds, protocol.name)
    root = find_root(protocol, data)
    train, val = (find_list(protocol, root, fold, split) for split in ("train", "test"))
    if frames_root is None:
        places = [root / name for name in protocol.frames]
        frames_root = _find(places, f"{protocol.name}'s folder of frames", hint="give --frames-root DIR")
    if audio_root is None:
        beside = [frames_root.parent / name for name in ("raw_wav", "clips_wav")]
        places = [root / name for name in protocol.audio] + beside
        hint = "give --audio-root DIR (mma-train prepare --sound-only makes one), or --audio-root none for no sound"
        audio_root = _find(places, f"{protocol.name}'s folder of wavs", hint=hint)
    return Fold(train, val, frames_root, audio_root, protocol.labels)


def check_fold(fold: int, folds: int, name: str) -> None:
    if not 1 <= fold <= folds:
        raise UsageError(f"fold {fold} of {name}", f"1 to {folds}" if folds > 1 else "1, its only fold")


def find_root(protocol: Protocol, data: Path | None) -> Path:
    """The data set's folder."""
    if data is not None:
        return _existing(data, "--data", f"the folder of {protocol.name}")
    variable = f"{protocol.name}_ROOT"
    if given := os.environ.get(variable):
        return _existing(Path(given), variable, f"the folder of {protocol.name}")
    places = [Path(top) / name for top in ("data", ".") for name in (protocol.name, protocol.name.lower())]
    expected = f"{protocol.name}, which its makers give on request"
    return _find(places, protocol.name, expected, f"give --data DIR, or set {variable}")


def find_list(protocol: Protocol, root: Path, fold: int, split: str) -> Path:
    """The list of a fold's "train" or "test" clips."""
    names = [name.format(fold=fold, split=split) for name in protocol.lists]
    places = [root / folder / name for name in names for folder in ("", "annotation", "annotations")]
    # Outside the folder only after that: lists that lie inside belong to its frames.
    places += [place / name for name in names for place in (root.absolute().parent / "annotation", Path("annotation"))]
    if found := next(filter(Path.is_file, places), None):
        return found
    raise DataError(
        f"no {split} list of fold {fold} of {protocol.name} in {root}: looked for {', '.join(names)}"
        " there, in its annotation and annotations, in annotation beside it and in ./annotation",
        "the authors' annotation files",
        "copy the folder annotation/ of MMA-DFER's repository there, or name them: --train-list, --val-list",
    )


def describe(folder: Path) -> dict:
    """`dataset.json` of a prepared data set: labels, number of folds, and people, by the clip's name where known."""
    path, again = folder / DESCRIPTION, "run mma-train prepare again"
    try:
        found = json.loads(path.read_text())
        labels, folds, people = tuple(found["labels"]), int(found["folds"]), dict(found.get("people", {}))
        if found["schema"] != SCHEMA or not labels or not all(isinstance(label, str) for label in labels) or folds < 1:
            raise ValueError(f"schema {found['schema']!r}, {len(labels)} labels, {folds} folds")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist", "a folder that mma-train prepare finished", again) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be used ({error})", f"schema {SCHEMA}", again) from error
    return {**found, "labels": labels, "folds": folds, "people": people}


def prepared_list(folder: Path, fold: int, split: str) -> Path:
    return folder / "annotation" / f"set_{fold}_{split}.txt"


def _existing(folder: Path | None, option: str, what: str) -> Path:
    if folder is None:
        raise UsageError(f"no {option}", what)
    if not folder.is_dir():
        raise DataError(f"{option}: {folder} is not a folder", what)
    return folder


def _find(places: Sequence[Path], what: str, expected: str = "", hint: str = "") -> Path:
    """The first of `places` that is a folder."""
    if found := next(filter(Path.is_dir, places), None):
        return found
    listed = ", ".join(dict.fromkeys(map(str, places)))
    raise DataError(f"{what} was not found: looked for {listed}", expected, hint)
