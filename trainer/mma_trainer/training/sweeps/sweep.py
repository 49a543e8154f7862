"""Many runs under one command, none of them twice: jobs, each with its own folder and a file of its result.

Finished jobs are not run again and a begun one goes on. What was made with other options is refused before any
training, so that all processes of torchrun decide alike. All of them train; only the first writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from mma_edge.errors import CheckpointError
from mma_edge.files import to_json, write_text
from mma_trainer.training.state import LAST, refuse_used


class Result(Protocol):
    """What is kept of a finished job, in the file FILE of its folder, and the options that it depends on."""

    FILE: ClassVar[str]
    options: dict[str, Any]

    def to_dict(self) -> dict[str, Any]: ...

    @classmethod
    def read(cls, path: Path) -> Result:
        """What `to_dict` gave, written as JSON; an MMAEdgeError for any other file."""

    @staticmethod
    def refusal(folder: Path, changed: dict[str, tuple[Any, Any]]) -> CheckpointError:
        """The error for a result of other options: by name, their values before and now."""


Kind = TypeVar("Kind", bound=Result)


@dataclass(frozen=True)
class Job:
    """One run: its folder, and the options that its result depends on, as plain values."""

    folder: Path
    options: dict[str, Any]

    @property
    def is_begun(self) -> bool:
        """Whether there is an unfinished run to go on with."""
        return (self.folder / LAST).exists()


class Sweep(Generic[Kind]):
    """The results of the finished jobs, by folder; None for a job finished here in a process that does not write.

    CheckpointError: a folder holds a run and `resume` is False, or a result of other options.
    """

    def __init__(self, kind: type[Kind], jobs: Iterable[Job], resume: bool, is_writer: bool) -> None:
        self.is_writer = is_writer
        self.results: dict[Path, Kind | None] = {}
        for job in jobs:
            if not resume:
                refuse_used(job.folder, kind.FILE)
            if not (job.folder / kind.FILE).exists():
                continue
            found = self.results[job.folder] = kind.read(job.folder / kind.FILE)
            keys = sorted({*found.options, *job.options})
            pairs = {key: (found.options.get(key), job.options.get(key)) for key in keys}
            if changed := {key: (before, now) for key, (before, now) in pairs.items() if before != now}:
                raise kind.refusal(job.folder, changed)

    def is_finished(self, job: Job) -> bool:
        return job.folder in self.results

    def keep(self, job: Job, result: Kind | None) -> None:
        """Write the result of a job, which is finished from now on; None in a process that does not write."""
        self.results[job.folder] = result
        if self.is_writer:
            write_text(job.folder / result.FILE, to_json(result.to_dict()))
