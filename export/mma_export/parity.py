"""The gate of the float32 graphs: they must compute what the PyTorch model computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from mma_edge.bundle import golden_inputs
from mma_edge.engines.agreement import agreement
from mma_edge.engines.cpu import OnnxCpuEngine
from mma_edge.errors import ParityError
from mma_trainer.model import MMADFER
from mma_trainer.model.inputs import ContractModel

LIMIT = 1e-4
"""Largest allowed absolute difference of a logit."""
BATCHES = (1, 3)


def reference_logits(model: MMADFER, seed: int, clips: int) -> np.ndarray:
    """PyTorch's logits (clips, C) on the seeded inputs."""
    frames, mel = golden_inputs(seed, model.config.image_size, clips)
    with torch.inference_mode():
        return ContractModel(model).eval()(torch.from_numpy(frames), torch.from_numpy(mel)).numpy()


def check_parity(model: MMADFER, graph: Path) -> dict[str, float]:
    """Largest difference from PyTorch at batch 1 and 3, as the manifest stores it.

    Raises:
        ParityError: above LIMIT.
    """
    engine, size = OnnxCpuEngine(graph, "fp32"), model.config.image_size

    def both(seed: int, clips: int) -> tuple[np.ndarray, np.ndarray]:
        return engine(*golden_inputs(seed, size, clips)), reference_logits(model, seed, clips)

    return check_batches("fp32 graph differs from PyTorch", BATCHES, both)


def check_batches(
    claim: str, batches: Sequence[int], both: Callable[[int, int], tuple[np.ndarray, np.ndarray]]
) -> dict[str, float]:
    """Largest difference of a logit at each batch size, as the manifest stores it.

    Args:
        claim: what the message says of a difference that is too large.
        both: seed and number of clips -> logits (clips, C), and those that they should be.

    Raises:
        ParityError: above LIMIT.
    """
    figures = {}
    for seed, clips in enumerate(batches, 1):
        logits, expected = both(seed, clips)
        difference = agreement(expected, logits).max_difference
        if not difference <= LIMIT:  # NaN fails too
            raise ParityError(
                f"{claim} by {difference:.2e} at batch {clips}",
                f"at most {LIMIT:.0e}",
                "no bundle was written; report this with your torch and onnxruntime versions",
            )
        figures[f"max_abs_logit_difference_batch_{clips}"] = difference
    return figures
