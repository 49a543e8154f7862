"""The gate of a TensorRT engine: on this device, on real clips, against the fp32 graph of the same bundle.

TensorRT engines of vision transformers have been silently wrong, even in fp32, so no engine is kept unchecked.

    fp32        largest difference of a logit at most 1e-2 (TF32 is off)
    fp16, bf16  the same class comes first in at least 99.5 % of the clips
    int8        the same class comes first in at least 98 % of the clips

The clips are real, as they are and with one modality missing. The bundle's golden inputs (noise) count for fp32's
difference as well, and their logits must be as close to the golden logits as the self-test at opening demands.
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
"""Where the two best fp32 logits are closer than this, either class may come first."""
HOP_S = 0.25
CLIPS = (16, 4, 4)
"""How many clips have both modalities, only the video, only the sound. The reference runs on the processor, where a
ViT-B takes seconds per clip on a small board."""


def gate_inputs(clips: Sequence[Clip]) -> tuple[np.ndarray, np.ndarray]:
    """The inputs that an engine is judged on: frames uint8 (N, 16, S, S, 3), mel float32 (N, 512, 128).

    Up to 16 of the clips that have both modalities, evenly spread, then up to 4 with only the video and 4 with only
    the sound.
    """
    both = [(clip.frames, clip.mel) for clip in clips if clip.frames is not None and clip.mel is not None]
    whole, video, audio = ([both[row] for row in evenly(len(both), count)] for count in CLIPS)
    chosen = [*whole, *((frames, np.zeros_like(mel)) for frames, mel in video)]
    chosen += [(np.zeros_like(frames), mel) for frames, mel in audio]
    return np.stack([frames for frames, _ in chosen]), np.stack([mel for _, mel in chosen])


def check_engine(
    bundle: Bundle, engine: Engine, frames: np.ndarray, mel: np.ndarray, tell: Tell = lambda message: None
) -> dict[str, Any]:
    """The figures of an engine of this bundle that passes on the inputs of `gate_inputs`; ParityError for others.

    The reference is the bundle's fp32 graph; where it has none, the graph of the engine's precision. `tell` takes
    {"phase": "gate", "steps"} and {"phase": "gate", "step"}.
    """
    precision = engine.precision
    golden_frames, golden_mel, golden, _ = bundle.golden
    reference_precision = "fp32" if "fp32" in bundle.precisions else precision
    session, version = open_session(bundle.graph(reference_precision))
    clips = [{"frames": frames[row : row + 1], "mel": mel[row : row + 1]} for row in range(len(frames))]
    reference = []
    tell({"phase": "gate", "steps": len(clips)})
    for step, clip in enumerate(clips, 1):
        reference.append(session.run(["logits"], clip)[0][0])
        tell({"phase": "gate", "step": step})
    # Every batch size that will be used: one clip, then full batches and a rest.
    alone = np.concatenate([engine(**clip) for clip in clips])
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
    """Compare logits float32 (N, C), computed clip by clip and in batches, with the reference: the worse figures."""
    ways = [agreement(reference, logits, TIE) for logits in (alone, together)]
    # Every comparison with NaN is false: the maximum could hide it.
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
    """None when the figures pass, else what was found and what was expected; `tolerance` is the self-test's."""
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
    """Median time on the device for one clip, copies included; None when the engine does not measure it."""
    if not hasattr(engine, "device_ms"):
        return None
    times_ms = []
    for _ in range(repeat):
        engine(frames[:1], mel[:1])
        times_ms.append(engine.device_ms)
    return float(np.median(times_ms))
