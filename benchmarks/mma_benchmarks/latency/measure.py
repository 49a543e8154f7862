"""Where the milliseconds go: the real pipeline on a real clip, timed stage by stage.

The clip is run through `mma_edge.pipeline.Pipeline` as `mma-edge run` does it, once for each repeat, after some runs
that do not count. There the stages of a file work at the same time; so each repeat has a second run in which they take
turns, as those of a camera do, and that one says how long each takes. The runtime's own `StageTimer` reads the clock.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np

import mma_edge
from mma_benchmarks.machine.facts import describe_machine, peak_memory_mib
from mma_benchmarks.result import Advance, Model, Result, utc_now
from mma_benchmarks.schema import Latency, LatencySettings, Part, Pass, Source, Stage, Startup, summarise
from mma_edge.bundle import sha256
from mma_edge.bundle.manifest import MANIFEST
from mma_edge.errors import SourceError, UsageError
from mma_edge.recognizer import Recognizer
from mma_edge.types import Clip, Emotion, Frame

STAGES = ("decode", "detect", "crop", "sound", "engine")
MAX_KEPT_CLIPS = 32
PREDICT_WARMUP = 3


@dataclass(frozen=True)
class LatencyOptions:
    """What to measure; backend and precision as `mma_edge.load` takes them."""

    source: str = "sample"  # or a media file
    backend: str = "auto"
    precision: str | None = None
    repeat: int = 5  # counted runs of the whole clip
    warmup: int = 1  # runs before them, not counted
    iterations: int = 100  # counted calls of predict alone, one clip each

    def __post_init__(self) -> None:
        for name, least in (("repeat", 1), ("warmup", 0), ("iterations", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"--{name} {getattr(self, name)}", f"at least {least}")
        if self.source == "camera" or self.source.startswith("camera:"):
            what = f"{self.source} cannot be measured: it delivers at its own pace, and never the same twice"
            raise UsageError(what, "sample or a media file", "record a clip and give --source clip.mp4")


class ClipKeeper(Recognizer):
    """A recognizer that remembers the first clips it saw, so that predict alone is timed on real content."""

    def __init__(self, recognizer: Recognizer) -> None:
        super().__init__(recognizer.bundle, recognizer.engine)
        self.kept: list[Clip] = []

    def predict_clips(self, clips: Sequence[Clip]) -> list[Emotion]:
        self.kept += clips[: MAX_KEPT_CLIPS - len(self.kept)]
        return super().predict_clips(clips)


@dataclass(frozen=True)
class Run:
    """One pass over the clip."""

    open_s: float
    wall_s: float
    durations_ms: dict[str, list[float]]
    emotions: list[Emotion]
    frames: int
    media_s: float

    @property
    def figures(self) -> Pass:
        wall_s, frames = self.wall_s, self.frames
        return Pass(wall_s, self.media_s / wall_s, frames, frames / wall_s, len(self.emotions))


def measure_latency(
    bundle: str | os.PathLike | None, options: LatencyOptions, command: str, advance: Advance = lambda step: None
) -> Result:
    """Run the benchmark on a bundle's folder, None for the embedded default model.

    Raises:
        MMAEdgeError: as `mma_edge.load` and the pipeline raise it.
    """
    advance("loading")
    import_s = _import_libraries()
    from mma_edge.pipeline import StreamOptions

    width, height = first_frame_size(options.source)  # a wrong path should not have to wait for the model
    machine = describe_machine()
    start = time.perf_counter()
    recognizer = ClipKeeper(mma_edge.load(bundle, options.backend, options.precision))
    load_s = time.perf_counter() - start

    for number in range(options.warmup):
        advance(f"warm-up run {number + 1} of {options.warmup}")
        run_once(recognizer, options.source)
    runs, in_turns = [], []
    for number in range(options.repeat):
        advance(f"run {number + 1} of {options.repeat}")
        runs.append(run_once(recognizer, options.source))
        in_turns.append(run_once(recognizer, options.source, threads=False))
    if not runs[0].emotions:
        raise SourceError(f"{options.source} gave no answer", "a clip with a face or a voice", "try --source sample")
    advance(f"predict alone, {options.iterations} times")
    predict_ms = time_predict(recognizer, recognizer.kept, options.iterations)

    stream = StreamOptions()
    audio = any("audio" in emotion.modalities for emotion in runs[0].emotions)
    results = Latency(
        # The name alone: the folder may tell more of its owner than a result should.
        Source(os.path.basename(options.source), runs[0].media_s, width > 0, audio, width, height),
        LatencySettings(options.repeat, options.warmup, options.iterations, stream.window_s, stream.hop_s),
        Startup(import_s, load_s, float(np.median([run.open_s for run in runs]))),
        [run.figures for run in runs],
        *stage_table(in_turns),
        predict_ms=summarise(predict_ms),
        age_ms=summarise([emotion.age_ms for run in in_turns for emotion in run.emotions]),
        peak_memory_mib=peak_memory_mib(),
    )
    return Result("latency", utc_now(), command, machine, describe_model(recognizer), results)


def run_once(recognizer: Recognizer, source: str, threads: bool = True) -> Run:
    """The whole clip through a pipeline of its own; without `threads` its stages take turns."""
    from mma_edge.pipeline import Pipeline, StageTimer

    timer = StageTimer()
    start = time.perf_counter()
    with Pipeline.open(recognizer, source, timer=timer, threads=threads) as pipeline:
        opened = time.perf_counter()
        emotions = list(pipeline)
        wall_s = time.perf_counter() - opened
        # Files that do not state their length: from the first datum to the end of the last window.
        span_s = max((e.end_s for e in emotions), default=0) - min((e.start_s for e in emotions), default=0)
        media_s = getattr(pipeline.source, "duration_s", None) or span_s
        frames = pipeline.source.stats.frames
    return Run(opened - start, wall_s, dict(timer.durations_ms), emotions, frames, media_s)


def stage_table(runs: Sequence[Run]) -> tuple[dict[str, Stage], Part]:
    """What each stage took, and what is left of the wall time."""
    wall_ms = 1000 * sum(run.wall_s for run in runs)
    names = [name for name in STAGES if any(name in run.durations_ms for run in runs)]
    names += sorted({name for run in runs for name in run.durations_ms} - set(names))
    stages = {}
    for name in names:
        durations = [value for run in runs for value in run.durations_ms.get(name, ())]
        total_ms = sum(durations)
        stages[name] = Stage(total_ms / len(runs), total_ms / wall_ms, summarise(durations))
    rest_ms = wall_ms - sum(stage.per_run_ms for stage in stages.values()) * len(runs)
    return stages, Part(rest_ms / len(runs), rest_ms / wall_ms)


def time_predict(recognizer: Recognizer, clips: Sequence[Clip], iterations: int) -> list[float]:
    """Milliseconds of `Recognizer.predict` on one clip at a time, taking turns."""
    inputs = [[None if part is None else part[None] for part in (clip.frames, clip.mel)] for clip in clips]
    durations_ms = []
    for frames, mel in islice(cycle(inputs), PREDICT_WARMUP + iterations):
        start = time.perf_counter()
        recognizer.predict(frames, mel)
        durations_ms.append(1000 * (time.perf_counter() - start))
    return durations_ms[PREDICT_WARMUP:]


def first_frame_size(source: str) -> tuple[int, int]:
    """(width, height) of the pictures in pixels, (0, 0) of a source without any."""
    from mma_edge.sources import open_source

    with open_source(source) as opened:
        if not opened.has_video:
            return 0, 0
        image = next(event.image for event in opened.events() if isinstance(event, Frame))
        return image.shape[1], image.shape[0]


def describe_model(recognizer: Recognizer) -> Model:
    """The `bundle` of a result."""
    bundle = recognizer.bundle
    return Model(
        name=bundle.name,
        manifest_sha256=sha256(bundle.folder / MANIFEST),
        labels=list(recognizer.labels),
        image_size=recognizer.image_size,
        precision=recognizer.precision,
        backend=recognizer.backend,
        engine=recognizer.engine.details,
    )


def _import_libraries() -> float:
    """Seconds that the runtime's libraries take to import (next to nothing when they already are).

    To measure this, nothing here imports the pipeline and the sources at the top of the file.
    """
    start = time.perf_counter()
    for module in ("onnxruntime", "mma_edge.pipeline"):
        with contextlib.suppress(ImportError):  # the engine says which library is missing, and how to get it
            importlib.import_module(module)
    return time.perf_counter() - start
