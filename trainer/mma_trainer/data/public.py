"""FER2013 faces and RAVDESS voices, and the pseudo audio-visual set made of both.

FER2013 (Goodfellow et al. 2013): 48x48 grey faces, here as two .npz files with `images`
(N, 48, 48) uint8 and `labels` (N,) in DFEW order. RAVDESS (Livingstone and Russo 2018): acted
speech, `Actor_NN/MM-VV-EE-II-SS-RR-AA.flac`; EE is the emotion, AA the actor.

Pairing a face with a voice of the same label makes a set good enough to train fusion. Given the
label the two are independent, so what fusion gains on it says nothing about real clips.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from mma_edge.audio.logmel import NUM_MEL_BINS, LogMelStream
from mma_edge.errors import DataError
from mma_trainer.labels import DFEW_LABELS

CALM = len(DFEW_LABELS)  # not among the seven: in training it is an eighth class
RAVDESS_TO_DFEW = {1: 2, 2: CALM, 3: 0, 4: 1, 5: 3, 6: 6, 7: 5, 8: 4}  # emotion code -> class


@dataclass(frozen=True, eq=False)
class Faces:
    """images uint8 (N, H, W) grey, labels int64 (N,)."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Voices:
    """waves: float32 (n,) each, at `sample_rate_hz`; labels int64 (N,); actors int64 (N,)."""

    waves: list[np.ndarray]
    labels: np.ndarray
    actors: np.ndarray
    sample_rate_hz: int


def check_pairs(faces: Faces, voices: Voices) -> None:
    """DataError unless every class of the faces has a voice to be paired with."""
    if lacking := sorted(set(faces.labels.tolist()) - set(voices.labels.tolist())):
        raise DataError(f"no voice of the classes {lacking}", "a voice for every class of the faces", "see --data")


def load_faces(folder: str | Path, split: str) -> Faces:
    """FER2013 "train" or "val" from `fer2013_<split>.npz`."""
    path = Path(folder) / f"fer2013_{split}.npz"
    if not path.is_file():
        raise DataError(f"{path} does not exist", "fer2013_train.npz and fer2013_val.npz", "give --data their folder")
    try:
        with np.load(path) as file:
            faces = Faces(file["images"], file["labels"].astype(np.int64))
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read ({error})", "arrays `images` and `labels`") from error
    if faces.images.ndim != 3 or faces.images.dtype != np.uint8 or len(faces.images) != len(faces.labels):
        raise DataError(f"{path}: images {faces.images.dtype} {faces.images.shape}", "uint8 (N, H, W), one label each")
    if len(faces.labels) == 0 or faces.labels.min() < 0 or faces.labels.max() >= len(DFEW_LABELS):
        raise DataError(f"{path} is empty or has labels outside 0 to 6", "DFEW's seven classes")
    return faces


def load_voices(folder: str | Path, split: str, calm: bool = False) -> Voices:
    """RAVDESS speech of the "train" actors (1-16) or the "val" actors (17-20); `calm` voices have class CALM."""
    root = Path(folder) / "ravdess_speech"
    actors = range(1, 17) if split == "train" else range(17, 21)
    paths = [path for actor in actors for path in sorted((root / f"Actor_{actor:02d}").glob("*.flac"))]
    if not paths:
        hint = "give --data their parent folder"
        raise DataError(f"no voices in {root}", "folders Actor_01 ... of .flac files", hint)
    waves, labels, speakers, rates = [], [], [], set()
    for path in paths:
        fields = path.stem.split("-")
        label = None
        if len(fields) == 7 and fields[2].isdigit() and fields[6].isdigit():
            label = RAVDESS_TO_DFEW.get(int(fields[2]))
        if label is None:
            raise DataError(f"{path}: no RAVDESS emotion code", "a name MM-VV-EE-II-SS-RR-AA.flac")
        if label == CALM and not calm:
            continue
        try:
            wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, OSError) as error:
            raise DataError(f"{path} cannot be read ({error})", "a FLAC file", "copy it again") from error
        waves.append(wave[:, 0])
        rates.add(rate)
        labels.append(label)
        speakers.append(int(fields[6]))
    if len(rates) != 1:
        raise DataError(f"voices in {root} have rates {sorted(rates)} Hz", "one rate")
    return Voices(waves, np.array(labels), np.array(speakers), rates.pop())


def mel_rows(wave: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """All log-mel frames of a wave, unpadded: float32 (n, 128)."""
    rows = LogMelStream(sample_rate_hz).accept(wave - wave.mean())
    return rows if len(rows) else np.zeros((1, NUM_MEL_BINS), np.float32)


def resample(wave: np.ndarray, factor: float) -> np.ndarray:
    """Band-limited resampling of a whole wave by padding or cutting its spectrum; n -> round(n * factor)."""
    length = round(len(wave) * factor)
    spectrum = np.fft.rfft(wave)
    return (np.fft.irfft(spectrum, length) * factor).astype(np.float32)  # which pads or cuts the spectrum
