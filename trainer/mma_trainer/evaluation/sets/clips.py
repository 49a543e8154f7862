"""Labelled clips for evaluation, cut by the runtime's own code."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mma_edge.audio import log_mel
from mma_edge.clip import evenly
from mma_edge.errors import UsageError
from mma_edge.faces import resize

BATCH = 32


@dataclass(frozen=True, eq=False)
class RawClip:
    """A clip before the runtime's own resize and log-mel, where a camera and a microphone can still spoil it."""

    images: tuple[np.ndarray, ...] | None  # the 16 sampled frames, uint8 (h, w, 3) RGB; of a still one object 16 times
    wave: np.ndarray | None  # float32 (n,) or (channels, n) in [-1, 1]
    sample_rate_hz: int = 0


Inputs = tuple[np.ndarray | None, np.ndarray | None]
"""frames uint8 (16, S, S, 3) or None, log-mel float32 (512, 128) or None."""


def each_once(images: Sequence[np.ndarray], change: Callable[[np.ndarray], np.ndarray]) -> list[np.ndarray]:
    """Every picture changed, one that is shown several times only once: a still stays one."""
    distinct = {id(image): image for image in images}
    changed = {key: change(image) for key, image in distinct.items()}
    return [changed[id(image)] for image in images]


def cut(clip: RawClip, image_size: int) -> Inputs:
    """What the runtime makes of a clip."""
    frames = mel = None
    if clip.images is not None:
        frames = np.stack(each_once(clip.images, lambda image: resize(image, image_size)))
    if clip.wave is not None:
        mel = log_mel(clip.wave, clip.sample_rate_hz)
    return frames, mel


@dataclass(frozen=True, eq=False)
class EvalSet:
    """Labelled clips, by index; with more than one view `load` gives (views, ...) frames and mels."""

    name: str  # "faces", "voices", "pseudo" or the list's file name
    description: str  # one line for a report
    labels: np.ndarray  # int64 (N,)
    load: Callable[[int], Inputs]
    views: int = 1  # clips per labelled item, whose probabilities are averaged
    raw: Callable[[int], RawClip] | None = None  # the clip before resize and log-mel; None where it cannot be had
    image_size: int = 0  # side S of the frames, pixels; needed with `raw`
    modalities: tuple[str, ...] = ("video", "audio")  # what its clips have
    groups: np.ndarray | None = None  # (N,) clips that are not independent, e.g. of one speaker; None: all are

    def batches(self, size: int = BATCH) -> Iterator[tuple[np.ndarray | None, np.ndarray | None, np.ndarray]]:
        """(frames (B * views, 16, S, S, 3) or None, mel (B * views, 512, 128) or None, labels (B,)).

        Where only some clips of a batch have a modality, the others get zeros: what the runtime feeds.
        """
        join = np.stack if self.views == 1 else np.concatenate
        for start in range(0, len(self.labels), size):
            clips = [self.load(index) for index in range(start, min(start + size, len(self.labels)))]
            frames, mel = (_joined(part, join) for part in zip(*clips, strict=True))
            yield frames, mel, self.labels[start : start + size]

    def first(self, count: int) -> EvalSet:
        """Every n-th clip, `count` in all: a quick look at the whole set."""
        return self._chosen(evenly(len(self.labels), count))

    def _chosen(self, chosen: np.ndarray) -> EvalSet:
        """The clips of some numbers."""
        load, raw = self.load, self.raw
        return dataclasses.replace(
            self,
            labels=self.labels[chosen],
            load=lambda index: load(int(chosen[index])),
            raw=None if raw is None else lambda index: raw(int(chosen[index])),
            groups=None if self.groups is None else self.groups[chosen],
        )

    def of_speakers(self, names: Sequence[str]) -> EvalSet:
        """The clips of some of the people that its groups ("corpus/speaker") are; UsageError where one is not there."""
        groups = () if self.groups is None else self.groups
        speakers = np.array([str(group).rpartition("/")[2] for group in groups], dtype=str)
        if unknown := [name for name in names if name not in speakers]:
            known = ", ".join(np.unique(speakers)) or "nobody: its speakers are not known"
            raise UsageError(f"speaker {unknown[0]!r} of {self.name}", known)
        chosen = np.flatnonzero(np.isin(speakers, names))
        description = f"{self.description}; of these the {len(chosen)} of {', '.join(names)}"
        named = dataclasses.replace(self, name=f"{self.name}-{'-'.join(names)}", description=description)
        return named._chosen(chosen)

    def repeated(self, times: int) -> EvalSet:
        """All clips several times over, for changes that are drawn: clip n of N is also N + n, 2 N + n, ..."""
        count, load, raw = len(self.labels), self.load, self.raw
        groups = np.arange(count) if self.groups is None else self.groups
        return dataclasses.replace(
            self,
            labels=np.tile(self.labels, times),
            load=lambda index: load(index % count),
            raw=None if raw is None else lambda index: raw(index % count),
            groups=np.tile(groups, times),
        )

    def without(self, modality: str) -> EvalSet:
        """The same clips with the "video" or the "audio" taken away."""
        load = self.load
        return dataclasses.replace(
            self,
            name=f"{self.name} without {modality}",
            load=lambda index: (None, load(index)[1]) if modality == "video" else (load(index)[0], None),
            raw=None,
            modalities=tuple(name for name in self.modalities if name != modality),
        )

    def changed(self, name: str, change: Callable[[RawClip, int], RawClip]) -> EvalSet:
        """The same clips, each changed before the runtime's resize and log-mel; `change` gets clip and index."""
        raw = self.raw
        if raw is None:
            raise UsageError(f"the clips of {self.name} cannot be changed", "a set whose frames and sound are at hand")
        return dataclasses.replace(
            self, name=f"{self.name}, {name}", load=lambda index: cut(change(raw(index), index), self.image_size)
        )


def _joined(part: tuple[np.ndarray | None, ...], join: Callable) -> np.ndarray | None:
    there = next((array for array in part if array is not None), None)
    return None if there is None else join([np.zeros_like(there) if array is None else array for array in part])


def raw_set(
    name: str, description: str, labels: np.ndarray, raw: Callable[[int], RawClip], image_size: int = 0, **more: object
) -> EvalSet:
    """A set whose clips are cut by the runtime's own code."""
    return EvalSet(
        name, description, labels, lambda index: cut(raw(index), image_size), raw=raw, image_size=image_size, **more
    )
