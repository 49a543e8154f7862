"""A tiny bundle with the parts for streaming, and clips as a stream cuts them, without a detector."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from mma_edge.audio.logmel import MEL_MEAN, MEL_STD
from mma_edge.bundle import Bundle, write_manifest
from mma_edge.bundle.manifest import read_manifest
from mma_edge.types import Clip
from mma_export.streaming import gate as streaming_gate
from mma_export.streaming.parts import add_streaming, write_parts
from mma_trainer.model import MMADFER

TICK_S, SIDE = 0.25, 16


def stream_clips(count: int, track: int = 1, hop_ticks: int = 2, seed: int = 0, sound: bool = True) -> list[Clip]:
    """Full windows of 4 s, `hop_ticks` apart; every window has another sound."""
    rng = np.random.default_rng(seed)
    film = rng.integers(0, 256, (16 + hop_ticks * count, SIDE, SIDE, 3), dtype=np.uint8)
    clips = []
    for number in range(count):
        first = number * hop_ticks
        mel = (rng.standard_normal((512, 128), dtype=np.float32) * MEL_STD + MEL_MEAN).astype(np.float32)
        times_s = tuple((first + index + 0.5) * TICK_S for index in range(16))
        start_s = first * TICK_S
        box = (0.0, 0.0, 9.0, 9.0)
        frames = film[first : first + 16]
        clips.append(Clip(start_s, start_s + 4, track, box, frames, mel if sound else None, 0.0, times_s))
    return clips


SEEN = stream_clips(8)


def with_streaming(bundle: Path, output: Path, model: MMADFER) -> tuple[Bundle, dict[str, onnx.ModelProto]]:
    """A copy of a bundle of `model` with its parts, gated on SEEN, and the parts as traced."""
    shutil.copytree(bundle, output)
    kept: list[dict[str, onnx.ModelProto]] = []

    def keep(*args: Any) -> dict[str, onnx.ModelProto]:
        kept.append(write_parts(*args))
        return kept[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming_gate, "collect_clips", lambda *args: SEEN)
        patch.setattr("mma_export.streaming.parts.write_parts", keep)
        entry = add_streaming(model, output, output / "model.fp32.onnx", report=lambda line: None)
    return write_manifest(output, {**read_manifest(output), "streaming": entry}), kept[0]
