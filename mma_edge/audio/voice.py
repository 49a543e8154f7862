"""Which parts of a sound are speech: Silero VAD 6 (MIT) on onnxruntime's CPU provider.

The network hears 16 kHz mono in frames of 32 ms, each with the 4 ms before it, and keeps a state from frame to frame.
Quiet sound is amplified first, because the network takes quiet speech for silence. (Of 40 clips of RAVDESS, made 40 dB
quieter, it heard speech in 12 % as they were and in all when amplified; no more of the noise became speech.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np

from mma_edge.engines.session import open_detector

ASSETS = Path(__file__).parent.parent / "assets" / "silero"
NETWORK = "silero_vad_16k_op15.onnx"
SAMPLE_RATE_HZ = 16_000
FRAME_SAMPLES, CONTEXT_SAMPLES = 512, 64
FRAME_S = FRAME_SAMPLES / SAMPLE_RATE_HZ
STATE_SHAPE = (2, 1, 128)
TARGET_LEVEL, MAX_GAIN = 0.03, 100.0
"""Root mean square that quiet sound is raised to (-30 dB of full scale), and by how much at most (40 dB)."""
LEVEL_DECAY = 0.5 ** (FRAME_S / 2.0)
"""Per frame: the level follows louder sound at once, and falls by half in 2 s, so that pauses stay quiet."""


class VoiceDetector:
    """The network, opened once; each sound needs a `stream` of its own.

    Raises:
        BundleError: the network is missing or was changed. DependencyError: onnxruntime is not installed.
    """

    def __init__(self, assets: Path = ASSETS) -> None:
        (self._session,) = open_detector("voice detector", Path(assets), (NETWORK,), num_threads=1)

    def stream(self, sample_rate_hz: int) -> VoiceStream:
        """For a new sound at this rate."""
        return VoiceStream(self._session, sample_rate_hz)


class VoiceStream:
    """Probability of speech in each 32 ms of a mono stream, as soon as they are full (at other rates 1 ms later)."""

    row_s = FRAME_S

    def __init__(self, session: Any, sample_rate_hz: int) -> None:
        self.sample_rate_hz = sample_rate_hz
        self._session = session
        self._resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
        self._rate = np.array(SAMPLE_RATE_HZ, np.int64)
        self._state = np.zeros(STATE_SHAPE, np.float32)
        self._level = 0.0
        # The context of the next frame, and what there is of the frame itself.
        self._waiting = np.zeros(CONTEXT_SAMPLES, np.float32)

    def accept(self, samples: np.ndarray) -> np.ndarray:
        """Take float32 (n,) samples; return the probabilities of the frames they complete, float32 (m,)."""
        self._waiting = np.concatenate([self._waiting, *self._resampled(samples)])
        count = (len(self._waiting) - CONTEXT_SAMPLES) // FRAME_SAMPLES
        starts = range(0, count * FRAME_SAMPLES, FRAME_SAMPLES)
        probabilities = [self._step(self._waiting[k : k + CONTEXT_SAMPLES + FRAME_SAMPLES]) for k in starts]
        self._waiting = self._waiting[count * FRAME_SAMPLES :]
        return np.array(probabilities, np.float32)

    def _resampled(self, samples: np.ndarray) -> list[np.ndarray]:
        if not len(samples):
            return []
        plane = np.ascontiguousarray(samples, np.float32)[None]
        frame = av.AudioFrame.from_ndarray(plane, format="flt", layout="mono")
        frame.sample_rate = self.sample_rate_hz
        return [part.to_ndarray()[0] for part in self._resampler.resample(frame)]

    def _step(self, samples: np.ndarray) -> float:
        """Probability of one frame, float32 (576,) with its context."""
        level = float(np.sqrt(np.mean(np.square(samples[CONTEXT_SAMPLES:]))))
        self._level = max(level, LEVEL_DECAY * self._level)
        gain = min(MAX_GAIN, max(1.0, TARGET_LEVEL / max(self._level, 1e-9)))
        inputs = {"input": np.float32(gain) * samples[None], "state": self._state, "sr": self._rate}
        probability, self._state = self._session.run(None, inputs)
        return float(probability[0, 0])
