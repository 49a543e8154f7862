"""A checkpoint as mma-eval needs it: a predictor on PyTorch, and a file that takes a fitted temperature."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mma_edge.bundle.manifest import read_temperatures
from mma_edge.clip import input_shapes
from mma_edge.errors import CheckpointError, UsageError
from mma_edge.predictor import cool, softmax
from mma_trainer.evaluation.predict import Predictor
from mma_trainer.model.inputs import ContractModel
from mma_trainer.weights.checkpoint import build_model, read_checkpoint, save_checkpoint


def checkpoint_predictor(path: Path, device: str = "cpu") -> Predictor:
    """A checkpoint on PyTorch; a missing modality is fed and calibrated as the runtime does it."""
    checkpoint = read_checkpoint(path)
    try:
        temperatures = read_temperatures(checkpoint.provenance.get("calibration", {}).get("temperature", 1.0))
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: {error}", hint="calibrate it again with mma-eval --calibrate") from error
    model = ContractModel(build_model(checkpoint, path))
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {device} cannot be used", "cpu or a CUDA device of this machine") from error
    model.to(device)
    shapes = input_shapes(checkpoint.config.image_size)

    def predict(frames: np.ndarray | None, mel: np.ndarray | None) -> np.ndarray:
        count = len(mel if frames is None else frames)
        frames = np.zeros((count, *shapes["frames"]), np.uint8) if frames is None else frames
        mel = np.zeros((count, *shapes["mel"]), np.float32) if mel is None else mel
        with torch.inference_mode():
            inputs = (torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in (frames, mel))
            logits = model(*inputs).float().cpu().numpy()
        return softmax(cool(logits, frames, mel, temperatures))

    return Predictor(predict, checkpoint.config.labels, checkpoint.config.image_size, temperatures)


def calibrate_checkpoint(path: Path, record: dict) -> None:
    """Write a calibration (`evaluation.figures.calibration_record`) into the provenance of a checkpoint.

    Raises:
        UsageError: the file is the authors' own and would have to be rewritten in another format.
        CheckpointError: it cannot be read or written; what was there stays as it was.
    """
    checkpoint = read_checkpoint(path)
    if "layout" in str(checkpoint.provenance.get("origin", "")):
        what = f"{path} is in the authors' format, which has no place for a temperature"
        raise UsageError(what, "a checkpoint of mma-train or a bundle", "mma-export it and calibrate the bundle")
    floats = [tensor for tensor in checkpoint.state_dict.values() if tensor.is_floating_point()]
    # A file of float16 tensors is written as one again: nothing is lost a second time.
    half = all((tensor.half().float() == tensor).all() for tensor in floats)
    save_checkpoint(path, replace(checkpoint, provenance={**checkpoint.provenance, "calibration": record}), half=half)
