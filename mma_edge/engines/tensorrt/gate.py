"""The gate of a TensorRT engine: on this device, on real clips, against the fp32 graph of the same bundle.

Vision transformers have come out of TensorRT silently wrong, in fp32 too, so no engine is kept unseen.

    fp32        largest difference of a logit at most 1e-2 (TF32 is off)
    fp16, bf16  the same class first in at least 99.5 % of the clips
    int8        in at least 98 %

The clips are real ones, as they are and with one modality missing. The bundle's golden inputs (noise) count for fp32's
difference, and must come out as near to the golden logits as the self-test asks whenever the engine is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mma_edge.bundle import Bundle
from mma_edge.child import Tell
from mma_edge.clip import evenly
from mma_edge.engines.agreement import agreement
from mma_edge.engines.base import Engine
from mma_edge.engines.session import open_session
from mma_edge.errors import ParityError
from mma_edge.precisions import MIN_TOP1_AGREEMENT
from mma_edge.types import Clip

MAX_FP32_DIFFERENCE = 1e-2
TIE = 1e-2
"""Where the two best fp32 logits lie closer than this either of them may come first."""
HOP_S = 0.25
WHOLE_CLIPS, VIDEO_ONLY, AUDIO_ONLY = 16, 4, 4
"""Number of clips; the reference runs on the processor, seconds per clip for a ViT-B on a small board."""


def gate_inputs(clips: Sequence[Clip]) -> tuple[np.ndarray, np.ndarray]:
    """What an engine is judged on: frames uint8 (N, 16, S, S, 3), mel float32 (N, 512, 128).

    Up to 16 of the clips that have both modalities, evenly spread, then up to 4 with the video and 4 with the sound
    alone.
    """
    both = [(clip.frames, clip.mel) for clip in clips if clip.frames is not None and clip.mel is not None]
    chosen = _spread(both, WHOLE_CLIPS)
    chosen += [(frames, np.zeros_like(mel)) for frames, mel in _spread(both, VIDEO_ONLY)]
    chosen += [(np.zeros_like(frames), mel) for frames, mel in _spread(both, AUDIO_ONLY)]
    return np.stack([frames for frames, _ in chosen]), np.stack([mel for _, mel in chosen])


def check_engine(
    bundle: Bundle, engine: Engine, frames: np.ndarray, mel: np.ndarray, tell: Tell = lambda message: None
) -> dict[str, Any]:
    """Figures of an engine that passes.

    Args:
        bundle: with fp32 the reference is its fp32 graph, without it the graph of the same precision.
        engine: of this bundle.
        frames, mel: see `gate_inputs`.
        tell: takes {"phase": "gate", "steps"} and {"phase": "gate", "step"}.

    Raises:
        ParityError: it does not pass.
    """
    precision = engine.precision
    golden_frames, golden_mel, golden, _ = bundle.golden
    reference_precision = "fp32" if "fp32" in bundle.precisions else precision
    session, version = open_session(bundle.graph(reference_precision))
    reference = []
    tell({"phase": "gate", "steps": len(frames)})
    for row in range(len(frames)):
        inputs = {"frames": frames[row : row + 1], "mel": mel[row : row + 1]}
        reference.append(session.run(["logits"], inputs)[0][0])
        tell({"phase": "gate", "step": row + 1})
    # Every batch size that will be used: 1 alone, then full batches with a rest.
    alone = np.concatenate([engine(frames[row : row + 1], mel[row : row + 1]) for row in range(len(frames))])
    together = engine(frames, mel)
    figures = compare(np.stack(reference).astype(np.float32), alone, together)
    golden_difference = float(np.abs(engine(golden_frames, golden_mel) - golden).max())
    figures |= {
        "golden_difference": golden_difference,
        "reference": f"{reference_precision} on onnxruntime {version} CPU",
        "device_ms_per_clip": _device_ms(engine, frames, mel),
    }
    if missed := shortcoming(precision, figures, bundle.tolerance(precision)):
        raise ParityError(
            f"the TensorRT engine for {precision} computes something else than the bundle: {missed[0]}",
            missed[1],
            "it was not kept; take another --precision, or another TensorRT version",
        )
    return figures


def compare(reference: np.ndarray, alone: np.ndarray, together: np.ndarray) -> dict[str, Any]:
    """Figures of logits float32 (N, C), computed clip by clip and in batches, against the reference: the worse ones."""
    ways = [agreement(reference, logits, TIE) for logits in (alone, together)]
    # NaN compares as false everywhere: it would otherwise hide behind the maximum.
    finite = all(way.finite for way in ways)
    worst = max(ways, key=lambda way: way.max_difference) if finite else None
    return {
        "clips": len(reference),
        "finite": finite,
        "max_difference": worst and worst.max_difference,
        "mean_difference": worst and worst.mean_difference,
        "cosine": worst and worst.min_cosine,
        "top1_agreement": min(way.top1 for way in ways) if finite else 0.0,
    }


def shortcoming(precision: str, figures: dict[str, Any], tolerance: float) -> tuple[str, str] | None:
    """None when the figures pass, else what they are and what they had to be; `tolerance` is the self-test's."""
    if not figures["finite"] or not np.isfinite(figures["golden_difference"]):
        return "its logits are not finite", "finite logits"
    if precision == "fp32":
        difference = max(figures["max_difference"], figures["golden_difference"])
        if not difference <= MAX_FP32_DIFFERENCE:
            return f"logits differ by up to {difference:.2e}", f"at most {MAX_FP32_DIFFERENCE:.0e}"
    elif not figures["top1_agreement"] >= MIN_TOP1_AGREEMENT[precision]:
        return (
            f"the same class comes first in {figures['top1_agreement']:.1%} of {figures['clips']} clips",
            f"at least {MIN_TOP1_AGREEMENT[precision]:.1%}",
        )
    if not figures["golden_difference"] <= tolerance:
        return f"it differs from the golden output by {figures['golden_difference']:.2e}", f"at most {tolerance:.0e}"
    return None


def _device_ms(engine: Engine, frames: np.ndarray, mel: np.ndarray, repeat: int = 20) -> float | None:
    """Median time on the device for one clip, copies included; None for an engine that does not measure it."""
    if not hasattr(engine, "device_ms"):
        return None
    times_ms = []
    for _ in range(repeat):
        engine(frames[:1], mel[:1])
        times_ms.append(engine.device_ms)
    return float(np.median(times_ms))


def _spread(clips: list, count: int) -> list:
    return [clips[row] for row in evenly(len(clips), count)]
