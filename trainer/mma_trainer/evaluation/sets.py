"""Labelled clips for evaluation, cut by the runtime's own code; no torch, so a benchmark on a device can use them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mma_edge.audio import log_mel
from mma_edge.clip import NUM_FRAMES, evenly, frame_indices
from mma_edge.errors import DataError, UsageError
from mma_edge.faces import resize
from mma_trainer.data.check import settle
from mma_trainer.data.entries import FILES, ClipEntry, load_clips, read_wave
from mma_trainer.data.lists import scan_list
from mma_trainer.data.public.faces import Faces, load_faces
from mma_trainer.data.public.voices import RAVDESS, check_pairs, load_voices

BATCH = 32
PAIRING_SEED = 0


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
        chosen = evenly(len(self.labels), count)
        load, raw = self.load, self.raw
        return dataclasses.replace(
            self,
            labels=self.labels[chosen],
            load=lambda index: load(int(chosen[index])),
            raw=None if raw is None else lambda index: raw(int(chosen[index])),
            groups=None if self.groups is None else self.groups[chosen],
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


def faces_set(data: Path, image_size: int) -> EvalSet:
    """FER+'s validation faces, each shown for 16 frames, without sound."""
    faces = load_faces(data, "val")
    count = len(faces.labels)
    description = f"FER+ validation, first choice of the votes, {count} stills shown for {NUM_FRAMES} frames, no sound"
    return raw_set(
        "faces", description, faces.labels, lambda i: RawClip(still(faces, i), None), image_size, modalities=("video",)
    )


def voices_set(data: Path) -> EvalSet:
    """RAVDESS speech of the validation actors at its own rate, without faces."""
    voices = load_voices(data, "val", (RAVDESS,))
    rate_hz, more = voices.sample_rate_hz, {"modalities": ("audio",), "groups": voices.speakers}
    description = f"RAVDESS speech, actors 17-20, {len(voices.labels)} clips at {rate_hz} Hz, no faces"
    return raw_set("voices", description, voices.labels, lambda i: RawClip(None, voices.waves[i], rate_hz), **more)


def pseudo_set(data: Path, image_size: int) -> EvalSet:
    """Validation faces with validation voices of the same label: shows fusion at work, not audio-visual accuracy."""
    faces, voices = load_faces(data, "val"), load_voices(data, "val", (RAVDESS,))
    check_pairs(faces, voices)
    rng = np.random.default_rng(PAIRING_SEED)
    partner = np.array([rng.choice(np.flatnonzero(voices.labels == label)) for label in faces.labels])
    description = (
        f"pseudo audio-visual: {len(faces.labels)} FER+ faces paired with RAVDESS voices of the same label; "
        "given the label both are independent, so the gain from fusion is overstated"
    )

    def raw(index: int) -> RawClip:
        return RawClip(still(faces, index), voices.waves[partner[index]], voices.sample_rate_hz)

    return raw_set("pseudo", description, faces.labels, raw, image_size, groups=voices.speakers[partner])


def still(faces: Faces, index: int) -> tuple[np.ndarray, ...]:
    """One grey still as the 16 equal frames uint8 (h, w, 3) of a clip."""
    return (np.repeat(faces.images[index][..., None], 3, axis=2),) * NUM_FRAMES


SETS = ("faces", "voices", "pseudo")


def open_set(name: str, data: Path, image_size: int) -> EvalSet:
    """One of SETS from the folder of the public data."""
    if name not in SETS:
        raise UsageError(f"set {name!r}", f"one of {', '.join(SETS)}")
    if name == "voices":
        return voices_set(data)
    return (faces_set if name == "faces" else pseudo_set)(data, image_size)


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
