"""The `results` of each kind of benchmark: one dataclass per JSON object, one attribute per key.

Durations end in `_ms` or `_s`. None (null in JSON) stands for a figure that does not exist, such as the recall of a
class without clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mma_benchmarks.batch.schema import Batch
from mma_benchmarks.dashboard.schema import Dashboard
from mma_benchmarks.faces.schema import Faces
from mma_benchmarks.soak.schema import Soak
from mma_benchmarks.speaking.schema import Speaking
from mma_benchmarks.voice.schema import Voice


@dataclass(frozen=True)
class Summary:
    """Count, mean, extremes and percentiles of a series, in the unit of its values."""

    count: int
    mean: float
    min: float
    p5: float
    p25: float
    p50: float
    p75: float
    p95: float
    p99: float
    max: float


def summarise(values: Sequence[float]) -> Summary:
    """Percentiles interpolate linearly: p99 of fewer than 100 values lies between the two largest."""
    array = np.asarray(values, np.float64)
    percentiles = {f"p{rank}": float(np.percentile(array, rank)) for rank in (5, 25, 50, 75, 95, 99)}
    return Summary(len(array), float(array.mean()), float(array.min()), max=float(array.max()), **percentiles)


@dataclass(frozen=True)
class Source:
    name: str
    media_s: float
    video: bool
    audio: bool
    width: int
    height: int


@dataclass(frozen=True)
class LatencySettings:
    repeat: int
    warmup: int
    iterations: int
    window_s: float
    hop_s: float


@dataclass(frozen=True)
class Startup:
    import_s: float  # of the libraries
    load_s: float  # of the bundle: hashes, session, self-test
    open_s: float  # of source and detector


@dataclass(frozen=True)
class Pass:
    """One run over the whole clip."""

    wall_s: float
    real_time_factor: float  # seconds of media per second of wall time
    frames: int
    frames_per_s: float
    answers: int


@dataclass(frozen=True)
class Part:
    """A part of the wall time: milliseconds per run and share of it."""

    per_run_ms: float
    share: float


@dataclass(frozen=True)
class Stage(Part):
    per_call_ms: Summary  # one value per call, all runs together


@dataclass(frozen=True)
class Latency:
    source: Source
    settings: LatencySettings
    startup: Startup
    runs: list[Pass]
    stages: dict[str, Stage]
    other: Part
    predict_ms: Summary
    age_ms: Summary
    peak_memory_mib: float


@dataclass(frozen=True)
class AccuracySettings:
    sets: list[str]
    limit: int | None
    batch: int
    robustness: bool = False  # new in version 2
    # Clips of each person that a neutral reference was made of, or "auto": what is usual for each; new in version 2.
    neutral: int | str | None = None


@dataclass(frozen=True)
class Condition:
    """One set with what the model was given of it."""

    set: str
    condition: str  # "video and audio", "video only" or "audio only"; relative to something more is said
    description: str
    num_clips: int
    uar: float | None
    war: float | None
    loss: float | None  # mean negative log-likelihood, nats
    ece: float | None
    recall: list[float | None]
    confusion: list[list[int]]  # clips, rows true, columns predicted
    predict_s: float
    ece_of_honest: list[float] | None = None  # `evaluation.calibration.honest_error`; new in version 2
    spoiled_by: str | None = None  # a change of `evaluation.robustness`; new in version 2

    @property
    def name(self) -> str:
        return f"{self.set}: {self.condition}"


@dataclass(frozen=True)
class AccuracyCell:
    """One model, backend and precision of an accuracy grid."""

    subject: str
    manifest_sha256: str
    labels: list[str]
    runner: str
    precision: str
    details: str
    conditions: list[Condition]


@dataclass(frozen=True)
class Refused:
    """A cell of a grid that could not run."""

    subject: str
    runner: str
    precision: str
    batch: int
    why: str


@dataclass(frozen=True)
class Accuracy:
    """A grid of one cell; which cell, the result's `bundle` says."""

    settings: AccuracySettings
    conditions: list[Condition]


@dataclass(frozen=True)
class AccuracyGrid:
    settings: AccuracySettings
    cells: list[AccuracyCell]
    refused: list[Refused]


@dataclass(frozen=True)
class TrainingSettings:
    model: str
    image_size: int
    batch_size: int
    steps: int
    warmup: int
    rounds: int
    threads: int
    device: str
    parameters: int
    trainable: int


@dataclass(frozen=True)
class TrainingRun:
    """All rounds of one setting; speedup and memory_ratio are to "plain". loss: of one clip after the steps, nats."""

    name: str
    description: str
    step_s: Summary
    cpu_s: Summary
    clips_per_s: float
    speedup: float
    peak_memory_mib: float
    memory_ratio: float
    loss: float


@dataclass(frozen=True)
class Training:
    settings: TrainingSettings
    runs: list[TrainingRun]


@dataclass(frozen=True)
class GridSettings:
    rounds: int
    turn_s: float  # how long a turn of a cell aims to take
    uncounted_calls: int  # before those that count, in each turn


@dataclass(frozen=True)
class GridSubject:
    """A model of a grid. flops_per_clip: of the PyTorch model; a multiplication and an addition are two."""

    name: str
    origin: str
    manifest_sha256: str
    image_size: int
    labels: list[str]
    flops_per_clip: float | None


