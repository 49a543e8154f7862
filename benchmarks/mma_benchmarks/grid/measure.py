"""Latency over a grid of backends, precisions, image sizes and batches, in one run.

Each cell is a process of its own, so that its memory is its own and its crash is one row. The cells of one model and
batch are alive together and compute in turns, round after round, so that what else the machine does, and how warm it
is, falls on all of them alike; PyTorch in eager mode and the machine's matrix product take their turns among them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from mma_benchmarks.grid.child import PEAK, UNCOUNTED_CALLS, Worker, cache_environment
from mma_benchmarks.grid.options import GridOptions, plan_cells, prepare_subjects
from mma_benchmarks.grid.runners import EAGER, EAGER_CUDA, TORCH_RUNNERS
from mma_benchmarks.grid.subjects import Subject, model_of
from mma_benchmarks.machine.energy import Meter, find_meter
from mma_benchmarks.machine.facts import MIB, describe_machine, gpu_memory_mib
from mma_benchmarks.result import Advance, Result, utc_now
from mma_benchmarks.schema import Grid, GridCell, GridSettings, MatmulSpeed, Refused, summarise
from mma_edge.errors import BackendError

LIBRARIES = ("torch", "openvino", "onnxruntime-gpu", "tensorrt", "nvidia-ml-py")
UNCACHED = (EAGER, EAGER_CUDA)
"""Runners that keep nothing between two openings."""
MAX_CALLS = 200
"""Of one turn: a tiny model must not fill the memory with durations."""


@dataclass(frozen=True)
class Asked:
    """One cell as the command line means it."""

    subject: Subject
    runner: str
    precision: str
    batch: int

    def __str__(self) -> str:
        return f"{self.subject.name}, {self.runner} {self.precision}, batch {self.batch}"


@dataclass
class Running:
    """A cell that is open and takes its turns."""

    asked: Asked
    worker: Worker
    load_cold_s: float | None
    meter: Meter | None
    calls: int = 1
    durations_ms: list[float] = field(default_factory=list)
    energy_j: float = 0.0
    metered_calls: int = 0
    last: dict = field(default_factory=dict)  # what its process told at its end

    def take_turn(self, turn_s: float) -> None:
        if self.meter:
            self.meter.start()
        try:
            durations_ms = self.worker.turn(self.calls)
        finally:
            energy_j = self.meter.stop() if self.meter else 0.0
        self.durations_ms += durations_ms
        self.energy_j += energy_j
        self.metered_calls += UNCOUNTED_CALLS + len(durations_ms)
        self.calls = int(np.clip(1000 * turn_s / np.median(durations_ms), 1, MAX_CALLS))


class GridRun:
    """What is measured so far, and what could not be. Close it."""

    def __init__(self, options: GridOptions, folder: Path, advance: Advance) -> None:
        self.options, self.advance = options, advance
        self.environment = cache_environment(folder / "caches")
        self.cells: list[GridCell] = []
        self.refused: list[Refused] = []
        self.flops: dict[str, int] = {}
        self.peaks: dict[tuple[str, str], tuple[float, int]] = {}
        self._opened_before: set[tuple[str, str, str]] = set()
        self._meters: dict[str, Meter | None] = {}
        self._largest_mib = 0.0

    def measure(self, asked: list[Asked]) -> None:
        """The cells of one model and batch."""
        with contextlib.ExitStack() as stack:
            running: list[Running] = []
            for cell in asked:
                self.advance(f"opening {cell}")
                if opened := self._open(cell):
                    stack.enter_context(opened.worker)
                    running.append(opened)
            peaks: list[Worker] = []
            for device in sorted({run.worker.facts["device"] for run in running}):
                with contextlib.suppress(BackendError):  # no torch here: the peak stays unknown, and the page says so
                    worker = Worker({"runner": PEAK, "device": device}, self.environment)
                    peaks.append(stack.enter_context(worker))
            self._take_turns(running, peaks)
            self._finish(running, peaks)

    def _take_turns(self, running: list[Running], peaks: list[Worker]) -> None:
        # The first round only finds out how many calls make a turn; its durations do not count.
        for number in range(self.options.rounds + 1):
            self.advance(f"round {number} of {self.options.rounds}" if number else "warming up")
            # Another cell begins each round: none always computes on a chip that the same other one has just heated.
            first = number % max(1, len(running))
            for run in [*running[first:], *running[:first]]:
                try:
                    run.take_turn(self.options.turn_s)
                except BackendError as error:
                    running.remove(run)
                    self._refuse(run.asked, f"{error.what} (in round {number})")
                    continue
                if number == 0:
                    run.durations_ms.clear()
                    run.energy_j, run.metered_calls = 0.0, 0
            for worker in list(peaks):
                try:
                    worker.turn(1)
                except BackendError:
                    peaks.remove(worker)

    def _finish(self, running: list[Running], peaks: list[Worker]) -> None:
        for worker in peaks:
            device = worker.facts["device"]
            with contextlib.suppress(BackendError):
                for precision, (gflops, size) in worker.finish()["peaks"].items():
                    best = self.peaks.get((device, precision), (0.0, 0))
                    self.peaks[device, precision] = max(best, (gflops, size))
        done: list[Running] = []
        for run in running:
            gpu_mib = gpu_memory_mib(run.worker.pid) if run.worker.facts["device"] == "cuda" else None
            try:
                run.last = {**run.worker.finish(), "gpu_memory_mib": gpu_mib}
                done.append(run)
            except BackendError as error:
                self._refuse(run.asked, error.what)
        references = {run.asked.runner: run for run in done if run.asked.precision == "fp32"}
        for run in done:
            self._largest_mib = max(self._largest_mib, run.last["peak_memory_mib"])
            self.cells.append(self._figures(run, references))

    def _figures(self, run: Running, references: dict[str, Running]) -> GridCell:
        facts, summary, asked, last = run.worker.facts, summarise(run.durations_ms), run.asked, run.last
        reference = EAGER_CUDA if facts["device"] == "cuda" else EAGER
        difference = np.nan
        if eager := references.get(reference):
            difference = np.abs(np.array(last["logits"]) - np.array(eager.last["logits"])).max()
        return GridCell(
            subject=asked.subject.name,
            # "auto" and an unstated precision have become something definite.
            **{name: facts[name] for name in ("runner", "precision", "device", "details")},
            batch=asked.batch,
            call_ms=summary,
            clips_per_s=1000 * asked.batch / summary.mean,
            load_cold_s=run.load_cold_s,
            load_warm_s=facts["load_s"],
            peak_memory_mib=last["peak_memory_mib"],
            gpu_memory_mib=last["gpu_memory_mib"],
            energy_j_per_clip=run.energy_j / (run.metered_calls * asked.batch) if run.meter else None,
            energy_meter=run.meter.name if run.meter else "",
            reference=reference,
            speedup=float(np.median(eager.durations_ms)) / summary.p50 if eager else None,
            logit_difference=float(difference) if np.isfinite(difference) else None,
        )

    def _open(self, cell: Asked) -> Running | None:
        if why := _lacks(cell):
            return self._refuse(cell, why)
        available_mib = psutil.virtual_memory().available / MIB
        if available_mib < self._largest_mib:
            text = f"not started: {available_mib:.0f} MiB of memory left, the largest cell took {self._largest_mib:.0f}"
            return self._refuse(cell, f"{text}; measure fewer at once")
        subject = cell.subject
        request = {name: getattr(cell, name) for name in ("runner", "precision", "batch")}
        request["bundle"] = str(subject.bundles.get(cell.precision, subject.any_bundle))
        request["checkpoint"] = str(subject.checkpoint) if subject.checkpoint else None
        cold_s = None
        try:
            known = (subject.name, cell.runner, cell.precision)
            if cell.runner not in UNCACHED and known not in self._opened_before:
                # A process that only opens it, with empty caches, and ends; then the one that is timed.
                with Worker(request, self.environment) as first:
                    cold_s = first.facts["load_s"]
                    first.turn(1)  # what is compiled at the first call belongs to the caches, too
                self._opened_before.add(known)
            worker = Worker(request, self.environment)
        except BackendError as error:
            return self._refuse(cell, error.what)
        if flops := worker.facts["flops_per_clip"]:
            self.flops[subject.name] = flops
        return Running(cell, worker, cold_s, self._meter(worker.facts["device"]))

    def _meter(self, device: str) -> Meter | None:
        if device not in self._meters:
            self._meters[device] = find_meter(device)
        return self._meters[device]

    def _refuse(self, cell: Asked, why: str) -> None:
        self.refused.append(Refused(cell.subject.name, cell.runner, cell.precision, cell.batch, why))

    def results(self, subjects: list[Subject]) -> Grid:
        """All of it, with each speed in GFLOP/s and its share of the peak now that these are known."""
        return Grid(
            GridSettings(self.options.rounds, self.options.turn_s, UNCOUNTED_CALLS),
            [subject.facts(self.flops.get(subject.name)) for subject in subjects],
            [MatmulSpeed(*key, gflops, size) for key, (gflops, size) in sorted(self.peaks.items())],
            [self._with_speed(cell) for cell in self.cells],
            self.refused,
        )

    def _with_speed(self, cell: GridCell) -> GridCell:
        if (flops := self.flops.get(cell.subject)) is None:
            return cell
        gflops = flops * cell.batch / cell.call_ms.p50 / 1e6
        peak, _ = self.peaks.get((cell.device, cell.precision), (None, 0))
        return dataclasses.replace(cell, gflops=gflops, peak_share=gflops / peak if peak else None)

    def close(self) -> None:
        """Let go of the sensors."""
        for meter in self._meters.values():
            if meter:
                meter.close()


def measure_grid(options: GridOptions, command: str, advance: Advance = lambda step: None) -> Result:
    """Run the benchmark.

    Raises:
        MMAEdgeError: a model cannot be read or exported. What cannot run on this machine is a row, not an error.
    """
    machine = describe_machine()
    machine.libraries.update({name: version for name in LIBRARIES if (version := _version(name))})
    with tempfile.TemporaryDirectory(prefix="mma-bench-") as name:
        subjects = prepare_subjects(options, Path(name), advance)
        with contextlib.closing(GridRun(options, Path(name), advance)) as run:
            for subject in subjects:
                for batch in options.batches:
                    run.measure([Asked(subject, *cell, batch) for cell in plan_cells(options, subject)])
    return Result("grid", utc_now(), command, machine, model_of(subjects), run.results(subjects))


def _lacks(cell: Asked) -> str | None:
    """Why its bundle cannot serve this cell, where it cannot."""
    subject, precision = cell.subject, cell.precision
    if cell.runner in TORCH_RUNNERS:
        return None
    if precision in subject.missing:
        return subject.missing[precision]
    if precision not in subject.bundles:
        return f"the bundle has no precision {precision}; export it with mma-export --precision {precision}"
    return subject.no_plan.get(precision) if cell.runner == "tensorrt" else None


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
