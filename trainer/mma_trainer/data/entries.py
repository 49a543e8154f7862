"""A clip of a data set on disk, and how its frames and its sound are read. No torch, as in `lists`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from mma_edge.audio import log_mel
from mma_edge.audio.logmel import NUM_MEL_BINS, NUM_MEL_FRAMES
from mma_edge.errors import DataError, UsageError
from mma_edge.faces import resize
from mma_trainer.data.sampling import augment_clip, clip_indices, train_indices


@dataclass(frozen=True)
class ClipEntry:
    """One line of a list, found on disk."""

    name: str  # last part of the folder
    folder: Path
    files: tuple[str, ...]  # names of its frames, in order
    wav: Path | None  # None: silent
    label: int
    where: str = ""  # list and line, for messages
    frame_bytes: int = 0  # decoded size of its frames, guessed generously from three of them


class ClipFiles:
    """Reads clips from their files; `mma_trainer.data.cache.ClipCache` also keeps what it has read."""

    def images(self, entry: ClipEntry, indices: Sequence[int]) -> list[np.ndarray]:
        """The frames at `indices`, as stored: uint8 (h, w, 3) RGB each; one asked for twice is one object."""
        images: dict[int, np.ndarray] = {}
        try:
            for index in map(int, indices):
                if index not in images:
                    with Image.open(entry.folder / entry.files[index]) as image:
                        images[index] = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow raises all of them
            what, hint = f"clip {entry.name}: a frame cannot be read ({error})", "prepare it again, or --skip-bad"
            raise DataError(what, "a picture", hint) from error
        return [images[int(index)] for index in indices]

    def mel(self, entry: ClipEntry) -> np.ndarray:
        """Log-mel float32 (512, 128) of a clip's sound; zeros for a clip without a wav."""
        sound = read_wave(entry)
        if sound is None:
            return np.zeros((NUM_MEL_FRAMES, NUM_MEL_BINS), np.float32)
        try:
            return log_mel(*sound)
        except UsageError as error:  # NaN, or a rate that no log-mel can be made of
            raise DataError(f"clip {entry.name}: {entry.wav}: {error.what}", error.expected, error.hint) from error


FILES = ClipFiles()


def read_wave(entry: ClipEntry) -> tuple[np.ndarray, int] | None:
    """Sound as stored: float32 (channels, n) in [-1, 1] and its rate in Hz; None for a clip without a wav."""
    if entry.wav is None:
        return None
    try:
        wave, rate = soundfile.read(entry.wav, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise DataError(f"clip {entry.name}: {entry.wav} cannot be read ({error})", "a wav file") from error
    return wave.T, rate


def load_clip(
    entry: ClipEntry, image_size: int, rng: np.random.Generator | None, files: ClipFiles = FILES
) -> tuple[np.ndarray, np.ndarray]:
    """frames uint8 (16, S, S, 3) and log-mel (512, 128); augmented when `rng` is given."""
    if rng is None:
        frames, mel = load_clips(entry, image_size, 1, files)
        return frames[0], mel[0]
    images = files.images(entry, train_indices(len(entry.files), rng))
    return augment_clip(images, image_size, rng), files.mel(entry)


def load_clips(
    entry: ClipEntry, image_size: int, num_clips: int, files: ClipFiles = FILES
) -> tuple[np.ndarray, np.ndarray]:
    """The test clips of `sampling.clip_indices`: frames uint8 (k, 16, S, S, 3) and log-mel (k, 512, 128).

    All of them have the same sound: the model hears the first 5.12 s whatever it sees.
    """
    chosen = clip_indices(len(entry.files), num_clips)
    frames = np.stack([resize(image, image_size) for image in files.images(entry, chosen.ravel())])
    return frames.reshape(*chosen.shape, *frames.shape[1:]), np.repeat(files.mel(entry)[None], num_clips, axis=0)
