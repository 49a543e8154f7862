"""Sound that is not a voice: real noise, and the echo of real rooms as impulse responses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mma_edge.errors import DataError
from mma_trainer.data.public.waves import SAMPLE_RATE_HZ, read_waves

VAL_SHARE = 0.25
"""Of the recordings of each kind: noise that a model is judged with should not be noise that it was trained with."""


@dataclass(frozen=True, eq=False)
class Recordings:
    """Sounds without a label.

    Attributes:
        names: of the files, without suffix.
        kinds: str (N,), the name without its number: "phone_roads", "esc10_rain".
        waves: float32 (n,) each, in [-1, 1].
    """

    names: list[str]
    kinds: np.ndarray
    waves: list[np.ndarray]
    sample_rate_hz: int = SAMPLE_RATE_HZ


def load_noise(folder: str | Path, split: str) -> Recordings:
    """Background noise from `noise/<kind>_<number>.opus`, "train" or "val".

    Neighbours may be parts of one recording, so "val" is the end of each kind in the order of the numbers, one
    recording at least.

    Raises:
        DataError: no files, none left for "train", a file that cannot be decoded.
    """
    paths = _listed(Path(folder) / "noise", "opus")
    kinds = np.array([_kind(path) for path in paths])
    chosen = []
    for kind in dict.fromkeys(kinds.tolist()):
        rows = np.flatnonzero(kinds == kind)
        first = len(rows) - math.ceil(VAL_SHARE * len(rows))
        chosen += (rows[:first] if split == "train" else rows[first:]).tolist()
    if not chosen:
        raise DataError(f"{len(paths)} sounds in {Path(folder) / 'noise'}", "more than one of a kind", "add recordings")
    return _read([paths[row] for row in chosen])


def load_rooms(folder: str | Path) -> Recordings:
    """Impulse responses from `rooms/*.flac`, as recorded: neither trimmed nor scaled; errors as `load_noise`."""
    return _read(_listed(Path(folder) / "rooms", "flac"))


def _listed(root: Path, suffix: str) -> list[Path]:
    paths = sorted(root.glob(f"*.{suffix}"))
    if not paths:
        raise DataError(f"no sounds in {root}", f".{suffix} files", f"give --data the folder that {root.name}/ lies in")
    return paths


def _kind(path: Path) -> str:
    head, _, number = path.stem.rpartition("_")
    return head if number.isdecimal() else path.stem


def _read(paths: Sequence[Path]) -> Recordings:
    names, kinds = [path.stem for path in paths], np.array([_kind(path) for path in paths])
    return Recordings(names, kinds, read_waves(paths))
