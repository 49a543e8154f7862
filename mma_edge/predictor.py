"""From clips to emotions: engine, calibration and missing modalities."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from mma_edge.bundle import Bundle
from mma_edge.bundle.manifest import MODALITIES
from mma_edge.clip import batch_of, input_shapes
from mma_edge.engines.base import INPUTS, Engine
from mma_edge.errors import UsageError
from mma_edge.types import Clip, Emotion


class Predictor:
    """A model ready to predict. `labels` are in the order of the probabilities, `image_size` is the side S of the face
    crops in pixels; `backend` and `precision` are the engine's (see `Engine`), `notes` the bundle's and the engine's.
    """

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self.bundle, self.engine = bundle, engine
        self.labels, self.image_size = bundle.labels, bundle.image_size
        self.backend, self.precision = engine.backend, engine.precision
        self.notes: tuple[str, ...] = (*bundle.notes, *engine.notes)
        self.max_batch: int | None = engine.max_batch  # see `Engine`
        self.streaming_graphs: dict[str, Any] = {}  # mode -> what `mma_edge.streaming` opened for it
        self._temperatures = bundle.temperatures

    def predict(self, frames: np.ndarray | None = None, mel: np.ndarray | None = None) -> np.ndarray:
        """Probabilities of a batch of clips.

        The model gets for a missing modality what it got in training: the authors' zeros before normalisation for no
        sound, black frames for no face. Its manifest says whether it was trained with missing modalities
        (`missing_modality.trained`; the default model was). Clips of black frames, or of zeros in `mel`, count as
        missing too: the engine cannot tell the difference.

        Args:
            frames: uint8 (N, 16, S, S, 3) RGB face crops, or None.
            mel: float32 (N, 512, 128) log-mel before normalisation (`mma_edge.audio.log_mel`), or None.

        Returns:
            float32 (N, C), rows sum to 1, calibrated by the bundle's temperature for the modalities of each clip.

        Raises:
            UsageError: both are None, a wrong shape or dtype, or different N.
        """
        if frames is None and mel is None:
            raise UsageError("predict() got neither frames nor mel", "at least one of them")
        shapes = input_shapes(self.image_size)
        for name, array in (("frames", frames), ("mel", mel)):
            if array is not None:
                _check(name, array, shapes[name], np.dtype(INPUTS[name]))
        counts = {len(array) for array in (frames, mel) if array is not None}
        if len(counts) > 1:
            raise UsageError(f"{len(frames)} clips of frames and {len(mel)} of mel", "the same number")
        count = counts.pop()
        if count == 0:
            return np.zeros((0, len(self.labels)), np.float32)
        if frames is None:
            frames = np.zeros((count, *shapes["frames"]), np.uint8)
        if mel is None:
            mel = np.zeros((count, *shapes["mel"]), np.float32)
        return self.probabilities(self.engine(frames, mel), frames, mel)

    def probabilities(self, logits: np.ndarray, frames: np.ndarray, mel: np.ndarray) -> np.ndarray:
        """Calibrated probabilities float32 (N, C), rows sum to 1, from the logits (N, C) of these inputs."""
        return softmax(cool(logits, frames, mel, self._temperatures))

    def predict_clips(self, clips: Sequence[Clip]) -> list[Emotion]:
        """One Emotion per clip, all in one call of the engine."""
        return self.emotions(clips, self.predict(*batch_of(clips, self.image_size))) if clips else []

    def emotions(self, clips: Sequence[Clip], probabilities: np.ndarray) -> list[Emotion]:
        """One Emotion per clip from the probabilities (N, C); ages count up to now."""
        now = time.monotonic()
        return [
            Emotion(
                start_s=clip.start_s,
                end_s=clip.end_s,
                track_id=clip.track_id,
                box=clip.box,
                modalities=("video",) * (clip.frames is not None) + ("audio",) * (clip.mel is not None),
                labels=self.labels,
                probabilities=row,
                age_ms=1000 * (now - clip.newest_arrival_s),
                voice=clip.voice,
            )
            for clip, row in zip(clips, probabilities, strict=True)
        ]


def modalities(frames: np.ndarray, mel: np.ndarray) -> np.ndarray:
    """The modalities that each clip has: int (N,), an index into MODALITIES.

    A modality is missing where all its values are zero, as `Recognizer.predict` feeds it; a clip without either counts
    as having both. Silence is not zero: its log-mel is about -16.
    """
    # The first frame or row is nearly always enough; only where it is zero the rest is read.
    seen = np.array([clip[0].any() or clip.any() for clip in frames], bool)
    heard = np.array([clip[0].any() or clip.any() for clip in mel], bool)
    return np.where(seen == heard, 0, np.where(seen, 1, 2))


def cool(logits: np.ndarray, frames: np.ndarray, mel: np.ndarray, temperatures: dict[str, float]) -> np.ndarray:
    """Logits float32 (N, C) divided by the temperature for the modalities of each clip."""
    values = np.array([temperatures[name] for name in MODALITIES], np.float32)
    if (values == values[0]).all():
        return logits / values[0]
    return logits / values[modalities(frames, mel)][:, None]


def softmax(logits: np.ndarray) -> np.ndarray:
    """float32 (N, C) -> probabilities (N, C)."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


def _check(name: str, array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> None:
    expected = f"{dtype.name} (N, {', '.join(map(str, shape))})"
    if not isinstance(array, np.ndarray):
        raise UsageError(f"{name} is a {type(array).__name__}", f"a numpy array {expected}")
    if array.dtype != dtype or array.shape[1:] != shape or array.ndim != len(shape) + 1:
        raise UsageError(f"{name} is {array.dtype.name} {array.shape}", expected)
