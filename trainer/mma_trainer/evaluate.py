"""UAR, WAR and confusion of a checkpoint or of a bundle, on the same clips through the same inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mma_edge.audio.logmel import NUM_MEL_BINS, NUM_MEL_FRAMES
from mma_edge.clip import NUM_FRAMES
from mma_edge.errors import DataError
from mma_trainer.data.evalsets import EvalSet
from mma_trainer.metrics import Metrics, metrics_of

Predict = Callable[[np.ndarray | None, np.ndarray | None], np.ndarray]
"""(frames uint8 (N, 16, S, S, 3) or None, mel float32 (N, 512, 128) or None) -> scores (N, C) whose softmax is P."""


def evaluate(
    predict: Predict, clips: EvalSet, num_classes: int, progress: Callable[[int], None] | None = None
) -> Metrics:
    """Run all clips of a set; `progress` is told the number of clips done after each batch."""
    if clips.labels.max(initial=0) >= num_classes:
        raise DataError(
            f"set {clips.name} has class {int(clips.labels.max())}", f"classes below the model's {num_classes}"
        )
    scores, done = [], 0
    for frames, mel, labels in clips.batches():
        scores.append(predict(frames, mel))
        done += len(labels)
        if progress:
            progress(done)
    return metrics_of(clips.labels, np.concatenate(scores))


def checkpoint_predictor(path: Path) -> tuple[Predict, tuple[str, ...], int]:
    """Predictor on PyTorch, labels and image size; a missing modality is fed as the runtime feeds it."""
    import torch

    from mma_trainer.checkpoint import load_checkpoint
    from mma_trainer.model.inputs import ContractModel

    model = ContractModel(load_checkpoint(path))
    config = model.model.config
    S = config.image_size

    def predict(frames: np.ndarray | None, mel: np.ndarray | None) -> np.ndarray:
        count = len(frames) if frames is not None else len(mel)
        frames = np.zeros((count, NUM_FRAMES, S, S, 3), np.uint8) if frames is None else frames
        mel = np.zeros((count, NUM_MEL_FRAMES, NUM_MEL_BINS), np.float32) if mel is None else mel
        with torch.inference_mode():
            return model(torch.from_numpy(frames), torch.from_numpy(mel)).numpy()

    return predict, config.labels, S


def bundle_predictor(folder: Path | None, backend: str = "auto") -> tuple[Predict, tuple[str, ...], int]:
    """Predictor on the runtime's own `Recognizer.predict`, labels and image size."""
    import mma_edge

    recognizer = mma_edge.load(folder, backend)

    def predict(frames: np.ndarray | None, mel: np.ndarray | None) -> np.ndarray:
        # Logarithms: metrics take scores whose softmax are the probabilities.
        return np.log(np.maximum(recognizer.predict(frames, mel), 1e-30))

    return predict, recognizer.labels, recognizer.image_size
