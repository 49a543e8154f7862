"""FER2013's faces with the ten votes of FER+, and with FER2013's own labels.

FER2013 (Goodfellow et al. 2013): 48x48 grey faces. FER+ (Barsoum et al. 2016) had ten people look at each and
counted what they said, so a picture has a distribution over the classes instead of one label.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mma_edge.errors import DataError
from mma_trainer.labels import DFEW_LABELS

CLASSES = len(DFEW_LABELS)
# The first seven are DFEW's classes in DFEW's order.
VOTES = (*DFEW_LABELS, "contempt", "unknown", "not a face")
SIDE_PX = 48
UNKNOWN = 255  # among `fer2013_labels`


@dataclass(frozen=True, eq=False)
class Faces:
    """Grey pictures and what people see in them.

    Attributes:
        images: uint8 (N, H, W).
        targets: float32 (N, 7), the votes for the seven classes, normalised to sum 1.
        weights: float32 (N,) in (0, 1], the share of all votes that these classes have.
        labels: int64 (N,), the class with most votes; of several the one listed first.
        agreed: bool (N,), more than half of all votes are for that class.
        own_labels: int64 (N,), FER2013's own label, UNKNOWN where it has none.
    """

    images: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    labels: np.ndarray
    agreed: np.ndarray
    own_labels: np.ndarray


def voted_faces(images: np.ndarray, votes: np.ndarray, own_labels: np.ndarray) -> Faces:
    """Faces (N, H, W) with votes (N, 10) in the order of VOTES; those without a vote for the seven are left out."""
    seven = votes[:, :CLASSES].astype(np.int64)
    kept = seven.any(axis=1)
    seven, total = seven[kept], votes[kept].sum(axis=1, dtype=np.int64)
    known = seven.sum(axis=1)
    return Faces(
        images=images[kept],
        targets=(seven / known[:, None]).astype(np.float32),
        weights=(known / total).astype(np.float32),
        labels=seven.argmax(axis=1),
        agreed=2 * seven.max(axis=1) > total,
        own_labels=own_labels[kept].astype(np.int64),
    )


def labelled_faces(images: np.ndarray, labels: np.ndarray) -> Faces:
    """Faces (N, H, W) of which only a label (N,) is known: all votes are for it."""
    labels = labels.astype(np.int64)
    count = len(labels)
    targets = np.eye(CLASSES, dtype=np.float32)[labels]
    return Faces(images, targets, np.ones(count, np.float32), labels, np.ones(count, bool), labels)


def load_faces(folder: str | Path, split: str) -> Faces:
    """FER+ "train" or "val" from `ferplus_<split>.npz`.

    Raises:
        DataError: no such file, not an .npz, an array is missing or has another type or shape.
    """
    path = Path(folder) / f"ferplus_{split}.npz"
    arrays = _read(path, ("images", "votes", "fer2013_labels"), "ferplus_train.npz and ferplus_val.npz")
    images, votes, own_labels = arrays
    _check_images(path, images)
    if votes.shape != (len(images), len(VOTES)) or votes.dtype != np.uint8:
        expected = f"uint8 ({len(images)}, {len(VOTES)}): how many people said {', '.join(VOTES)}"
        raise DataError(f"{path}: votes are {votes.dtype} {votes.shape}", expected)
    if own_labels.shape != (len(images),) or not np.isin(own_labels, (*range(CLASSES), UNKNOWN)).all():
        what = f"{path}: fer2013_labels are {own_labels.dtype} {own_labels.shape}, or not classes"
        raise DataError(what, f"({len(images)},) of 0 to {CLASSES - 1}, or {UNKNOWN} where unknown")
    faces = voted_faces(images, votes, own_labels)
    if not len(faces.labels):
        raise DataError(f"{path} has no picture with a vote for {', '.join(DFEW_LABELS)}", "at least one")
    return faces


def load_fer2013_val(folder: str | Path) -> Faces:
    """FER2013's contrast-equalised validation faces from `fer2013_val.npz`, with its own labels.

    Raises:
        DataError: as `load_faces`.
    """
    path = Path(folder) / "fer2013_val.npz"
    images, labels = _read(path, ("images", "labels"), path.name)
    _check_images(path, images)
    if labels.shape != (len(images),) or not np.isin(labels, range(CLASSES)).all():
        raise DataError(f"{path}: labels {labels.shape} are not classes", f"({len(images)},) of 0 to {CLASSES - 1}")
    return labelled_faces(images, labels)


def _read(path: Path, names: tuple[str, ...], files: str) -> list[np.ndarray]:
    if not path.is_file():
        raise DataError(f"{path} does not exist", files, "give --data their folder")
    try:
        with np.load(path) as file:
            return [file[name] for name in names]
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        hint = "copy the file again"
        raise DataError(f"{path} cannot be read ({error})", f"arrays {', '.join(names)}", hint) from error


def _check_images(path: Path, images: np.ndarray) -> None:
    shape = (SIDE_PX, SIDE_PX)
    if images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
        raise DataError(f"{path}: images are {images.dtype} {images.shape}", f"uint8 (N, {SIDE_PX}, {SIDE_PX}), N > 0")
