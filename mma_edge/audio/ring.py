"""The newest log-mel frames of a stream, addressed by presentation time."""

from __future__ import annotations

import numpy as np

from mma_edge.audio.logmel import NUM_MEL_BINS, LogMelStream, frame_shift_samples, pad_mel
from mma_edge.types import AudioChunk

GAP_TOLERANCE_S = 0.05
"""Smaller PTS jitter is rounding in the container's time base; a larger gap is a hole in the sound."""


class MelRing:
    """Turns audio chunks into log-mel frames and gives any window of the last `capacity_s`; older ones are forgotten.

    A hole in the sound (lost packets, a stalled microphone) becomes silence of the same length, so that later sound
    stays on the clock; overlapping samples are cut.
    """

    def __init__(self, capacity_s: float) -> None:
        self._capacity_s = capacity_s
        self._stream: LogMelStream | None = None
        self._origin_s = 0.0
        self._samples_in = 0
        self._first_row = 0
        self._rows = np.zeros((0, NUM_MEL_BINS), np.float32)
        self.newest_arrival_s = 0.0

    @property
    def end_s(self) -> float | None:
        """Presentation time at which the sound received so far ends, None before the first chunk."""
        if self._stream is None:
            return None
        return self._origin_s + self._samples_in / self._stream.sample_rate_hz

    def accept(self, chunk: AudioChunk) -> None:
        """Add the next chunk; only its first channel is used, as in the authors' loader."""
        samples = chunk.samples[0]
        if self._stream is None or self._stream.sample_rate_hz != chunk.sample_rate_hz:
            self._restart(chunk)
        gap_s = chunk.time_s - self.end_s
        if abs(gap_s) > self._capacity_s:
            # No kept frame can share a window with the new sound (a cut, a clock set back): start at the new time.
            self._restart(chunk)
        elif gap_s > GAP_TOLERANCE_S:
            self._push(np.zeros(round(gap_s * chunk.sample_rate_hz), np.float32))
        elif gap_s < -GAP_TOLERANCE_S:
            samples = samples[round(-gap_s * chunk.sample_rate_hz) :]
        self._push(samples)
        self.newest_arrival_s = chunk.arrival_s

    def _restart(self, chunk: AudioChunk) -> None:
        self._stream = LogMelStream(chunk.sample_rate_hz)
        self._origin_s, self._samples_in, self._first_row = chunk.time_s, 0, 0
        self._rows = np.zeros((0, NUM_MEL_BINS), np.float32)

    def _push(self, samples: np.ndarray) -> None:
        self._samples_in += len(samples)
        new = self._stream.accept(samples)
        if len(new) == 0:
            return
        rows = np.concatenate([self._rows, new])
        surplus = max(0, len(rows) - round(self._capacity_s / self._row_s))
        self._rows, self._first_row = rows[surplus:], self._first_row + surplus

    @property
    def _row_s(self) -> float:
        return frame_shift_samples(self._stream.sample_rate_hz) / self._stream.sample_rate_hz

    def window(self, start_s: float, end_s: float) -> np.ndarray | None:
        """Log-mel of [start_s, end_s): float32 (512, 128), zero-padded; None when it has no frame.

        Row 0 is the first mel frame that begins at or after `start_s`; the last row begins before `end_s`.
        """
        if self._stream is None:
            return None
        # With the epsilon, rounding cannot decide about a row that begins exactly on the border.
        first, last = (int(np.ceil((t - self._origin_s) / self._row_s - 1e-6)) for t in (start_s, end_s))
        lower = max(first, self._first_row, 0)
        upper = min(last, self._first_row + len(self._rows))
        if upper <= lower:
            return None
        return pad_mel(self._rows[lower - self._first_row : upper - self._first_row])
