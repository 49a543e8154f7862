"""A batch from its corpus to its records."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mma_edge import __version__
from mma_edge.batch.cluster import Cluster
from mma_edge.batch.corpus import Corpus, find_corpus
from mma_edge.batch.folder import MANIFEST, BatchFolder, failed_of, utc_now
from mma_edge.batch.plan import Plan, make_plan
from mma_edge.batch.pool import Pool
from mma_edge.batch.tasks import OPTIONS, Answer, Facts, Failure, Job, Task, plain_options
from mma_edge.batch.worker import LocalWorker
from mma_edge.bundle import read_bundle, sha256
from mma_edge.bundle.manifest import MANIFEST as MODEL_MANIFEST
from mma_edge.errors import DependencyError, OutputError, UsageError
from mma_edge.pipeline import StreamOptions
from mma_edge.types import Notify, ignore_notice

MANIFEST_S = 10.0
"""How often batch.json is written anew."""


@dataclass(frozen=True)
class BatchOptions:
    """What to do, but for the model and how clips are cut: see `Job`."""

    inputs: tuple[Path, ...]
    output: Path
    patterns: tuple[str, ...] = ()
    workers: int | None = None  # None: one for each core, on a GPU one
    retry_failed: bool = False
    overwrite: bool = False
    ray: str | None = None  # address of a cluster
    notify: Notify = ignore_notice


@dataclass
class Status:
    """How far a batch is."""

    phase: str = "looking for files"
    files: int = 0
    skipped: int = 0  # done before
    done: int = 0  # in this run
    moved: int = 0
    duplicates: int = 0
    failed: int = 0  # all that are known to fail
    answers: int = 0
    media_s: float = 0.0  # done in this run
    reading_s: dict[str, float] = field(default_factory=dict)  # of the files that are being read
    size: int = 0  # bytes of the files to do
    size_done: int = 0
    workers: int = 0
    started_s: float = field(default_factory=time.monotonic)  # of the first file
    ended_s: float | None = None

    @property
    def wall_s(self) -> float:
        return (self.ended_s or time.monotonic()) - self.started_s

    @property
    def media_rate(self) -> float:
        """Seconds of video per second."""
        return (self.media_s + sum(self.reading_s.values())) / max(1e-3, self.wall_s)

    @property
    def left_s(self) -> float | None:
        """Seconds that are left, judged by the bytes that are; None as long as nobody can know."""
        return self.wall_s * (self.size - self.size_done) / self.size_done if self.size_done else None

    @property
    def finished(self) -> int:
        """Files of which nothing is to be done any more."""
        return self.skipped + self.done + self.moved + self.duplicates + self.failed


def run_batch(job: Job, options: BatchOptions, follow: Callable[[Status], None] = lambda status: None) -> Status:
    """Do it; `follow` sees each step. What fails of single files is in the folder and in the status.

    Raises:
        MMAEdgeError: the inputs, the folder or the model are not what they should be; before any file is begun, but
            where the disk is full or no worker can be had any more. All that was done is kept.
        KeyboardInterrupt: Ctrl-C; the same.
    """
    status = Status()
    follow(status)
    corpus = find_corpus(options.inputs, options.patterns, options.output)
    if left_out := corpus.left_out():
        options.notify(f"left out: {left_out}")
    bundle = read_bundle(job.bundle)
    asked = {"model.digest": sha256(bundle.folder / MODEL_MANIFEST), "model.name": bundle.name}
    asked |= {f"options.{name}": job.options[name] for name in OPTIONS if name != "streaming" or not job.streaming}
    with BatchFolder(options.output, options.overwrite) as folder:
        _check_same(folder, asked)
        status.phase, status.files = "comparing with what is done", len(corpus.files)
        plan = make_plan(corpus, folder, options.retry_failed, lambda: follow(status))
        batch = _Batch(job, options, folder, corpus, plan, status, follow)
        if plan.todo:
            batch.recognise()
        else:
            batch.conclude()
    return status


class _Batch:
    """Between the pool and the folder."""

    def __init__(
        self,
        job: Job,
        options: BatchOptions,
        folder: BatchFolder,
        corpus: Corpus,
        plan: Plan,
        status: Status,
        follow: Callable[[Status], None],
    ) -> None:
        self.job, self.options, self.folder, self.corpus, self.plan = job, options, folder, corpus, plan
        self.status, self.follow = status, follow
        self.model: dict[str, Any] = folder.manifest.get("model", {})
        self.chosen: dict[str, Any] = folder.manifest.get("options", {})
        self.started = utc_now()
        self._written_s = 0.0

    def recognise(self) -> None:
        status, options = self.status, self.options
        status.phase = "opening the model"
        self.follow(status)
        cluster = Cluster(options.ray, self.job) if options.ray else None
        make_worker = cluster.worker if cluster else lambda: LocalWorker(self.job)
        try:
            with Pool(make_worker, self.plan.todo) as pool:
                facts = pool.open(options.workers)
                self._check(facts)
                self._settle()
                workers = options.workers or (cluster.cores() if cluster else _usual_workers(facts))
                status.workers = min(workers, len(self.plan.todo))
                status.phase, status.started_s = "recognising", time.monotonic()
                pool.begin(workers)
                for task, what in pool:
                    self._take(task, what)
        except BaseException:
            status.ended_s = time.monotonic()
            if self._written_s:  # not where nothing has begun
                self.write_manifest("interrupted")
            raise
        finally:
            if cluster:
                cluster.close()
        status.ended_s = time.monotonic()
        self.conclude()

    def conclude(self) -> None:
        """After the last file: the table, and the manifest of a batch that is whole."""
        status = self.status
        if not self._written_s:
            self._settle()
            status.ended_s = status.started_s
        status.phase = "writing the table"
        self.follow(status)
        try:
            self.folder.write_table(tuple(self.model.get("labels", ())))
        except DependencyError as error:
            self.options.notify(f"no records.parquet: {error} The records of each file are there.")
        self.write_manifest("ended")
        status.phase = "done"
        self.follow(status)

    def _check(self, facts: Facts) -> None:
        """What the worker's model turned out to be fits the folder."""
        model = {name: getattr(facts, name) for name in ("name", "digest", "labels", "backend", "precision", "details")}
        model["labels"] = list(facts.labels)
        chosen = {**self.job.options, "streaming": facts.streaming}
        given = {f"model.{name}": model[name] for name in ("backend", "precision")}
        _check_same(self.folder, {**given, "options.streaming": facts.streaming})
        for note in facts.notes:
            self.options.notify(note)
        earlier = self.folder.manifest.get("versions", {}).get("mma_edge", facts.version)
        if earlier != facts.version:
            self.options.notify(f"{self.folder.path} was begun by mma-edge {earlier}, this is {facts.version}")
        self.model, self.chosen = model, chosen

    def _settle(self) -> None:
        """What is known before the first file: put it into the folder."""
        status, plan = self.status, self.plan
        self.folder.begin(plan.failed)
        for old, task in plan.moved:
            self.folder.rename(old, task)
        status.skipped, status.moved = len(plan.done), len(plan.moved)
        status.duplicates, status.failed = len(plan.duplicates), len(plan.failed)
        status.files = status.finished + len(plan.todo)
        status.size = sum(task.size for task in plan.todo)
        self.write_manifest("running")
        self.follow(status)

    def _take(self, task: Task, what: float | Answer | Failure) -> None:
        status = self.status
        if isinstance(what, float):
            status.reading_s[task.name] = what
        else:
            status.reading_s.pop(task.name, None)
            status.size_done += task.size
            if isinstance(what, Answer):
                self.folder.keep(task, what)
                status.done += 1
                status.answers += what.answers
                status.media_s += what.media_s
            elif what.kind == UsageError.__name__:  # options that do not go with the model: every file would fail
                raise UsageError(what.reason)
            else:
                self.folder.keep_failure(failed_of(task, what))
                status.failed += 1
                self.options.notify(f"failed: {what.reason}")
            if time.monotonic() - self._written_s > MANIFEST_S:
                self.write_manifest("running")
        self.follow(status)

    def write_manifest(self, state: str) -> None:
        status, wall_s = self.status, self.status.wall_s
        self._written_s = time.monotonic()
        entries = self.folder.done.values()
        self.folder.write_manifest(
            {
                "state": state,
                "started": self.started,
                "ended": None if state == "running" else utc_now(),
                "versions": {"mma_edge": __version__, "python": platform.python_version()},
                "platform": platform.platform(),
                "model": self.model,
                "options": self.chosen,
                "inputs": [str(path.absolute()) for path in self.options.inputs],
                "patterns": list(self.options.patterns),
                "counts": {
                    "files": status.files,
                    "done": len(entries),
                    "failed": status.failed,
                    "duplicates": status.duplicates,
                    "hidden": self.corpus.hidden,
                    "other_types": dict(self.corpus.other),
                    "answers": sum(entry.answers for entry in entries),
                    "media_s": round(sum(entry.media_s for entry in entries), 3),
                },
                "this_run": {
                    "done": status.done,
                    "skipped": status.skipped,
                    "moved": status.moved,
                    "wall_s": round(wall_s, 3),
                    "media_s": round(status.media_s, 3),
                    "files_per_min": round(60 * status.done / max(1e-3, wall_s), 2),
                    "media_s_per_s": round(status.media_s / max(1e-3, wall_s), 3),
                    "workers": status.workers,
                    "ray": bool(self.options.ray),
                },
                "duplicates": self.plan.duplicates,
            }
        )


def _check_same(folder: BatchFolder, given: dict[str, Any]) -> None:
    """OutputError where the folder holds answers of another model, or of the same with other options."""
    differs, manifest = [], dict(folder.manifest)
    if options := manifest.get("options"):  # what an older version did not know was as it is where nobody asks for it
        manifest["options"] = {**plain_options(StreamOptions()), **options}
    for name, value in given.items():
        part, key = name.split(".")
        held = manifest.get(part, {})
        if key in held and held[key] != value:
            was, now = map(_brief, (held[key], value))
            differs.append(f"{'model ' if part == 'model' else ''}{key} {was}, not {now}")
    if differs:
        what = f"{folder.path / MANIFEST} is of another model or other options: {'; '.join(differs)}"
        raise OutputError(what, "those of now", "choose another --output, or --overwrite to do all files again")


def _brief(value: object) -> str:
    """For a line: a name, a number, or of a neutral reference when it was made."""
    return f"of {value.get('created')}" if isinstance(value, dict) else str(value)[:12]


def _usual_workers(facts: Facts) -> int:
    """One for each core that this process may use; one where a worker reads several files at once."""
    if facts.together > 1:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # of a container: microseconds of all cores in a period, or "max"
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores
