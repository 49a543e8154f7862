"""The run in numbers, as pages show them once a second: what `--stats` writes, and what only the page needs."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from mma_edge.errors import without_passwords
from mma_edge.live import FilesPipeline, LivePipeline
from mma_edge.live.report import snapshot
from mma_edge.pipeline import Pipeline, StreamOptions
from mma_edge.pipeline.neutral import relative_to
from mma_edge.recognizer import Recognizer
from mma_edge.types import AudioChunk

QUIETEST_DB = -60.0
"""Sound below this is shown as none; 0 dB is the loudest that there is."""


def about(recognizer: Recognizer, options: StreamOptions, camera: bool) -> dict[str, Any]:
    """What stays the same as long as the run goes on. `camera`: a page may send its own picture."""
    return {
        "labels": list(recognizer.labels),
        "model": recognizer.bundle.name,
        "precision": recognizer.precision,
        "backend": recognizer.backend,
        "details": recognizer.engine.details,
        "options": {
            name: getattr(options, name)
            for name in ("window_s", "hop_s", "voice_gate", "abstain_below", "smooth_s", "streaming", "audio")
        },
        "neutral": None if options.neutral is None else relative_to(options.neutral),
        "camera": camera,
    }


def progress(running: LivePipeline | FilesPipeline, started_s: float) -> dict[str, Any]:
    """Counters since the start and spreads of the last minute, see docs/live.md; of files what they have of them."""
    pipelines = {pipeline.name: pipeline for pipeline in tuple(running.pipelines)}
    if isinstance(running, LivePipeline):
        state = snapshot(running)
    else:
        failed = {name: str(error) for name, error in tuple(running.failures.items())}
        ran_s = round(time.monotonic() - started_s, 1)
        sources = {name: _of_file(pipeline, failed.get(name)) for name, pipeline in pipelines.items()}
        answers = sum(pipeline.state.answers for pipeline in pipelines.values())
        state = {"run_s": ran_s, "answers": answers, "sources": sources, "age_ms": None, "engine": None}
    for name, source in state["sources"].items():
        pipeline = pipelines[name]
        source["video"], source["audio"] = pipeline.source.has_video, pipeline.source.has_audio
        source["live"], source["time_s"] = pipeline.source.live, round(pipeline.state.time_s, 3)
        source["error"] = source["error"] and without_passwords(source["error"])
    return state


def _of_file(pipeline: Pipeline, error: str | None) -> dict[str, Any]:
    stats = dataclasses.asdict(pipeline.source.stats)
    return {
        "state": "failed" if error else "running",
        "error": error,
        "fps": round(pipeline.frame_rate(), 1),
        "faces": len(pipeline.state.faces),
        "sound_s": stats["audio_s"],
        "dropped_sound_s": stats["dropped_audio_s"],
        **{name: stats[name] for name in ("frames", "dropped_frames", "reopened")},
    }


class Levels:
    """How loud each source is: the loudest 20 ms or so since the last look."""

    def __init__(self) -> None:
        self._loudest: dict[str, float] = {}

    def put(self, source: str, chunk: AudioChunk) -> None:
        """By the source's thread."""
        samples = chunk.samples[0]
        if samples.size:
            power = float(np.dot(samples, samples)) / samples.size
            self._loudest[source] = max(self._loudest.get(source, 0.0), power)

    def take(self) -> dict[str, float]:
        """Source -> decibels below the loudest that there is. Those without new sound are not there."""
        taken, self._loudest = self._loudest, {}
        return {
            source: round(max(QUIETEST_DB, 10 * float(np.log10(max(power, 1e-12)))), 1)
            for source, power in tuple(taken.items())  # who took hold of it before may still add
        }
