"""`mma-export --streaming`: the graphs of `mma-edge run --streaming`, each behind its gate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch

from mma_edge.bundle import golden_inputs
from mma_edge.engines.cpu import OnnxCpuEngine
from mma_edge.streaming import PRECISION, StreamingGraphs
from mma_export.graph import check_for_tensorrt, trace_module
from mma_export.parity import check_batches
from mma_export.streaming.gate import rolling_gate
from mma_export.weights import share_weights, store_half
from mma_trainer.model import MMADFER
from mma_trainer.model.streaming import FrameStem, Rolling, Window, check_streamable, summary_width

STEM, EXACT, ROLLING = "streaming.stem.onnx", "streaming.exact.onnx", "streaming.rolling.onnx"
BATCHES = (1, 2)
NEW = 3
"""Frames that come together, in the example inputs and in the checks."""


def add_streaming(
    model: MMADFER,
    work: Path,
    whole: Path,
    sources: Sequence[str] = ("sample",),
    report: Callable[[str], None] = print,
) -> dict:
    """Write the parts of `model` into `work` and gate them.

    Args:
        model: as exported.
        work: folder in which the bundle is made.
        whole: the float32 graph in it, finished: the parts point into this file, so it must not change any more.
        sources: clips on whose windows rolling is measured against full recomputation.
        report: called with the name of every step.

    Returns:
        The manifest's `streaming` object. Where rolling fails its gate, that says so, and the file is not there.

    Raises:
        CheckpointError: this variant of the model cannot be cut into parts.
        ParityError: the parts do not compute what the whole graph computes, or TensorRT would refuse one.
        DataError: none of the sources has a face.
    """
    check_streamable(model.config)
    model = model.eval()
    report("tracing the parts for streaming")
    write_parts(model, work, whole)
    engine = OnnxCpuEngine(whole, PRECISION)
    size = model.config.image_size
    exact = StreamingGraphs(work / STEM, work / EXACT)
    rolling = StreamingGraphs(work / STEM, work / ROLLING)
    entry = {
        "precision": PRECISION,
        "stem": STEM,
        "exact": {"file": EXACT, "parity": _parity("exact", exact, engine, size)},
        "rolling": {"parity": _parity("rolling", rolling, engine, size)},
    }
    report("comparing rolling with full recomputation, window by window")
    verdict = rolling_gate(rolling, engine, size, sources)
    entry["rolling"].update(verdict)
    if "refused" in verdict:
        report(f"rolling is refused: {verdict['refused']}")
        (work / ROLLING).unlink()
    else:
        entry["rolling"]["file"] = ROLLING
    return entry


def write_parts(model: MMADFER, work: Path, whole: Path) -> int:
    """Trace and save the three graphs; returns how many bytes of weights they share with `whole`."""
    c = model.config
    frames, mel = (torch.from_numpy(array) for array in golden_inputs(0, c.image_size, clips=2))
    with torch.no_grad():
        tokens = FrameStem(model)(frames.flatten(0, 1))  # (32, T, W)
    past, order = torch.zeros(c.num_frames, summary_width(c)), torch.arange(c.num_frames)
    parts = {
        STEM: (FrameStem(model), (frames[0],), ("frames",), ("tokens",), {"frames": 0}),
        EXACT: (
            Window(model),
            (tokens.unflatten(0, (2, c.num_frames)), mel),
            ("tokens", "mel"),
            ("logits",),
            {"tokens": 0, "mel": 0},
        ),
        ROLLING: (
            Rolling(model),
            (tokens[:NEW], past, order, mel[:1]),
            ("tokens", "past", "order", "mel"),
            ("logits", "summaries"),
            {"tokens": 0},
        ),
    }
    shared = 0
    for name, part in parts.items():
        proto = trace_module(*part)
        store_half(proto)
        shared += share_weights(proto, whole)
        onnx.save(proto, str(work / name))
        onnx.checker.check_model(str(work / name), full_check=True)
        check_for_tensorrt(work / name)
    return shared


def _parity(mode: str, graphs: StreamingGraphs, engine: OnnxCpuEngine, image_size: int) -> dict[str, float]:
    """Largest difference from the whole graph where nothing is old, as the manifest stores it."""

    def both(seed: int, clips: int) -> tuple[np.ndarray, np.ndarray]:
        frames, mel = golden_inputs(seed, image_size, clips)
        # In two calls, as a stream would: what is kept must not depend on what came with it.
        flat = frames.reshape(-1, *frames.shape[2:])
        tokens = np.concatenate([graphs.stem(flat[:NEW]), graphs.stem(flat[NEW:])])
        tokens = tokens.reshape(clips, -1, *tokens.shape[1:])
        if mode == "exact":
            logits = graphs.window(tokens, mel)
        else:
            logits = np.concatenate([_roll_twice(graphs, tokens[row], mel[row : row + 1]) for row in range(clips)])
        return logits, engine(frames, mel)

    return check_batches(f"the parts for --streaming {mode} differ from the whole graph", BATCHES, both)


def _roll_twice(graphs: StreamingGraphs, tokens: np.ndarray, mel: np.ndarray) -> np.ndarray:
    """Logits (1, C) of a window of which all but the last NEW frames are summaries, computed with the same sound."""
    count = len(tokens)
    past = np.zeros((count, graphs.summary_width), np.float32)
    _, past[:] = graphs.roll(tokens, past, np.arange(count), mel)
    order = np.concatenate([np.arange(NEW, count), np.arange(NEW)])
    return graphs.roll(tokens[-NEW:], past, order, mel)[0]
