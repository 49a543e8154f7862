"""Latency over a grid of backends, precisions, image sizes and batches, in one run.

Each cell is a process of its own, so that its memory is its own and its crash is one row. The cells of one model and
batch are alive together and compute in turns, round after round, so that what else the machine does, and how warm it
is, falls on all of them alike; PyTorch in eager mode and the machine's matrix product take their turns among them.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from mma_benchmarks.grid.child import PEAK, UNCOUNTED_CALLS
from mma_benchmarks.grid.options import GridOptions, plan_cells, prepare_subjects
from mma_benchmarks.grid.runners import EAGER, EAGER_CUDA, TORCH_RUNNERS
from mma_benchmarks.grid.subjects import Subject
from mma_benchmarks.grid.worker import Worker, cache_environment
from mma_benchmarks.machine.energy import Meter, find_meter, gpu_memory_mib
from mma_benchmarks.machine.facts import MIB, describe_machine
from mma_benchmarks.result import Result, utc_now
from mma_benchmarks.schema import summarise
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

    @property
    def key(self) -> dict:
        return {"subject": self.subject.name, "runner": self.runner, "precision": self.precision, "batch": self.batch}


@dataclass
class Running:
    """A cell at work."""

    asked: Asked
    worker: Worker
    load_cold_s: float | None
    meter: Meter | None
    calls: int = 1
    durations_ms: list[float] = field(default_factory=list)
    energy_j: float = 0.0
    metered_calls: int = 0

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


class Grid:
    """The run: what is measured so far, what could not be, and what both need."""

    def __init__(self, options: GridOptions, folder: Path, advance: Callable[[str], None]) -> None:
        self.options, self.advance = options, advance
        self.environment = cache_environment(folder / "caches")
        self.cells: list[dict] = []
        self.refused: list[dict] = []
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
                self.advance(f"opening {_words(cell)}")
                if opened := self._open(cell):
                    stack.callback(opened.worker.close)
                    running.append(opened)
            peaks = [self._open_peak(device) for device in sorted({run.worker.facts["device"] for run in running})]
            peaks = [worker for worker in peaks if worker]
            for worker in peaks:
                stack.callback(worker.close)
            self._take_turns(running, peaks)
            self._finish(running, peaks)

    def _take_turns(self, running: list[Running], peaks: list[Worker]) -> None:
        # The first round only finds out how many calls make a turn; its durations do not count.
        for number in range(self.options.rounds + 1):
            self.advance(f"round {number} of {self.options.rounds}" if number else "warming up")
            # Another cell begins each round: none always comes after the same neighbour's heat.
            for run in [*running[number % max(1, len(running)) :], *running[: number % max(1, len(running))]]:
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
                    if gflops > self.peaks.get((device, precision), (0.0, 0))[0]:
                        self.peaks[device, precision] = gflops, size
        done: list[tuple[Running, dict]] = []
        for run in running:
            gpu_mib = gpu_memory_mib(run.worker.pid) if run.worker.facts["device"] == "cuda" else None
            try:
                done.append((run, {**run.worker.finish(), "gpu_memory_mib": gpu_mib}))
            except BackendError as error:
                self._refuse(run.asked, error.what)
        by_reference = {run.asked.runner: (run, last) for run, last in done if run.asked.precision == "fp32"}
        for run, last in done:
            self._largest_mib = max(self._largest_mib, last["peak_memory_mib"])
            self.cells.append(self._figures(run, last, by_reference))

    def _figures(self, run: Running, last: dict, by_reference: dict) -> dict:
        facts, summary = run.worker.facts, summarise(run.durations_ms)
        asked = run.asked
        reference = EAGER_CUDA if facts["device"] == "cuda" else EAGER
        eager, eager_last = by_reference.get(reference, (None, None))
        difference = None
        if eager_last:
            difference = float(np.abs(np.array(last["logits"]) - np.array(eager_last["logits"])).max())
        return {
            **asked.key,
            # "auto" and an unstated precision have become something definite.
            "runner": facts["runner"],
            "precision": facts["precision"],
            "device": facts["device"],
            "details": facts["details"],
            "call_ms": summary,
            "clips_per_s": 1000 * asked.batch / summary["mean"],
            "load_cold_s": run.load_cold_s,
            "load_warm_s": facts["load_s"],
            "peak_memory_mib": last["peak_memory_mib"],
            "gpu_memory_mib": last["gpu_memory_mib"],
            "energy_j_per_clip": run.energy_j / (run.metered_calls * asked.batch) if run.meter else None,
            "energy_meter": run.meter.name if run.meter else "",
            "reference": reference,
            "speedup": float(np.median(eager.durations_ms)) / summary["p50"] if eager else None,
            "logit_difference": difference if difference is not None and np.isfinite(difference) else None,
            # Filled in at the end, when the model's work and the machine's peak are known.
            "gflops": None,
            "peak_share": None,
        }

    def _open(self, cell: Asked) -> Running | None:
        folder = cell.subject.bundles.get(cell.precision, cell.subject.any_bundle)
        if cell.precision in cell.subject.missing and cell.runner not in TORCH_RUNNERS:
            return self._refuse(cell, cell.subject.missing[cell.precision])
        if cell.precision not in cell.subject.bundles and cell.runner not in TORCH_RUNNERS:
            return self._refuse(
                cell,
                f"the bundle has no precision {cell.precision}; export it with mma-export --precision {cell.precision}",
            )
        if cell.precision in cell.subject.no_plan and cell.runner == "tensorrt":
            return self._refuse(cell, cell.subject.no_plan[cell.precision])
        available_mib = psutil.virtual_memory().available / MIB
        if available_mib < self._largest_mib:
            text = f"not started: {available_mib:.0f} MiB of memory left, the largest cell took {self._largest_mib:.0f}"
            return self._refuse(cell, f"{text}; measure fewer at once")
        checkpoint = cell.subject.checkpoint
        request = {
            "runner": cell.runner,
            "precision": cell.precision,
            "batch": cell.batch,
            "bundle": str(folder),
            "checkpoint": str(checkpoint) if checkpoint else None,
        }
        cold_s = None
        try:
            known = (cell.subject.name, cell.runner, cell.precision)
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
            self.flops[cell.subject.name] = flops
        return Running(cell, worker, cold_s, self._meter(worker.facts["device"]))

    def _open_peak(self, device: str) -> Worker | None:
        try:
            return Worker({"runner": PEAK, "device": device}, self.environment)
        except BackendError:  # no torch here: the peak stays unknown, and the page says so
            return None

    def _meter(self, device: str) -> Meter | None:
        if device not in self._meters:
            self._meters[device] = find_meter(device)
        return self._meters[device]

    def _refuse(self, cell: Asked, why: str) -> None:
        self.refused.append({**cell.key, "why": why})

    def complete(self) -> None:
        """Speed in GFLOP/s and its share of the peak, now that all of it is known; sensors closed."""
        for cell in self.cells:
            flops = self.flops.get(cell["subject"])
            if flops is None:
                continue
            cell["gflops"] = flops * cell["batch"] / cell["call_ms"]["p50"] / 1e6
            if peak := self.peaks.get((cell["device"], cell["precision"])):
                cell["peak_share"] = cell["gflops"] / peak[0]
        for meter in self._meters.values():
            if meter:
                meter.close()


def measure_grid(options: GridOptions, command: str, advance: Callable[[str], None] = lambda step: None) -> Result:
    """Run the benchmark.

    Args:
        options: see `GridOptions`.
        command: the command line, for the record.
        advance: called before each step with its name.

    Raises:
        MMAEdgeError: a model cannot be read or exported. What cannot be run on this machine is no error but a row.
    """
    machine = describe_machine()
    machine["libraries"] |= {name: version for name in LIBRARIES if (version := _version(name))}
    with tempfile.TemporaryDirectory(prefix="mma-bench-") as name:
        subjects = prepare_subjects(options, Path(name), advance)
        grid = Grid(options, Path(name), advance)
        for subject in subjects:
            for batch in options.batches:
                grid.measure([Asked(subject, *cell, batch) for cell in plan_cells(options, subject)])
        grid.complete()
    results = {
        "settings": {"rounds": options.rounds, "turn_s": options.turn_s, "uncounted_calls": UNCOUNTED_CALLS},
        "subjects": [
            {
                "name": subject.name,
                "origin": subject.origin,
                "manifest_sha256": subject.manifest_sha256,
                "image_size": subject.image_size,
                "labels": list(subject.labels),
                "flops_per_clip": grid.flops.get(subject.name),
            }
            for subject in subjects
        ],
        "peaks": [
            {"device": device, "precision": precision, "gflops": gflops, "size": size}
            for (device, precision), (gflops, size) in sorted(grid.peaks.items())
        ],
        "cells": grid.cells,
        "refused": grid.refused,
    }
    return Result("grid", utc_now(), command, machine, grid_facts(subjects), results)


def grid_facts(subjects: list[Subject]) -> dict:
    """The `bundle` object of a result about several."""
    first = subjects[0]
    others = f" and {len(subjects) - 1} more" if len(subjects) > 1 else ""
    return {
        "name": first.name + others,
        "manifest_sha256": first.manifest_sha256,
        "labels": list(first.labels),
        "image_size": first.image_size,
        "precision": "see the cells",
        "backend": "see the cells",
        "engine": "see the cells",
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _words(cell: Asked) -> str:
    return f"{cell.subject.name}, {cell.runner} {cell.precision}, batch {cell.batch}"
