"""How many files a minute `mma-edge batch` does, and how that grows with the workers.

The same files are done by each number of workers in turns, so that whatever else the machine does hits all alike.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mma_benchmarks.batch.schema import Batch, BatchSettings, BatchTurn, BatchWay
from mma_benchmarks.latency.measure import describe_model
from mma_benchmarks.machine.facts import describe_machine
from mma_benchmarks.result import Advance, Result, utc_now
from mma_edge.batch.run import BatchOptions, run_batch
from mma_edge.batch.tasks import Job
from mma_edge.errors import SourceError, UsageError
from mma_edge.recognizer import Recognizer
from mma_edge.sources import sample_path
from mma_edge.sources.file import checked_path


@dataclass(frozen=True)
class BatchBenchOptions:
    """What to measure."""

    sources: tuple[str, ...] = ("sample",)  # or media files
    files: int = 24
    workers: tuple[int, ...] = (1, 2)
    repeat: int = 3  # turns of each number of workers
    backend: str = "auto"
    precision: str | None = None

    def __post_init__(self) -> None:
        for name in ("files", "repeat"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} {getattr(self, name)}", "at least 1")
        for number in self.workers:
            if not 1 <= number <= self.files:
                raise UsageError(f"--workers {number}", f"from 1 to the {self.files} files")


def measure_batch(
    bundle: str | os.PathLike | None, options: BatchBenchOptions, command: str, advance: Advance = lambda step: None
) -> Result:
    """Run the benchmark.

    Raises:
        MMAEdgeError: as `mma_edge.load` and `run_batch` raise it; SourceError where a source fails.
    """
    machine = describe_machine()
    model = describe_model(Recognizer.open(bundle, options.backend, options.precision))
    folder_of_model = None if bundle is None else str(Path(bundle).absolute())
    job = Job(folder_of_model, model.backend, model.precision)
    turns: dict[int, list[BatchTurn]] = {workers: [] for workers in options.workers}
    media_s = 0.0
    with tempfile.TemporaryDirectory(prefix="mma-bench-batch-") as place:
        corpus = Path(place) / "videos"
        copy_sources(options, corpus)
        for number in range(options.repeat):
            for workers in options.workers if number % 2 == 0 else reversed(options.workers):
                advance(f"turn {number + 1} of {options.repeat}, {workers} worker{'s' if workers > 1 else ''}")
                output = Path(place) / "out"
                load, before_s = os.getloadavg()[0], _children_s()
                status = run_batch(job, BatchOptions((corpus,), output, workers=workers))
                if status.failed:
                    what = f"{status.failed} of {options.files} files failed"
                    raise SourceError(what, "sources that mma-edge run can read", "try --source sample")
                turns[workers].append(BatchTurn(status.wall_s, _children_s() - before_s, load))
                media_s = status.media_s
                # The worker's engine, which has one thread.
                details = json.loads((output / "batch.json").read_text(encoding="utf-8"))["model"]["details"]
                model = dataclasses.replace(model, engine=details)
                shutil.rmtree(output)
    settings = BatchSettings(
        [os.path.basename(source) for source in options.sources],
        options.files,
        media_s,
        options.repeat,
        job.options["window_s"],
        job.options["hop_s"],
    )
    return Result("batch", utc_now(), command, machine, model, Batch(settings, list(ways_of(turns, settings))))


def ways_of(turns: dict[int, list[BatchTurn]], settings: BatchSettings) -> Iterator[BatchWay]:
    """The figures of each number of workers."""
    walls_s = {workers: statistics.median(turn.wall_s for turn in own) for workers, own in turns.items()}
    first_s = next(iter(walls_s.values()))
    for workers, wall_s in walls_s.items():
        rate = settings.media_s / wall_s
        yield BatchWay(workers, turns[workers], 60 * settings.files / wall_s, rate, rate / workers, first_s / wall_s)


def copy_sources(options: BatchBenchOptions, corpus: Path) -> None:
    """The sources in turns; a number after a file's end, where no decoder looks, makes each one's content its own."""
    paths = [checked_path(sample_path() if source == "sample" else source) for source in options.sources]
    corpus.mkdir()
    for number in range(options.files):
        path = paths[number % len(paths)]
        copy = corpus / f"{number:05d}{path.suffix}"
        shutil.copyfile(path, copy)
        with copy.open("ab") as file:
            file.write(number.to_bytes(8, "big"))


def _children_s() -> float:
    """Processor time of the processes of this one that have ended."""
    times = os.times()
    return times.children_user + times.children_system
