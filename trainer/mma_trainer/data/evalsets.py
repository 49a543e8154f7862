"""Labelled clips for evaluation, cut by the runtime's own code; no torch, so a benchmark on a device can use them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mma_edge.audio import log_mel
from mma_edge.clip import NUM_FRAMES
from mma_edge.errors import UsageError
from mma_edge.faces import resize
from mma_trainer.data.public import Faces, Voices, check_pairs, load_faces, load_voices

BATCH = 32
PAIRING_SEED = 0


@dataclass(frozen=True, eq=False)
class EvalSet:
    """Labelled clips.

    Attributes:
        name: "faces", "voices", "pseudo" or the list's file name.
        description: one line for a report.
        labels: int64 (N,).
        load: index -> (frames uint8 (16, S, S, 3) or None, mel float32 (512, 128) or None).
    """

    name: str
    description: str
    labels: np.ndarray
    load: Callable[[int], tuple[np.ndarray | None, np.ndarray | None]]

    def batches(self, size: int = BATCH) -> Iterator[tuple[np.ndarray | None, np.ndarray | None, np.ndarray]]:
        """(frames (B, 16, S, S, 3) or None, mel (B, 512, 128) or None, labels (B,))."""
        for start in range(0, len(self.labels), size):
            clips = [self.load(index) for index in range(start, min(start + size, len(self.labels)))]
            frames, mel = (None if part[0] is None else np.stack(part) for part in zip(*clips, strict=True))
            yield frames, mel, self.labels[start : start + size]

    def first(self, count: int) -> EvalSet:
        """Every n-th clip, `count` in all: a quick look at the whole set."""
        chosen = np.unique(np.linspace(0, len(self.labels) - 1, min(count, len(self.labels))).astype(int))
        load = self.load
        return dataclasses.replace(self, labels=self.labels[chosen], load=lambda index: load(int(chosen[index])))

    def without(self, modality: str) -> EvalSet:
        """The same clips with the "video" or the "audio" taken away."""
        load = self.load

        def masked(index: int) -> tuple[np.ndarray | None, np.ndarray | None]:
            frames, mel = load(index)
            return (None, mel) if modality == "video" else (frames, None)

        return dataclasses.replace(self, name=f"{self.name} without {modality}", load=masked)


def faces_set(data: Path, image_size: int) -> EvalSet:
    """FER2013's validation faces, each shown for 16 frames, without sound."""
    faces = load_faces(data, "val")
    description = f"FER2013 validation, {len(faces.labels)} stills shown for 16 frames, no sound"
    return EvalSet("faces", description, faces.labels, lambda index: (still_clip(faces, index, image_size), None))


def voices_set(data: Path) -> EvalSet:
    """RAVDESS speech of the validation actors at its own rate, without faces."""
    voices = load_voices(data, "val")
    description = f"RAVDESS speech, actors 17-20, {len(voices.labels)} clips at {voices.sample_rate_hz} Hz, no faces"
    return EvalSet("voices", description, voices.labels, lambda index: (None, voice_mel(voices, index)))


def pseudo_set(data: Path, image_size: int) -> EvalSet:
    """Validation faces with validation voices of the same label: exercises fusion, is no audio-visual accuracy."""
    faces, voices = load_faces(data, "val"), load_voices(data, "val")
    check_pairs(faces, voices)
    rng = np.random.default_rng(PAIRING_SEED)
    partner = np.array([rng.choice(np.flatnonzero(voices.labels == label)) for label in faces.labels])
    description = (
        f"pseudo audio-visual: {len(faces.labels)} FER2013 faces paired with RAVDESS voices of the same label; "
        "given the label both are independent, so the gain from fusion is overstated"
    )
    return EvalSet(
        "pseudo",
        description,
        faces.labels,
        lambda index: (still_clip(faces, index, image_size), voice_mel(voices, partner[index])),
    )


def still_clip(faces: Faces, index: int, image_size: int) -> np.ndarray:
    """One grey still as uint8 (16, S, S, 3), resized as the runtime resizes."""
    image = resize(np.repeat(faces.images[index][..., None], 3, axis=2), image_size)
    return np.repeat(image[None], NUM_FRAMES, axis=0)


def voice_mel(voices: Voices, index: int) -> np.ndarray:
    return log_mel(voices.waves[index], voices.sample_rate_hz)


SETS = ("faces", "voices", "pseudo")


def open_set(name: str, data: Path, image_size: int) -> EvalSet:
    """One of SETS from the folder of the public data."""
    if name not in SETS:
        raise UsageError(f"set {name!r}", f"one of {', '.join(SETS)}")
    if name == "faces":
        return faces_set(data, image_size)
    return voices_set(data) if name == "voices" else pseudo_set(data, image_size)
