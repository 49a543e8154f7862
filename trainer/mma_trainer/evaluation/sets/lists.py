"""The clips of an annotation list as a set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mma_edge.clip import frame_indices
from mma_edge.errors import DataError
from mma_trainer.data.check import settle
from mma_trainer.data.entries import FILES, ClipEntry, load_clips, read_wave
from mma_trainer.data.lists import scan_list
from mma_trainer.evaluation.sets.clips import EvalSet, RawClip


def open_list(
    path: Path,
    frames_root: Path | None,
    audio_root: Path | None,
    labels: Sequence[str],
    image_size: int,
    views: int = 1,
    skip_bad: bool = False,
) -> EvalSet:
    """The usable clips of a list; what is wrong with the others is said on stderr.

    DataError where there are bad clips and `skip_bad` is False, or no usable one.
    """
    entries, problems = scan_list(path, frames_root, audio_root, labels)
    settle(problems, skip_bad)
    if not entries:
        raise DataError(f"{path} has no usable clip", "at least one", "check --frames-root")
    return list_set(path.stem, path.name, entries, image_size, views)


def list_set(name: str, where: str, entries: Sequence[ClipEntry], image_size: int, views: int = 1) -> EvalSet:
    """A set of entries already looked up; `views` clips of each video are answered and their mean is taken."""
    silent = sum(entry.wav is None for entry in entries)
    clips = "" if views == 1 else f", mean of {views} clips each"
    description = f"{where}, {len(entries)} clips, {silent} of them without a wav{clips}"

    def load(index: int) -> tuple[np.ndarray, np.ndarray]:
        frames, mel = load_clips(entries[index], image_size, views)
        return (frames[0], mel[0]) if views == 1 else (frames, mel)

    def raw(index: int) -> RawClip:
        entry = entries[index]
        images = tuple(FILES.images(entry, frame_indices(len(entry.files))))
        wave, rate_hz = read_wave(entry) or (None, 0)
        return RawClip(images, wave, rate_hz)

    labels = np.array([entry.label for entry in entries])
    return EvalSet(name, description, labels, load, views=views, raw=raw, image_size=image_size)
