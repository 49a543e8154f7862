"""Sound files of the public sets as waves of one rate, and the log-mels of whole waves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile

from mma_edge.audio.logmel import NUM_MEL_BINS, LogMelStream
from mma_edge.errors import DataError

SAMPLE_RATE_HZ = 16_000
"""Of every wave that is read here, whatever its file has."""
MAX_THREADS = 8


def read_wave(path: Path) -> np.ndarray:
    """First channel of a sound file at SAMPLE_RATE_HZ, float32 (n,) in [-1, 1].

    Raises:
        DataError: it cannot be decoded, or has no sample.
    """
    try:
        wave, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        what = f"{path} cannot be read ({error})"
        raise DataError(what, f"a sound file ({path.suffix.lstrip('.')})", "copy it again") from error
    if not len(wave):
        raise DataError(f"{path} has no sound", "at least one sample", "copy it again")
    wave = np.ascontiguousarray(wave[:, 0])
    return wave if rate_hz == SAMPLE_RATE_HZ else resample(wave, SAMPLE_RATE_HZ / rate_hz)


def read_waves(paths: Sequence[Path]) -> list[np.ndarray]:
    """`read_wave` of many files, several at a time: the decoder lets other threads run. The first error ends it."""
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        try:
            return list(pool.map(read_wave, paths))
        except DataError:
            pool.shutdown(cancel_futures=True)
            raise


def mel_rows(wave: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """All log-mel frames of a wave, unpadded: float32 (n, 128)."""
    rows = LogMelStream(sample_rate_hz).accept(wave - wave.mean())
    return rows if len(rows) else np.zeros((1, NUM_MEL_BINS), np.float32)


def resample(wave: np.ndarray, factor: float) -> np.ndarray:
    """Band-limited resampling of a whole wave (..., n) by padding or cutting its spectrum; n -> round(n * factor)."""
    length = round(wave.shape[-1] * factor)
    spectrum = np.fft.rfft(wave)
    return (np.fft.irfft(spectrum, length) * factor).astype(np.float32)  # which pads or cuts the spectrum
