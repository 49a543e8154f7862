"""Log-mel filterbank of MMA-DFER: Kaldi fbank, 128 bins, 25 ms windows every 10 ms.

The same features as `torchaudio.compliance.kaldi.fbank(htk_compat=True, use_energy=False, window_type="hanning",
num_mel_bins=128, dither=0)` of the authors' loader, computed by kaldi-native-fbank, which also streams. Values are
*before* the normalisation (x - MEL_MEAN) / (2 * MEL_STD): that step lives inside the exported graph.
"""

from __future__ import annotations

import kaldi_native_fbank
import numpy as np

from mma_edge.errors import UsageError

NUM_MEL_BINS = 128
NUM_MEL_FRAMES = 512  # 5.12 s at one frame every 10 ms
FRAME_LENGTH_MS = 25
FRAME_SHIFT_MS = 10
MEL_MEAN = -4.2677393  # AudioSet statistics of AudioMAE
MEL_STD = 4.5689974
MIN_SAMPLE_RATE_HZ = 4000  # below it the 128 triangular filters no longer cover a bin each


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


class LogMelStream:
    """Log-mel frames of a mono stream, each as soon as its window is full.

    Kaldi removes each window's own mean, so the authors' subtraction of the whole clip's mean changes nothing, and a
    stream gives the same frames as the whole file.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        if sample_rate_hz < MIN_SAMPLE_RATE_HZ:
            raise UsageError(f"sample rate {sample_rate_hz} Hz", f"at least {MIN_SAMPLE_RATE_HZ} Hz")
        options = kaldi_native_fbank.FbankOptions()
        options.frame_opts.samp_freq = float(sample_rate_hz)
        options.frame_opts.frame_length_ms = float(FRAME_LENGTH_MS)
        options.frame_opts.frame_shift_ms = float(FRAME_SHIFT_MS)
        options.frame_opts.dither = 0.0
        options.frame_opts.window_type = "hanning"
        options.frame_opts.snip_edges = True
        options.mel_opts.num_bins = NUM_MEL_BINS
        options.use_energy = False
        options.htk_compat = True
        self.sample_rate_hz = sample_rate_hz
        self.row_s = frame_shift_samples(sample_rate_hz) / sample_rate_hz
        self._fbank = kaldi_native_fbank.OnlineFbank(options)
        self._emitted = 0

    def accept(self, samples: np.ndarray) -> np.ndarray:
        """Take float32 (n,) samples; return the frames they complete, float32 (m, 128)."""
        if len(samples):
            self._fbank.accept_waveform(float(self.sample_rate_hz), np.ascontiguousarray(samples, np.float32))
        ready = self._fbank.num_frames_ready
        rows = np.zeros((ready - self._emitted, NUM_MEL_BINS), np.float32)
        for row, index in enumerate(range(self._emitted, ready)):
            rows[row] = self._fbank.get_frame(index)  # a view into memory that pop() frees
        # The library keeps every frame until it is popped.
        self._fbank.pop(ready - self._emitted)
        self._emitted = ready
        return rows
