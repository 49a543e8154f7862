"""Sound of a video as a wav: the first channel, at its own rate, on the video's clock."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import soundfile

from mma_edge.audio.logmel import frame_length_samples
from mma_edge.audio.ring import GAP_TOLERANCE_S
from mma_edge.clip import LONGEST_SOUND_S
from mma_edge.errors import OutputError
from mma_edge.files import replaced
from mma_edge.sources.base import SourceStats
from mma_edge.sources.tracks import AudioTrack
from mma_edge.types import AudioChunk


class Sound:
    """First channel of a file's sound on its clock: a hole becomes silence, an overlap is cut, as the runtime does."""

    def __init__(self) -> None:
        self.rate_hz, self.samples = 1, 0
        self._parts: list[np.ndarray] = []
        self._start_s = 0.0
        self._over = False

    def add(self, chunk: AudioChunk) -> None:
        if not self._parts:
            self.rate_hz, self._start_s = chunk.sample_rate_hz, chunk.time_s
        samples = chunk.samples[0]
        gap_s = chunk.time_s - (self._start_s + self.samples / self.rate_hz)
        if abs(gap_s) > 2 * LONGEST_SOUND_S:
            self._over = True  # a cut; the model hears the first 5.12 s only
        if self._over:
            return
        if gap_s > GAP_TOLERANCE_S:
            self._append(np.zeros(round(gap_s * self.rate_hz), np.float32))
        elif gap_s < -GAP_TOLERANCE_S:
            samples = samples[round(-gap_s * self.rate_hz) :]
        self._append(samples)

    def _append(self, samples: np.ndarray) -> None:
        self._parts.append(samples)
        self.samples += len(samples)

    def wave(self) -> np.ndarray:
        """float32 (n,), at `rate_hz`; there must be samples."""
        return np.concatenate(self._parts)

    def write(self, path: Path) -> None:
        """A wav, whole or not at all; OutputError where it cannot be written."""
        try:
            with replaced(path) as aside:
                soundfile.write(aside, self.wave(), self.rate_hz, format="WAV", subtype="FLOAT")
        except (OSError, soundfile.LibsndfileError) as error:
            what = f"{path} cannot be written ({error})"
            raise OutputError(what, "free disk space", "repeat the command to go on") from error


def extract_sound(job: tuple[Path, Path]) -> str | None:
    """Write the sound of a video (job[0]) to a wav (job[1]), whole or not at all, without decoding its pictures.

    Returns None, or the reason why the video gives no wav; OutputError where a wav cannot be written.
    """
    video, wav = job
    sound = Sound()
    try:
        with av.open(f"file:{video}", options={"protocol_whitelist": "file"}) as container:
            if not container.streams.audio:
                return "no audio track"
            for chunk in AudioTrack(container, container.streams.audio[0], SourceStats(), video.name).events():
                sound.add(chunk)
    except (av.FFmpegError, OSError) as error:
        return f"cannot be read ({type(error).__name__}: {error})"
    if sound.samples < frame_length_samples(sound.rate_hz):
        return f"sound of {sound.samples} samples, less than a window of the log-mel"
    sound.write(wav)
    return None
