"""What a live run says about itself: to its user, and with `--stats FILE` to whoever watches it."""

from __future__ import annotations

import json
import threading
import time
from contextlib import AbstractContextManager
from datetime import datetime, timezone
from os import PathLike
from typing import Any

from mma_edge.errors import MMAEdgeError
from mma_edge.files import LineFile
from mma_edge.live.pipeline import LivePipeline
from mma_edge.live.stats import SPAN_S, Spread

STAGES = ("wait", "detect", "crop", "sound", "queue", "engine", "deliver")
"""From the arrival of a frame to its answer, in this order; docs/live.md says what each is."""
EVERY_S = 1.0
_WRITE_S = 0.5
"""Longest wait for the last line at the end."""


def snapshot(live: LivePipeline) -> dict[str, Any]:
    """The fields of one line of `--stats`, see docs/live.md: counters since the start, spreads of the last minute."""
    now_s = time.monotonic()
    ran_s = now_s - live.started_s
    stages, batches = live.stages, live.stages.values("batch")
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "run_s": round(ran_s, 3),
        "answers": sum(source.answers for source in live.sources),
        "age_ms": _values(stages.spread("age")),
        "stages_ms": {stage: _values(stages.spread(stage)) for stage in STAGES},
        "engine": {
            "calls": live.engine.steps,
            "clips_per_call": round(sum(batches) / len(batches), 2) if batches else None,
            "busy": round(min(1.0, sum(stages.values("engine")) / 1000 / max(1e-3, min(ran_s, SPAN_S))), 3),
        },
        "sources": {source.name: _source(live, number, now_s) for number, source in enumerate(live.sources)},
    }


def _source(live: LivePipeline, number: int, now_s: float) -> dict[str, Any]:
    progress, pipeline = live.sources[number], live.pipelines[number]
    stats = pipeline.source.stats
    return {
        "state": "failed" if progress.error else "ended" if progress.thread.ended else "running",
        "error": progress.error,
        "frames": progress.frames,
        "dropped_frames": stats.dropped_frames,
        "fps": round(pipeline.frame_rate(), 1),
        "frame_age_s": None if progress.last_frame_s is None else round(now_s - progress.last_frame_s, 3),
        "faces": len(pipeline.state.faces),
        "detect_stretch": pipeline.tracker.stretch if pipeline.tracker else None,
        "stretched": progress.stretched,
        "sound_s": round(progress.sound_s, 3),
        "dropped_sound_s": round(stats.dropped_audio_s, 3),
        "sound_age_s": None if progress.last_sound_s is None else round(now_s - progress.last_sound_s, 3),
        "reopened": stats.reopened,
        "windows": progress.windows,
        "replaced": progress.replaced,
        "answers": progress.answers,
        "age_ms": _values(live.stages.spread(f"age {progress.name}")),
    }


def _values(spread: Spread | None) -> dict[str, float] | None:
    return spread.to_dict() if spread else None


def stages_line(live: LivePipeline) -> str:
    """Age and stages of the last minute for people: median / 95th percentile in milliseconds; "" before any answer."""
    spreads = {stage: live.stages.spread(stage) for stage in ("age", *STAGES)}
    if spreads["age"] is None:
        return ""
    return (
        "  ".join(f"{stage} {each.p50:.0f}/{each.p95:.0f}" for stage, each in spreads.items() if each) + " ms (p50/p95)"
    )


class StatsFile(AbstractContextManager):
    """Writes a snapshot every EVERY_S into a file of JSON Lines, and a last one at the end, until its block ends.

    OutputError where the file exists or cannot be made. When it cannot be written later, that is said, and the run goes
    on without it.
    """

    def __init__(
        self, path: str | PathLike[str], live: LivePipeline, overwrite: bool = False, every_s: float = EVERY_S
    ) -> None:
        self._file = LineFile(path, overwrite, "lines", "--stats")
        self._live, self._every_s = live, every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mma-edge-stats", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        ended = False
        try:
            while not ended:
                ended = self._ended.wait(self._every_s)
                self._file.append(json.dumps(snapshot(self._live)) + "\n")
        except MMAEdgeError as error:
            self._live.options.notify(f"no more --stats: {error}")

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._thread.join(_WRITE_S)
        if not self._thread.is_alive():  # else a disk hangs, and the file is the thread's
            self._file.close()
