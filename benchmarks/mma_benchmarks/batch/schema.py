"""The `results` of `mma-bench batch`; see `mma_benchmarks.schema`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchSettings:
    sources: list[str]
    files: int  # copies of the sources, in turns, each with a content of its own
    media_s: float  # of all files
    repeat: int
    window_s: float
    hop_s: float


@dataclass(frozen=True)
class BatchTurn:
    """One batch of all files, from the first file to the last; the model is open by then."""

    wall_s: float
    cpu_s: float  # of all processes, with opening the model
    load_average: float  # of the machine, over one minute, before it


@dataclass(frozen=True)
class BatchWay:
    """All turns of one number of workers; the figures are of the median turn."""

    workers: int
    turns: list[BatchTurn]
    files_per_min: float
    media_s_per_s: float
    media_s_per_s_per_worker: float
    speedup: float  # against the first way


@dataclass(frozen=True)
class Batch:
    settings: BatchSettings
    ways: list[BatchWay]
