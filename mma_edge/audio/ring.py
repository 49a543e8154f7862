"""The newest sound of a stream, addressed by presentation time: its log-mel, and how much of it is speech."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mma_edge.audio.logmel import LogMelStream, pad_mel
from mma_edge.types import AudioChunk

GAP_TOLERANCE_S = 0.05
"""Smaller PTS jitter is rounding in the container's time base; a larger gap is a hole in the sound."""
BLOCK_S = 0.1
"""Samples wait until there are so many of them, or until somebody asks for rows. A file's blocks hold 20 ms, and for so
few a call takes as long as its work."""
SPEECH_PROBABILITY = 0.5
"""From this probability a frame counts as speech (Silero's own threshold)."""


class RowStream(Protocol):
    """What turns the samples of one sound into rows at a fixed distance, each as soon as it can."""

    sample_rate_hz: int
    row_s: float  # from the beginning of one row to that of the next

    def accept(self, samples: np.ndarray) -> np.ndarray:
        """float32 (n,) samples -> the rows that they complete, float32 (m, ...)."""


class Ring:
    """Turns audio chunks into rows and keeps those of the last `capacity_s`; older ones are forgotten.

    A hole in the sound (lost packets, a stalled microphone) becomes silence of the same length, so that later sound
    stays on the clock; overlapping samples are cut.
    """

    def __init__(self, capacity_s: float, open_stream: Callable[[int], RowStream]) -> None:
        """`open_stream` makes the stream for a sample rate, and a new one where the sound starts again."""
        self._capacity_s, self._open_stream = capacity_s, open_stream
        self._stream: RowStream | None = None
        self._origin_s = 0.0
        self._samples_in = 0
        self._waiting: list[np.ndarray] = []  # samples that the stream has not taken yet
        self._num_waiting = 0
        self._first_row = 0
        self._rows = np.zeros(0, np.float32)
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
            # No kept row can share a window with the new sound (a cut, a clock set back): start at the new time.
            self._restart(chunk)
        elif gap_s > GAP_TOLERANCE_S:
            self._push(np.zeros(round(gap_s * chunk.sample_rate_hz), np.float32))
        elif gap_s < -GAP_TOLERANCE_S:
            samples = samples[round(-gap_s * chunk.sample_rate_hz) :]
        self._push(samples)
        self.newest_arrival_s = chunk.arrival_s

    def rows(self, start_s: float, end_s: float) -> np.ndarray:
        """The rows that begin in [start_s, end_s), float32 (m, ...), m = 0 where there are none."""
        if self._stream is None:
            return self._rows
        self._flush()
        lower = max(0, self._number(start_s) - self._first_row)
        return self._rows[lower : max(lower, self._number(end_s) - self._first_row)]

    def first_s(self, start_s: float) -> float:
        """When the first of `rows` begins: the sound may have begun after `start_s`."""
        return self._origin_s + max(self._first_row, self._number(start_s)) * self._stream.row_s

    def _number(self, time_s: float) -> int:
        """Number of the first row that begins at or after a time."""
        # With the epsilon, rounding cannot decide about a row that begins exactly on the border.
        return int(np.ceil((time_s - self._origin_s) / self._stream.row_s - 1e-6))

    def _restart(self, chunk: AudioChunk) -> None:
        self._stream = self._open_stream(chunk.sample_rate_hz)
        self._origin_s, self._samples_in, self._first_row = chunk.time_s, 0, 0
        self._waiting, self._num_waiting = [], 0
        self._rows = self._stream.accept(np.zeros(0, np.float32))  # none yet, of the right shape

    def _push(self, samples: np.ndarray) -> None:
        self._samples_in += len(samples)
        self._num_waiting += len(samples)
        self._waiting.append(samples)
        if self._num_waiting >= BLOCK_S * self._stream.sample_rate_hz:
            self._flush()

    def _flush(self) -> None:
        """Turn the samples that wait into rows."""
        if not self._num_waiting:
            return
        new = self._stream.accept(np.concatenate(self._waiting))
        self._waiting, self._num_waiting = [], 0
        if len(new) == 0:
            return
        rows = np.concatenate([self._rows, new])
        surplus = max(0, len(rows) - round(self._capacity_s / self._stream.row_s))
        self._rows, self._first_row = rows[surplus:], self._first_row + surplus


class MelRing(Ring):
    """The newest log-mel."""

    def __init__(self, capacity_s: float) -> None:
        super().__init__(capacity_s, LogMelStream)

    def window(self, start_s: float, end_s: float) -> np.ndarray | None:
        """Log-mel of [start_s, end_s): float32 (512, 128), zero-padded; None when it has no row.

        Row 0 is the first mel frame that begins at or after `start_s`; the last row begins before `end_s`.
        """
        rows = self.rows(start_s, end_s)
        return pad_mel(rows) if len(rows) else None


@dataclass(frozen=True)
class VoiceGate:
    """Decides whether a clip has a voice. Silence and noise are no voice: fed as one they would be read as one."""

    open_stream: Callable[[int], RowStream]  # rows are probabilities of speech: `VoiceDetector.stream`
    least_share: float  # of speech, from 0 to 1; with less a clip has no sound


class ClipSound:
    """The newest sound for clips: its log-mel, or none where a gate hears no voice in it."""

    def __init__(self, capacity_s: float, gate: VoiceGate | None) -> None:
        """Without a gate all sound is let through, and nobody says how much of it is speech."""
        self._mel = MelRing(capacity_s)
        self._gate, self._voice = gate, Ring(capacity_s, gate.open_stream) if gate else None

    @property
    def newest_arrival_s(self) -> float:
        return self._mel.newest_arrival_s

    def accept(self, chunk: AudioChunk) -> None:
        self._mel.accept(chunk)
        if self._voice:
            self._voice.accept(chunk)

    def window(self, start_s: float, end_s: float) -> tuple[np.ndarray | None, float | None]:
        """Log-mel of [start_s, end_s), see `MelRing.window`, and the share of speech in its sound, from 0 to 1.

        The share is None without sound and without a gate. Sound is never cut: a window has all of it or none.
        """
        mel = self._mel.window(start_s, end_s)
        if mel is None or self._voice is None:
            return mel, None
        rows = self._voice.rows(start_s, end_s)
        share = float((rows >= SPEECH_PROBABILITY).mean()) if len(rows) else 0.0
        return (mel if share >= self._gate.least_share else None), share

    def first_s(self, start_s: float) -> float:
        """When the first row of the log-mel of a window from `start_s` on begins; only where it has one."""
        return self._mel.first_s(start_s)
