"""Log-mel filterbank of MMA-DFER: Kaldi fbank, 128 bins, 25 ms windows every 10 ms.

The same features as `torchaudio.compliance.kaldi.fbank(htk_compat=True, use_energy=False, window_type="hanning",
num_mel_bins=128, dither=0)` of the authors' loader. Values are *before* the normalisation
(x - MEL_MEAN) / (2 * MEL_STD): that step lives inside the exported graph.

In numpy and not by kaldi-native-fbank: from 1.23 on it refuses 128 bins at 16 kHz, and one transform of many windows
takes a quarter of its time and is no further from the same sums in float64.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mma_edge.errors import UsageError

NUM_MEL_BINS = 128
NUM_MEL_FRAMES = 512  # 5.12 s at one frame every 10 ms
FRAME_LENGTH_MS = 25
FRAME_SHIFT_MS = 10
MEL_MEAN = -4.2677393  # AudioSet statistics of AudioMAE
MEL_STD = 4.5689974
MIN_SAMPLE_RATE_HZ = 4000  # below it the 128 triangular filters no longer cover a bin each
PREEMPHASIS = np.float32(0.97)
LOWEST_HZ = 20.0  # where the first mel filter begins; the last one ends at half the sample rate
FLOOR = np.finfo(np.float32).eps  # of a filter's energy: silence is log(FLOOR)
BLOCK_FRAMES = 64  # windows transformed at once: their arrays stay in a processor's cache
BAND_FILTERS = 16  # filters multiplied at once: each band needs only the FFT bins under it


def frame_shift_samples(sample_rate_hz: int) -> int:
    """Samples between two mel frames; Kaldi truncates, so 22,050 Hz gives 220."""
    return int(sample_rate_hz * 0.001 * FRAME_SHIFT_MS)


def frame_length_samples(sample_rate_hz: int) -> int:
    """Samples under one mel frame's window."""
    return int(sample_rate_hz * 0.001 * FRAME_LENGTH_MS)


