"""The `results` of `mma-bench soak`; see `mma_benchmarks.schema`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SoakSettings:
    minutes: float
    every_s: float  # from one disturbance to the next
    sample_s: float  # from one sample to the next
    settle_s: float  # what comes before counts neither for the memory's slope nor for the first third
    hop_s: float
    sizes_px: list[int]  # of the stream's square pictures, in turns


@dataclass(frozen=True)
class SoakSample:
    """The process at one moment. Ages are of the answers of the last minute; None where there are none."""

    at_s: float
    memory_mib: float  # resident
    threads: int
    descriptors: int
    answers: int
    reopened: int
    age_p50_ms: float | None
    age_p95_ms: float | None
    load_average: float  # of the machine, over one minute


@dataclass(frozen=True)
class Disturbance:
    """What was done to the stream, and when pictures came again; None: not before the next one."""

    at_s: float
    what: str
    seconds: float  # for which it lasted
    back_s: float | None  # from its end on


@dataclass(frozen=True)
class SoakThird:
    """A third of the run, after it has settled. Ages are of each of its answers."""

    answers: int
    age_p50_ms: float | None
    age_p95_ms: float | None
    memory_mib: float  # mean
    threads: int  # median, as descriptors
    descriptors: int
    load_average: float  # mean


@dataclass(frozen=True)
class Soak:
    settings: SoakSettings
    thirds: list[SoakThird]
    memory_slope_mib_per_h: float
    cpu_share: float  # of one core
    reconnects: int
    notices: int
    exit_code: int
    children_left: int  # processes that the run began, after its end
    disturbances: list[Disturbance]
    samples: list[SoakSample]
