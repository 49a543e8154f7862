"""A live run with a page: what the page costs, how old its pictures are, and whether viewers leave anything behind."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import tempfile
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

import mma_edge
from mma_benchmarks.dashboard.browser import Browser, executable
from mma_benchmarks.dashboard.clip import FPS, SIZE, write_clip
from mma_benchmarks.dashboard.schema import Dashboard, DashboardPhase, DashboardSample, DashboardSettings
from mma_benchmarks.dashboard.visitors import Visitors
from mma_benchmarks.latency.measure import describe_model
from mma_benchmarks.machine.facts import MIB, describe_machine
from mma_benchmarks.result import Advance, Result, utc_now
from mma_edge.child import Child
from mma_edge.errors import BackendError, UsageError

SETTLE_S, SAMPLE_S = 8.0, 2.0
START_S, STOP_S = 60.0, 20.0
BRIGHT = 128
_SPARE_S = 60.0
"""Of film, for what starts slowly."""


@dataclass(frozen=True)
class DashboardOptions:
    """What to measure."""

    seconds: float = 30.0  # without a viewer, and then with one
    minutes: float = 3.0  # while viewers come and go
    backend: str = "auto"
    precision: str | None = None

    def __post_init__(self) -> None:
        if not 5 <= self.seconds <= 600:
            raise UsageError(f"--seconds {self.seconds:g}", "5 to 600")
        if not 0.2 <= self.minutes <= 24 * 60:
            raise UsageError(f"--minutes {self.minutes:g}", "0.2 minutes to a day")


def measure_dashboard(
    bundle: Path | None, options: DashboardOptions, command: str, advance: Advance = lambda step: None
) -> Result:
    """Run the benchmark with a bundle's folder, None for the embedded default model.

    Raises:
        BackendError: the run, or the browser, showed nothing.
    """
    machine = describe_machine()
    model = describe_model(mma_edge.load(bundle, options.backend, options.precision))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        advance("the film")
        write_clip(folder / "film.mkv", SETTLE_S + 2 * options.seconds + 60 * options.minutes + _SPARE_S)
        with _Run(bundle, options, folder) as run:
            results = _observe(run, options, advance)
    return Result("dashboard", utc_now(), command, machine, model, results)


class _Run(AbstractContextManager):
    """The process under observation."""

    def __init__(self, bundle: Path | None, options: DashboardOptions, folder: Path) -> None:
        self._notices, self._times = folder / "notices", folder / "times"
        arguments = [str(folder / "film.mkv"), "--realtime", "--web", "0", "--backend", options.backend]
        arguments += ["--precision", options.precision] if options.precision else []
        arguments += ["--bundle", str(bundle)] if bundle else []
        request = {"arguments": arguments, "notices": str(self._notices), "times": str(self._times)}
        self.child = Child(("-m", "mma_benchmarks.dashboard.child"), request)
        self.process = psutil.Process(self.child.pid)

    def link(self) -> str:
        """Where the page is, as soon as it is there."""
        end_s = time.monotonic() + START_S
        while time.monotonic() < end_s and self.process.is_running():
            with contextlib.suppress(OSError):
                if found := re.search(r"open (http\S+)", self._notices.read_text(encoding="utf-8")):
                    return found[1]
            time.sleep(0.1)
        raise BackendError(f"no page was served in {START_S:g} s")

    def times(self) -> dict[str, float]:
        """The newest line of the child's times."""
        lines = self._times.read_text(encoding="utf-8").splitlines()
        return json.loads(lines[-1])

    def end(self) -> int:
        """Stop it as Ctrl-C would: the exit code."""
        os.kill(self.child.pid, signal.SIGTERM)
        code = self.child.result(timeout_s=STOP_S)
        self.child.close()
        return code

    def __exit__(self, *exc_info: object) -> None:
        self.child.close(at_once=exc_info[0] is not None)