def log_mel(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Log-mel of a whole waveform, as the paper feeds it: first 512 frames, zero-padded.

    Args:
        waveform: float (channels, n) or (n,), in [-1, 1], at the file's own `sample_rate` in Hz. The mean over channels
            and time is subtracted, then the first channel is used.

    Returns:
        float32 (512, 128), before normalisation. The padding is zero before normalisation too, and a waveform shorter
        than one window gives only zeros (what the authors feed for no audio).

    Raises:
        UsageError: for another shape, an integer dtype, NaN or infinity, or a rate below 4 kHz.
    """
    waveform = _checked(waveform)
    mono = waveform[0] - waveform.mean(dtype=np.float64).astype(np.float32) if waveform.size else waveform[0]
    stream = LogMelStream(sample_rate)
    # Samples after the last needed window cannot change the first 512 frames.
    needed = frame_shift_samples(sample_rate) * (NUM_MEL_FRAMES - 1) + frame_length_samples(sample_rate)
    return pad_mel(stream.accept(mono[:needed]))


def pad_mel(rows: np.ndarray) -> np.ndarray:
    """First 512 rows, zero-padded: float32 (n, 128) -> (512, 128)."""
    mel = np.zeros((NUM_MEL_FRAMES, NUM_MEL_BINS), np.float32)
    count = min(len(rows), NUM_MEL_FRAMES)
    mel[:count] = rows[:count]
    return mel


def _checked(waveform: np.ndarray) -> np.ndarray:
    waveform = np.asarray(waveform)
    if not np.issubdtype(waveform.dtype, np.floating):
        raise UsageError(
            f"waveform has dtype {waveform.dtype}", "floating point in [-1, 1]", "divide 16-bit samples by 32768"
        )
    waveform = np.atleast_2d(waveform).astype(np.float32, copy=False)
    if waveform.ndim != 2 or waveform.shape[0] == 0:
        raise UsageError(f"waveform has shape {waveform.shape}", "(channels, samples) or (samples,)")
    if not np.isfinite(waveform).all():
        raise UsageError("waveform holds NaN or infinite samples", "finite numbers", "check the decoder or microphone")
    return waveform


@cache
def hann_window(length: int) -> np.ndarray:
    """Kaldi's "hanning" over `length` samples, zero at both ends: float32 (length,)."""
    return np.hanning(length).astype(np.float32)


@cache
def mel_bands(sample_rate_hz: int, fft_size: int) -> tuple[tuple[slice, slice, np.ndarray], ...]:
    """Kaldi's triangular filters (HTK mel scale), in bands of neighbours: each its FFT bins, its filters, the weights.

    The weights of a band are float32 (bins, filters). A filter narrower than the distance of two bins may have none.
    """

    def mel(hz: np.ndarray | float) -> np.ndarray:
        return 1127.0 * np.log1p(np.asarray(hz) / 700.0)

    edges = np.linspace(mel(LOWEST_HZ), mel(sample_rate_hz / 2), NUM_MEL_BINS + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    # Kaldi leaves out the last bin, half the sample rate.
    bins = mel(np.arange(fft_size // 2) * sample_rate_hz / fft_size)[:, None]
    weights = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
    weights = np.maximum(weights, 0.0).astype(np.float32)
    bands = []
    for first in range(0, NUM_MEL_BINS, BAND_FILTERS):
        filters = slice(first, first + BAND_FILTERS)
        used = np.flatnonzero(weights[:, filters].any(axis=1))
        span = slice(used[0], used[-1] + 1)
        bands.append((span, filters, np.ascontiguousarray(weights[span, filters])))
    return tuple(bands)


class LogMelStream:
    """Log-mel frames of a mono stream, each as soon as its window is full.

    Kaldi removes each window's own mean, so the authors' subtraction of the whole clip's mean changes nothing, and a
    stream gives the same frames as the whole file.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        if sample_rate_hz < MIN_SAMPLE_RATE_HZ:
            raise UsageError(f"sample rate {sample_rate_hz} Hz", f"at least {MIN_SAMPLE_RATE_HZ} Hz")
        self.sample_rate_hz = sample_rate_hz
        self._length, self._shift = frame_length_samples(sample_rate_hz), frame_shift_samples(sample_rate_hz)
        self.row_s = self._shift / sample_rate_hz
        self._fft_size = 1 << (self._length - 1).bit_length()  # the next power of two
        # The first sample of a window weighs nothing, so pre-emphasis needs none before it.
        self._window = hann_window(self._length)[1:]
        self._bands = mel_bands(sample_rate_hz, self._fft_size)
        self._pending = np.zeros(0, np.float32)  # from the beginning of the next window on

    def accept(self, samples: np.ndarray) -> np.ndarray:
        """Take float32 (n,) samples; return the frames they complete, float32 (m, 128)."""
        pending = np.concatenate([self._pending, np.asarray(samples, np.float32)])
        count = max(0, (len(pending) - self._length) // self._shift + 1)
        self._pending = pending[count * self._shift :].copy()  # a view would keep all of it
        rows = np.empty((count, NUM_MEL_BINS), np.float32)
        if count:
            windows = sliding_window_view(pending, self._length)[:: self._shift]
            for first in range(0, count, BLOCK_FRAMES):
                self._energies(windows[first : first + BLOCK_FRAMES], rows[first : first + BLOCK_FRAMES])
        return np.log(np.maximum(rows, FLOOR, out=rows), out=rows)

    def _energies(self, windows: np.ndarray, out: np.ndarray) -> None:
        """float32 (m, length) -> each filter's energy, into float32 (m, 128)."""
        centred = windows - windows.mean(axis=1, keepdims=True)
        emphasised = centred[:, 1:] - PREEMPHASIS * centred[:, :-1]
        spectrum = np.fft.rfft(emphasised * self._window, self._fft_size)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32, copy=False)  # float64 before numpy 2
        for bins, filters, weights in self._bands:
            np.matmul(power[:, bins], weights, out=out[:, filters])
