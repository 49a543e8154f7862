"""The gate: an exported graph must compute what the PyTorch model computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mma_edge.bundle import golden_inputs
from mma_edge.engines.cpu import OnnxCpuEngine
from mma_edge.errors import ParityError
from mma_trainer.model import MMADFER
from mma_trainer.model.inputs import ContractModel

LIMITS = {"fp32": 1e-4}
"""Largest allowed absolute difference of a logit, per precision."""
BATCHES = (1, 3)


def reference_logits(model: MMADFER, seed: int, clips: int) -> np.ndarray:
    """PyTorch's logits (clips, C) on the seeded inputs."""
    frames, mel = golden_inputs(seed, model.config.image_size, clips)
    with torch.inference_mode():
        return ContractModel(model).eval()(torch.from_numpy(frames), torch.from_numpy(mel)).numpy()


def check_parity(model: MMADFER, graph: Path, precision: str) -> dict[str, float]:
    """Largest difference from PyTorch at batch 1 and 3, as the manifest stores it.

    Raises:
        ParityError: above the precision's limit.
    """
    engine = OnnxCpuEngine(graph, precision)
    figures = {}
    for seed, clips in enumerate(BATCHES, 1):
        frames, mel = golden_inputs(seed, model.config.image_size, clips)
        difference = float(np.abs(engine(frames, mel) - reference_logits(model, seed, clips)).max())
        if not difference <= LIMITS[precision]:  # NaN fails too
            raise ParityError(
                f"{precision} graph differs from PyTorch by {difference:.2e} at batch {clips}",
                f"at most {LIMITS[precision]:.0e}",
                "no bundle was written; report this with your torch and onnxruntime versions",
            )
        figures[f"max_abs_logit_difference_batch_{clips}"] = difference
    return figures