@dataclass(frozen=True)
class MatmulSpeed:
    """The fastest matrix product of this run by torch: 10^9 operations per second, rows of the square matrix."""

    device: str
    precision: str
    gflops: float
    size: int


@dataclass(frozen=True)
class GridCell:
    """One model, backend, precision and batch."""

    subject: str
    runner: str
    precision: str
    batch: int
    device: str
    details: str
    call_ms: Summary  # of `batch` clips, arrays of the processor in and out
    clips_per_s: float
    load_cold_s: float | None  # the first opening, with empty caches; None where nothing is cached or they were full
    load_warm_s: float
    peak_memory_mib: float  # resident, of the process that was timed
    gpu_memory_mib: float | None
    energy_j_per_clip: float | None
    energy_meter: str
    reference: str  # the runner that speedup and logit_difference are against
    speedup: float | None
    logit_difference: float | None  # largest absolute, on the same clips
    gflops: float | None = None
    peak_share: float | None = None  # of the fastest matrix product at this precision and device


@dataclass(frozen=True)
class Grid:
    settings: GridSettings
    subjects: list[GridSubject]
    peaks: list[MatmulSpeed]
    cells: list[GridCell]
    refused: list[Refused]


@dataclass(frozen=True)
class StreamingSettings:
    window_s: float
    repeat: int
    hops_s: list[float]
    max_ages_s: list[float | None]  # of rolling, None is without a bound


@dataclass(frozen=True)
class StreamingSource:
    name: str
    windows: int  # with a face, at the shortest hop


@dataclass(frozen=True)
class WindowAgreement:
    """Answers beside others on the same windows."""

    windows: int
    top1_agreement: float
    mean_abs_probability_error: float
    max_abs_probability_error: float


@dataclass(frozen=True)
class StreamingWay(WindowAgreement):
    """One way of computing at one hop; agreement is with the whole graph on the same frames, all updates."""

    mode: str  # "full", "exact" or "rolling"
    hop_s: float
    max_age_s: float | None  # of rolling, None is without a bound
    update_ms: Summary  # from one window and one hop after the face appeared: before, most frames are new
    updates_per_s: float
    speedup: float  # mean time of full / mean time of this
    stem_frames: float  # mean per update, as layer_frames
    layer_frames: float
    max_abs_logit_difference: float
    # Agreement is with the whole graph of the same engine. Results from before there was more than one engine have
    # neither name: it is the result's own.
    backend: str | None = None
    precision: str | None = None
    # Results from before the sound was kept have none of these.
    sound_age_s: float = 0.0  # of rolling: how old the sound of an answer may be
    sounds: float = 1.0  # mean per update: how often the sound went through its encoder


@dataclass(frozen=True)
class Streaming:
    settings: StreamingSettings
    sources: list[StreamingSource]
    ways: list[StreamingWay]  # one entry per hop and way of computing
    sampling: WindowAgreement  # the grid's frames beside those of `frame_indices`, whole graph, at the default hop
    refused: str | None  # why the bundle does not offer rolling


RESULTS: dict[str, type] = {
    "latency": Latency,
    "accuracy": Accuracy,
    "training": Training,
    "grid": Grid,
    "accuracy-grid": AccuracyGrid,
    "streaming": Streaming,
    "voice": Voice,
    "faces": Faces,
    "speaking": Speaking,
    "soak": Soak,
    "batch": Batch,
    "dashboard": Dashboard,
}


def problem_of(results: object, num_classes: int) -> str | None:
    """Why no page can be made of values that are all of the right type; `num_classes` of the result's model."""
    match results:
        case Latency() if not (results.runs and results.stages and results.source.media_s > 0):
            return "results has no runs, no stages or no seconds of media"
        case Training(runs=[]):
            return "results.runs is empty"
        case Streaming(ways=[]):
            return "results.ways is empty"
        case Faces(sources=[]):
            return "results.sources is empty"
        case Speaking(kinds=[]):
            return "results.kinds is empty"
        case Soak() if not (results.samples and len(results.thirds) == 3):
            return "results has no samples, or not three thirds"
        case Batch(ways=[]):
            return "results.ways is empty"
        case Dashboard() if len(results.phases) != 3 or not results.samples:
            return "results has not three phases, or no samples"
        case Voice(sounds=[]):
            return "results.sounds is empty"
        case Grid(cells=[], refused=[]) | AccuracyGrid(cells=[], refused=[]):
            return "results has neither cells nor refused"
        case Grid():
            known = {subject.name for subject in results.subjects}
            unknown = (row.subject for row in (*results.cells, *results.refused) if row.subject not in known)
            return next((f"results.subjects lacks {name!r}" for name in unknown), None)
        case Accuracy():
            return _misfit(results.conditions, num_classes, "results")
        case AccuracyGrid():
            cells = enumerate(results.cells)
            misfits = (_misfit(cell.conditions, len(cell.labels), f"results.cells[{index}]") for index, cell in cells)
            return next(filter(None, misfits), None)
    return None


def _misfit(conditions: list[Condition], num_classes: int, where: str) -> str | None:
    for index, entry in enumerate(conditions):
        if any(len(row) != num_classes for row in (entry.recall, entry.confusion, *entry.confusion)):
            return f"{where}.conditions[{index}] is not about {num_classes} classes"
    return None if conditions else f"{where}.conditions is empty"
