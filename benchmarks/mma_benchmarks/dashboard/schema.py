"""The `results` of `mma-bench dashboard`; see `mma_benchmarks.schema`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DashboardSettings:
    seconds: float  # of each of the first phases
    minutes: float  # while viewers come and go
    width: int  # of the source's pictures
    height: int
    fps: int
    browser: str | None  # None: there was none, and a WebSocket client looked on


@dataclass(frozen=True)
class DashboardPhase:
    """A part of the run with so many viewers. Shares are of one core."""

    name: str
    seconds: float
    viewers: float  # mean
    page_share: float  # of the threads that are the page's own
    process_share: float  # of the whole run
    load_average: float  # of the machine, over one minute, at its end


@dataclass(frozen=True)
class DashboardSample:
    """The process at one moment while viewers come and go."""

    at_s: float
    memory_mib: float  # resident
    threads: int
    descriptors: int
    viewers: int


@dataclass(frozen=True)
class Dashboard:
    settings: DashboardSettings
    phases: list[DashboardPhase]
    flashes: int  # that the page has seen
    flash_p50_ms: float | None  # from the arrival of a flash's first picture to the page that shows it
    flash_p95_ms: float | None
    pictures_per_s: float | None  # shown by the page
    picture_p50_ms: float | None  # from the arrival of a picture to the page that shows it
    picture_p95_ms: float | None
    visits: int  # of viewers that came and went
    memory_slope_mib_per_h: float
    exit_code: int
    samples: list[DashboardSample]