def _observe(run: _Run, options: DashboardOptions, advance: Advance) -> Dashboard:
    link, program = run.link(), executable()
    time.sleep(SETTLE_S)
    advance("nobody looks")
    phases = [_phase(run, "nobody looks", 0.0, options.seconds)]
    advance("one viewer")
    seen: list[list[float]] = []
    if program:
        with Browser(program, link) as browser:
            time.sleep(SETTLE_S / 2)
            before = len(browser.seen())
            phases.append(_phase(run, "one viewer, a browser", 1.0, options.seconds))
            seen = browser.seen()[before:]
    else:
        with Visitors(link, 1, (10 * options.seconds, 10 * options.seconds)):
            time.sleep(SETTLE_S / 2)
            phases.append(_phase(run, "one viewer", 1.0, options.seconds))
    advance("viewers come and go")
    samples: list[DashboardSample] = []
    with Visitors(link) as visitors:
        start_s, first = time.monotonic(), run.times()
        while (now_s := time.monotonic() - start_s) < 60 * options.minutes:
            samples.append(_sample(run, now_s, visitors.inside))
            time.sleep(SAMPLE_S)
        mean = float(np.mean([sample.viewers for sample in samples]))
        phases.append(_shares(f"up to {visitors._most} come and go", mean, first, run.times()))
    visits, code = visitors.visits, run.end()
    flashes, ages = flash_ages_ms(seen), [1000 * (shown - arrived) for shown, arrived, _, _ in seen]
    flash_p50, flash_p95 = _spread(flashes)
    picture_p50, picture_p95 = _spread(ages)
    settled = [sample for sample in samples if sample.at_s >= 12 * options.minutes] or samples  # a fifth of it
    return Dashboard(
        settings=DashboardSettings(options.seconds, options.minutes, *SIZE, FPS, program and Path(program).name),
        phases=phases,
        flashes=len(flashes),
        flash_p50_ms=flash_p50,
        flash_p95_ms=flash_p95,
        pictures_per_s=round(len(seen) / options.seconds, 1) if seen else None,
        picture_p50_ms=picture_p50,
        picture_p95_ms=picture_p95,
        visits=visits,
        memory_slope_mib_per_h=round(slope_per_h(settled), 2),
        exit_code=code,
        samples=samples,
    )


def _phase(run: _Run, name: str, viewers: float, seconds: float) -> DashboardPhase:
    first = run.times()
    time.sleep(seconds)
    return _shares(name, viewers, first, run.times())


def _shares(name: str, viewers: float, first: dict[str, float], last: dict[str, float]) -> DashboardPhase:
    passed_s = last["at_s"] - first["at_s"]
    shares = {key: round((last[key] - first[key]) / passed_s, 4) for key in ("page_s", "process_s")}
    load = round(os.getloadavg()[0], 2)
    return DashboardPhase(name, round(passed_s, 1), round(viewers, 2), shares["page_s"], shares["process_s"], load)


def _sample(run: _Run, at_s: float, viewers: int) -> DashboardSample:
    try:
        with run.process.oneshot():
            memory_mib = round(run.process.memory_info().rss / MIB, 2)
            return DashboardSample(
                round(at_s, 1), memory_mib, run.process.num_threads(), run.process.num_fds(), viewers
            )
    except psutil.Error as error:
        raise BackendError(f"the run ended after {at_s:.0f} s") from error


def flash_ages_ms(seen: list[list[float]]) -> list[float]:
    """For each flash, from the arrival of its first picture to the page that shows it or its second one.

    `seen`: of each picture that was shown when that was, when it arrived (wall clock, seconds), its time in the film,
    and how bright its corner is. A flash begins with a second of the film.
    """
    ages = []
    for before, after in itertools.pairwise(seen):
        shown, arrived, time_s, light = after
        if light > BRIGHT >= before[3]:
            ages.append(1000 * (shown - (arrived - time_s % 1.0)))
    return ages


def slope_per_h(samples: list[DashboardSample]) -> float:
    """MiB per hour: the line that fits the memory best (least squares)."""
    if len(samples) < 2:
        return 0.0
    return 3600 * float(np.polyfit([each.at_s for each in samples], [each.memory_mib for each in samples], 1)[0])


def _spread(values: list[float]) -> tuple[float | None, float | None]:
    return tuple(round(float(each), 1) for each in np.percentile(values, (50, 95))) if values else (None, None)
