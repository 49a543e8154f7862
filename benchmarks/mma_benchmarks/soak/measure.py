"""A live run at its own pace whose stream fails once a minute: does it keep its memory, its threads and its age?"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

import mma_edge
from mma_benchmarks.latency.measure import describe_model
from mma_benchmarks.machine.facts import MIB, describe_machine
from mma_benchmarks.result import Advance, Result, utc_now
from mma_benchmarks.soak.schema import Disturbance, Soak, SoakSample, SoakSettings, SoakThird
from mma_benchmarks.soak.stream import Link, Server, write_clip
from mma_edge.child import Child
from mma_edge.errors import BackendError, UsageError

SIZES_PX = (480, 320)
SAMPLE_S, TICK_S = 5.0, 0.25
SETTLE_S = 600.0
"""Until then, or for a fifth of the time, libraries and allocators take what they will keep."""
START_S = 60.0
"""Longest time until the first answer."""
AWAY_S = 6.0
"""How long the link is silent, or the server away."""
STOP_S = 20.0


@dataclass(frozen=True)
class SoakOptions:
    """What to measure."""

    minutes: float = 30.0
    every_s: float = 60.0  # from one disturbance to the next
    backend: str = "auto"
    precision: str | None = None

    def __post_init__(self) -> None:
        if not 0.5 <= self.minutes <= 24 * 60:
            raise UsageError(f"--minutes {self.minutes:g}", "half a minute to a day")
        if not self.every_s >= 15.0:
            raise UsageError(f"--every {self.every_s:g}", "at least 15 s: the stream has to come back in between")


def measure_soak(
    bundle: Path | None, options: SoakOptions, command: str, advance: Advance = lambda step: None
) -> Result:
    """Run the benchmark with a bundle's folder, None for the embedded default model.

    Raises:
        DependencyError: no RTSP server. BackendError: the run gave no answer, or ended before its time.
    """
    machine = describe_machine()
    model = describe_model(mma_edge.load(bundle, options.backend, options.precision))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        advance("the clips")
        for side_px in SIZES_PX:
            write_clip(folder / f"{side_px}.ts", side_px)
        with _Stream(folder) as stream:
            results = _observe(bundle, options, folder, stream, advance)
    return Result("soak", utc_now(), command, machine, model, results)


class _Stream(contextlib.AbstractContextManager):
    """The server behind its link, and what can be done to them."""

    def __init__(self, folder: Path) -> None:
        self._clips = itertools.cycle(folder / f"{side_px}.ts" for side_px in SIZES_PX)
        self._server = Server(next(self._clips))
        self.link = Link(self._server.port)
        self.ways = itertools.cycle((self.cut, self.restart, self.silence, self.leave))

    def cut(self) -> float:
        """the link is cut"""
        self.link.cut()
        return 0.0

    def restart(self) -> float:
        """the server restarts with another size"""
        self.link.up = False
        self._server.__exit__()
        self._server = Server(next(self._clips))
        self.link.target, self.link.up = self._server.port, True
        return 0.0

    def silence(self) -> float:
        """the link is silent"""
        self.link.flows.clear()
        return AWAY_S

    def leave(self) -> float:
        """the server is away, and comes back with another size"""
        self.link.up = False
        self._server.__exit__()
        return AWAY_S

    def mend(self) -> None:
        """Undo what lasted."""
        if not self.link.flows.is_set():
            self.link.cut()  # what waits in it is old
            self.link.flows.set()
        if not self.link.up:
            self.restart()

    def __exit__(self, *exc_info: object) -> None:
        self.link.__exit__()
        self._server.__exit__()


class _Run(contextlib.AbstractContextManager):
    """The process under observation."""

    def __init__(self, bundle: Path | None, options: SoakOptions, folder: Path, port: int) -> None:
        self.records, self._stats, self._notices = (folder / name for name in ("records.jsonl", "stats", "notices"))
        arguments = [f"rtsp://127.0.0.1:{port}/clip", "--backend", options.backend, "--quiet"]
        arguments += ["--precision", options.precision] if options.precision else []
        arguments += ["--bundle", str(bundle)] if bundle else []
        arguments += ["--output", str(self.records), "--stats", str(self._stats)]
        request = {"arguments": arguments, "notices": str(self._notices)}
        self.child = Child(("-m", "mma_benchmarks.soak.child"), request)
        self.process = psutil.Process(self.child.pid)
        self.line: dict = {}

    def look(self) -> dict:
        """The newest line of `--stats`, {} before the first."""
        with contextlib.suppress(OSError, ValueError), open(self._stats, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 8192))
            whole = file.read().split(b"\n")[:-1]
            self.line = json.loads(whole[-1]) if whole else {}
        return self.line

    def source(self) -> dict:
        return next(iter(self.line.get("sources", {}).values()), {})

    def sample(self, at_s: float) -> SoakSample:
        age = self.line.get("age_ms") or {}
        with self.process.oneshot():
            return SoakSample(
                at_s=round(at_s, 1),
                memory_mib=round(self.process.memory_info().rss / MIB, 2),
                threads=self.process.num_threads(),
                descriptors=self.process.num_fds(),
                answers=self.line.get("answers", 0),
                reopened=self.source().get("reopened", 0),
                age_p50_ms=age.get("p50"),
                age_p95_ms=age.get("p95"),
                load_average=round(os.getloadavg()[0], 2),
            )

    def end(self) -> tuple[int, int, int]:
        """Stop it as a service manager does: exit code, number of notices, and its children that are left."""
        children = self.process.children(recursive=True)
        os.kill(self.child.pid, signal.SIGTERM)
        code = self.child.result(timeout_s=STOP_S)
        self.child.close()
        left = [each for each in children if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
        return code, len(self._notices.read_text(encoding="utf-8").splitlines()), len(left)

    def why(self) -> str:
        with contextlib.suppress(OSError):
            return " ".join(self._notices.read_text(encoding="utf-8").splitlines()[-1:])[:200]
        return ""

    def __exit__(self, *exc_info: object) -> None:
        self.child.close(at_once=exc_info[0] is not None)


def _observe(bundle: Path | None, options: SoakOptions, folder: Path, stream: _Stream, advance: Advance) -> Soak:
    with _Run(bundle, options, folder, stream.link.port) as run:
        deadline_s = time.monotonic() + START_S
        while not run.look().get("answers"):
            if time.monotonic() > deadline_s or not run.process.is_running():
                raise BackendError(f"the run gave no answer in {START_S:g} s ({run.why()})")
            time.sleep(TICK_S)
        start_s, end_s = time.monotonic(), 60 * options.minutes
        began_s = run.line["run_s"]
        samples: list[SoakSample] = []
        done: list[Disturbance] = []
        next_s, mend_s, waiting = options.every_s, None, False
        before = 0
        while (now_s := time.monotonic() - start_s) < end_s:
            run.look()
            if not samples or now_s - samples[-1].at_s >= SAMPLE_S:
                try:
                    samples.append(run.sample(now_s))
                except psutil.Error as error:
                    raise BackendError(f"the run ended after {now_s:.0f} s ({run.why()})") from error
            if mend_s is not None and now_s >= mend_s:
                stream.mend()
                mend_s = None
            if waiting and mend_s is None and run.source().get("reopened", 0) > before and _sees(run):
                last = done[-1]
                back_s = round(now_s - last.at_s - last.seconds, 1)
                done[-1] = Disturbance(last.at_s, last.what, last.seconds, back_s)
                waiting = False
            # The last one has time to be over.
            if now_s >= next_s and end_s - now_s > options.every_s / 2:
                before, way = run.source().get("reopened", 0), next(stream.ways)
                advance(f"{now_s / 60:.0f} of {options.minutes:g} min: {way.__doc__}")
                seconds = way()
                now_s = time.monotonic() - start_s
                done.append(Disturbance(round(now_s, 1), way.__doc__, seconds, None))
                mend_s, waiting = now_s + seconds if seconds else None, True
                next_s += options.every_s
            time.sleep(TICK_S)
        cpu = run.process.cpu_times()
        cpu_share = (cpu.user + cpu.system) / (time.monotonic() - start_s + began_s)
        code, notices, left = run.end()
        records = map(json.loads, run.records.read_text(encoding="utf-8").splitlines())
        ages = [(record["end_s"], record["age_ms"]) for record in records]
    settle_s = min(SETTLE_S, end_s / 5)
    settings = SoakSettings(options.minutes, options.every_s, SAMPLE_S, settle_s, _hop_s(ages), list(SIZES_PX))
    settled = [sample for sample in samples if sample.at_s >= settle_s] or samples
    return Soak(
        settings=settings,
        thirds=thirds(settled, ages, began_s),
        memory_slope_mib_per_h=round(slope_per_h(settled), 3),
        cpu_share=round(cpu_share, 3),
        reconnects=samples[-1].reopened,
        notices=notices,
        exit_code=code,
        children_left=left,
        disturbances=done,
        samples=samples,
    )


def _sees(run: _Run) -> bool:
    """Whether pictures come."""
    age_s = run.source().get("frame_age_s")
    return age_s is not None and age_s < 1.0


def slope_per_h(samples: Sequence[SoakSample]) -> float:
    """MiB per hour: the line that fits the memory best (least squares)."""
    if len(samples) < 2:
        return 0.0
    return 3600 * float(np.polyfit([each.at_s for each in samples], [each.memory_mib for each in samples], 1)[0])


def thirds(samples: Sequence[SoakSample], ages: Sequence[tuple[float, float]], began_s: float) -> list[SoakThird]:
    """The run after it has settled. `ages`: end of each answer's window in seconds of the run, its age in ms;
    `began_s`: the run's time at the first sample's zero."""
    first_s, last_s = samples[0].at_s, samples[-1].at_s
    borders = np.linspace(first_s, last_s + 1e-6, 4)
    found = []
    for begin_s, end_s in itertools.pairwise(borders):
        part = [each for each in samples if begin_s <= each.at_s < end_s] or [samples[-1]]
        own = [age for at_s, age in ages if begin_s <= at_s - began_s < end_s]
        p50, p95 = map(float, np.percentile(own, (50, 95))) if own else (None, None)
        found.append(
            SoakThird(
                answers=len(own),
                age_p50_ms=p50 and round(p50, 1),
                age_p95_ms=p95 and round(p95, 1),
                memory_mib=round(float(np.mean([each.memory_mib for each in part])), 2),
                threads=int(np.median([each.threads for each in part])),
                descriptors=int(np.median([each.descriptors for each in part])),
                load_average=round(float(np.mean([each.load_average for each in part])), 2),
            )
        )
    return found


def _hop_s(ages: Sequence[tuple[float, float]]) -> float:
    """Seconds from one answer to the next."""
    return round(float(np.median(np.diff(sorted({end_s for end_s, _ in ages})))), 3) if len(ages) > 1 else 0.0
