"""The gate of a TensorRT engine: on this device, on real clips, against the fp32 graph of the same bundle.

TensorRT engines of vision transformers have been silently wrong, even in fp32, so no engine is kept unchecked.

    fp32        largest difference of a logit at most 1e-2 (TF32 is off)
    fp16, bf16  the same class comes first in at least 99.5 % of the clips
    int8        the same class comes first in at least 98 % of the clips

The clips are real, as they are and with one modality missing. The bundle's golden inputs (noise) count for fp32's
difference as well, and their logits must be as close to the golden logits as the self-test at opening demands.

The parts for `--streaming` are judged by the same limits, over windows of several faces, one face at a time and all of
them in one call. Their reference are the fp32 parts on onnxruntime's CPU, which the export compared with the whole
graph: what mode rolling leaves out is not this engine's doing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mma_edge.child import Tell
from mma_edge.clip import evenly
from mma_edge.engines.agreement import agreement
from mma_edge.engines.base import Engine, Part
from mma_edge.engines.cpu import OnnxCpuPart
from mma_edge.engines.session import import_onnxruntime, open_session
from mma_edge.engines.tensorrt.target import BuildOptions, Target
from mma_edge.errors import BundleError, DataError, ParityError
from mma_edge.precisions import MIN_TOP1_AGREEMENT
from mma_edge.streaming import Streamer, StreamingGraphs, golden_difference
from mma_edge.types import Clip

MAX_FP32_DIFFERENCE = 1e-2
TIE = 1e-2
"""Where the two best fp32 logits are closer than this, either class may come first."""
HOP_S = 0.25
CLIPS = (16, 4, 4)
"""How many clips have both modalities, only the video, only the sound. The reference runs on the processor, where a
ViT-B takes seconds per clip on a small board."""
STREAMING_HOP_S, WINDOW_S = 0.5, 4.0
FACES, WINDOWS = 4, 6
"""How many faces the parts are judged on, each from a later window on, and how many windows of each, the last without
sound."""
OF_A_WINDOW = ("frames", "mel", "times_s", "end_s")


def gate_inputs(clips: Sequence[Clip]) -> dict[str, np.ndarray]:
    """What an engine is judged on: frames uint8 (N, 16, S, S, 3), mel float32 (N, 512, 128).

    Up to 16 of the clips that have both modalities, evenly spread, then up to 4 with only the video and 4 with only
    the sound.
    """
    both = [(clip.frames, clip.mel) for clip in clips if clip.frames is not None and clip.mel is not None]
    whole, video, audio = ([both[row] for row in evenly(len(both), count)] for count in CLIPS)
    chosen = [*whole, *((frames, np.zeros_like(mel)) for frames, mel in video)]
    chosen += [(np.zeros_like(frames), mel) for frames, mel in audio]
    return {"frames": np.stack([frames for frames, _ in chosen]), "mel": np.stack([mel for _, mel in chosen])}


def window_inputs(clips: Sequence[Clip]) -> dict[str, np.ndarray]:
    """What the parts for streaming are judged on: windows of a face, W = FACES + WINDOWS - 1 in a row.

    frames uint8 (W, 16, S, S, 3), mel float32 (W, 512, 128), times_s (W, 16), end_s (W,). DataError where there are
    fewer.
    """
    seen = [clip for clip in clips if clip.frames is not None and clip.mel is not None and clip.times_s]
    faces = [[clip for clip in seen if clip.track_id == track] for track in {clip.track_id for clip in seen}]
    windows = max(faces, key=len, default=[])[: FACES + WINDOWS - 1]
    if len(windows) < FACES + WINDOWS - 1:
        raise DataError(f"{len(windows)} windows of a face", f"{FACES + WINDOWS - 1} to judge the parts on")
    return {name: np.stack([getattr(clip, name) for clip in windows]) for name in OF_A_WINDOW}


def check_engine(
    target: Target,
    engine: Engine,
    inputs: dict[str, np.ndarray],
    options: BuildOptions,
    tell: Tell = lambda message: None,
) -> dict[str, Any]:
    """The figures of a target's engine that passes on the inputs of `gate_inputs`; ParityError for others.

    The reference is the bundle's fp32 graph; where it has none, the graph of the engine's precision. `tell` takes
    {"phase": "gate", "steps"} and {"phase": "gate", "step"}.
    """
    bundle, precision = target.bundle, target.precision
    golden_frames, golden_mel, golden, _ = bundle.golden
    reference_precision = "fp32" if "fp32" in bundle.precisions else precision
    session, version = open_session(bundle.graph(reference_precision))
    clips = [{name: array[row : row + 1] for name, array in inputs.items()} for row in range(len(inputs["mel"]))]
    reference = []
    tell({"phase": "gate", "steps": len(clips)})
    for step, clip in enumerate(clips, 1):
        reference.append(session.run(["logits"], clip)[0][0])
        tell({"phase": "gate", "step": step})
    # Every batch size that will be used: one clip, then full batches and a rest.
    alone = np.concatenate([engine(**clip) for clip in clips])
    figures = compare(np.stack(reference).astype(np.float32), alone, engine(**inputs))
    figures |= {
        "golden_difference": float(np.abs(engine(golden_frames, golden_mel) - golden).max()),
        "reference": f"{reference_precision} on onnxruntime {version} CPU",
        "device_ms_per_clip": _device_ms(engine, **clips[0]),
    }
    _require(target, figures, bundle.tolerance(precision), options)
    return figures


def check_parts(
    targets: Sequence[Target],
    parts: Sequence[Part],
    inputs: dict[str, np.ndarray],
    options: BuildOptions,
    tell: Tell = lambda message: None,
) -> dict[str, Any]:
    """The same of the parts of a mode, on the inputs of `window_inputs`; a clip of the figures is a window of a face.

    Each face's sound is kept for two updates, whatever the manifest allows and however clear the answer is.
    """
    bundle, precision, mode = targets[0].bundle, targets[0].precision, targets[0].mode
    entry, (reference, name) = bundle.parts("tensorrt", precision, mode), _reference(targets)
    windows = [
        Clip(float(end_s) - WINDOW_S, float(end_s), 0, None, frames, mel, 0.0, tuple(times_s.tolist()))
        for frames, mel, times_s, end_s in zip(*(inputs[name] for name in OF_A_WINDOW), strict=True)
    ]
    faces = [windows[first : first + WINDOWS] for first in range(FACES)]
    # More than the plan takes at once.
    crowd = [number % FACES for number in range(max(FACES, options.max_batch + 1))]

    def streamer(graphs: StreamingGraphs) -> Streamer:
        return Streamer(graphs, mode, entry.max_age_s, 2 * STREAMING_HOP_S, clear=0.0)

    tell({"phase": "gate", "steps": FACES})
    expected = []
    for step, face in enumerate(faces, 1):
        expected.append(_play(streamer(reference), [face])[0])
        tell({"phase": "gate", "step": step})
    graphs, times_ms = StreamingGraphs(*parts), []

    def note_time() -> None:
        stem, rest, *_ = parts  # an update in which the sound is kept takes less
        times_ms.append(stem.device_ms + rest.device_ms)

    alone = [_play(streamer(graphs), [face], note_time)[0] for face in faces]
    together = _play(streamer(graphs), [faces[number] for number in crowd])
    everyone = np.concatenate([expected[number] for number in crowd])
    figures = compare(everyone, np.concatenate([alone[number] for number in crowd]), np.concatenate(together))
    figures |= {
        "clips": FACES * WINDOWS,  # different ones
        "golden_difference": golden_difference(graphs, mode, *bundle.golden[:3]),
        "reference": name,
        "device_ms_per_clip": float(np.median(times_ms)),
    }
    _require(targets[0], figures, entry.tolerance or bundle.tolerance(precision), options)
    return figures


def _reference(targets: Sequence[Target]) -> tuple[StreamingGraphs, str]:
    """The fp32 parts on onnxruntime's CPU, else those that the plans were built from; and what they are, in words."""
    bundle, precision = targets[0].bundle, "fp32"
    try:
        known = bundle.parts("cpu", precision, targets[0].mode).files
        files = [known[target.part] for target in targets]
    except (BundleError, KeyError):
        precision, files = targets[0].precision, [target.graph.name for target in targets]
    name = f"{precision} parts on onnxruntime {import_onnxruntime().__version__} CPU"
    parts = (OnnxCpuPart(bundle.folder / file, optimized=precision != "fp8") for file in files)
    return StreamingGraphs(*parts), name


def _play(
    streamer: Streamer, faces: Sequence[Sequence[Clip]], after: Callable[[], None] = lambda: None
) -> list[np.ndarray]:
    """Logits (W, C) of each face, whose windows come together; in the last one the sound has ended."""
    updates = []
    for step in range(WINDOWS):
        clips = [replace(face[step], track_id=number) for number, face in enumerate(faces)]
        if step == WINDOWS - 1:
            clips = [replace(clip, mel=None) for clip in clips]
        updates.append(streamer(clips))
        after()
    return list(np.stack(updates, axis=1))


def _require(target: Target, figures: dict[str, Any], tolerance: float, options: BuildOptions) -> None:
    """ParityError, with the way out, unless the figures pass."""
    if missed := shortcoming(target.precision, figures, tolerance):
        way_out = "" if options.unfused else f"build it with attention unfused: {target.command} --unfused; or "
        raise ParityError(
            f"the TensorRT engine for {target.precision} computes something else than the bundle: {missed[0]}",
            missed[1],
            f"it was not kept; {way_out}take another --precision, or another TensorRT version",
        )


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
        engine(frames, mel)
        times_ms.append(engine.device_ms)
    return float(np.median(times_ms))
