"""The folder of a batch: what is in it already, and what is written to it. A killed run leaves nothing half.

batch.json       model, options, counts, speed; replaced as the run goes on
done.jsonl       a line per file that is done: its content, its records, how long it is, what was noticed
failed.jsonl     a line per file that failed, with the reason
records/NAME.jsonl
records.parquet  all records in one table
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from mma_edge.batch.tasks import Answer, Failure, Task
from mma_edge.errors import MMAEdgeError, OutputError
from mma_edge.files import LineFile, make_folder, to_json, write_text
from mma_edge.sinks.records import flat_row

try:
    import fcntl
except ImportError:  # Windows
    fcntl: ModuleType | None = None

KIND, SCHEMA = "mma-edge batch", 1
MANIFEST, DONE, FAILED, RECORDS, TABLE, LOCK = (
    "batch.json", "done.jsonl", "failed.jsonl", "records", "records.parquet", ".lock"
)  # fmt: skip
LONGEST_NAME = 200
"""Bytes of a file's name; most disks take 255, and a file that is being written has a longer one."""
ROWS_AT_ONCE = 20_000
T = TypeVar("T")


@dataclass(frozen=True)
class Done:
    """A line of done.jsonl."""

    file: str  # name, see `Task`
    path: str
    size: int
    mtime_ns: int
    digest: str  # see `mma_edge.batch.files.digest_of`
    records: str  # relative to the folder
    answers: int
    media_s: float
    notes: list[str]
    finished: str  # ISO 8601, UTC


@dataclass(frozen=True)
class Failed:
    """A line of failed.jsonl. The size is None where the file could not even be looked at."""

    file: str
    path: str
    size: int | None
    mtime_ns: int | None
    kind: str
    reason: str
    exit_code: int


class BatchFolder(contextlib.AbstractContextManager):
    """An output folder, which this run alone writes to."""

    def __init__(self, path: Path, overwrite: bool = False) -> None:
        """Make it or go on with it. With `overwrite` it is as new, and what an earlier batch left goes with `begin`.

        Raises:
            OutputError: it is no folder of a batch, another run writes to it, or it cannot be written.
        """
        self.path = path
        self.manifest = _read_manifest(path)
        self._forgets = overwrite and bool(self.manifest)
        make_folder(path)
        self._lock = _locked(path)
        self._logs: dict[str, LineFile] = {}
        try:
            for half in path.rglob(".*.partial"):  # of a run that was killed
                half.unlink(missing_ok=True)
            # Of a content and of a name the last line counts; what somebody took the records of is not done.
            by_content: dict[str, Done] = {}
            for entry in _lines(path / DONE, Done):
                by_content.pop(entry.digest, None)
                by_content[entry.digest] = entry
            self.done = {e.file: e for e in by_content.values() if (path / e.records).is_file()}
            self.failed = {entry.file: entry for entry in _lines(path / FAILED, Failed)}
            if self._forgets:
                self.manifest, self.done, self.failed = {}, {}, {}
        except OSError as error:
            self.close()
            raise OutputError(f"cannot use {path}: {error.strerror}", hint="choose another --output") from error

    def records_of(self, name: str) -> Path:
        """Where the records of a file are."""
        *folders, last = name.split("/")
        parts = [part if part not in ("", ".", "..") else "_" for part in folders]
        return self.path.joinpath(RECORDS, *map(_short, parts), f"{_short(last)}.jsonl")

    def keep(self, task: Task, answer: Answer) -> None:
        """Write the records of a file, then that it is done. OutputError where that fails."""
        place = self.records_of(task.name)
        write_text(place, answer.records)
        self._note(
            DONE,
            Done(
                task.name,
                task.path,
                task.size,
                task.mtime_ns,
                answer.digest,
                place.relative_to(self.path).as_posix(),
                answer.answers,
                round(answer.media_s, 3),
                list(answer.notes),
                utc_now(),
            ),
        )

    def keep_failure(self, failed: Failed) -> None:
        self._note(FAILED, failed)

    def rename(self, old: Done, task: Task) -> None:
        """The file has another name, place or time now: so have its records."""
        place, before = self.records_of(task.name), self.path / old.records
        if old.file != task.name:
            lines = (json.loads(line) for line in before.read_text(encoding="utf-8").splitlines())
            write_text(place, "".join(json.dumps({**line, "source": task.name}) + "\n" for line in lines))
        where = place.relative_to(self.path).as_posix()
        changed = {"file": task.name, "path": task.path, "size": task.size, "mtime_ns": task.mtime_ns, "records": where}
        self._note(DONE, dataclasses.replace(old, **changed))
        if old.file != task.name:
            del self.done[old.file]
            before.unlink(missing_ok=True)

    def begin(self, failed: Iterable[Failed]) -> None:
        """Before the first record: only these count as failed from now on."""
        if self._forgets:
            try:
                for name in (MANIFEST, DONE, FAILED, TABLE):
                    (self.path / name).unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(
                    f"cannot replace {self.path}: {error.strerror}", hint="choose another --output"
                ) from error
            shutil.rmtree(self.path / RECORDS, ignore_errors=True)
        self.failed = {entry.file: entry for entry in failed}
        text = "".join(json.dumps(asdict(entry)) + "\n" for entry in self.failed.values())
        write_text(self.path / FAILED, text)

    def write_manifest(self, content: dict[str, Any]) -> None:
        self.manifest = {"kind": KIND, "schema": SCHEMA, **content}
        write_text(self.path / MANIFEST, to_json(self.manifest))

    def rows(self) -> Iterator[list[dict[str, Any]]]:
        """The records of all files that are done, by their names, many at once; see `flat_row`."""
        rows: list[dict[str, Any]] = []
        for _, entry in sorted(self.done.items()):
            with open(self.path / entry.records, encoding="utf-8") as file:
                rows += map(flat_row, map(json.loads, file))
            if len(rows) >= ROWS_AT_ONCE:
                yield rows
                rows = []
        if rows:
            yield rows

    def write_table(self, labels: tuple[str, ...]) -> None:
        """All records in one table; DependencyError where pyarrow is not installed."""
        from mma_edge.convert.table import TableWriter

        with TableWriter(self.path / TABLE, labels) as table:
            for rows in self.rows():
                table.write(rows)

    def close(self) -> None:
        for log in self._logs.values():
            log.close()
        os.close(self._lock)

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _note(self, log: str, entry: Done | Failed) -> None:
        if log not in self._logs:
            self._logs[log] = LineFile(self.path / log, what="lines", go_on=True)
        self._logs[log].append(json.dumps(asdict(entry)) + "\n")
        {DONE: self.done, FAILED: self.failed}[log][entry.file] = entry


def utc_now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _read_manifest(path: Path) -> dict[str, Any]:
    """That of an earlier run, {} where there was none."""
    hint = "choose another --output"
    try:
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path} is a file", "a folder", hint)
        if (path / MANIFEST).is_file():
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            if manifest["kind"] == KIND and manifest["schema"] == SCHEMA:
                return manifest
            raise ValueError
        if path.is_dir() and any(entry.name != LOCK for entry in path.iterdir()):
            raise OutputError(f"{path} is not empty and not the output of mma-edge batch", "a new folder", hint)
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror}", hint=hint) from error
    except (ValueError, KeyError, TypeError) as error:
        expected = f"one of mma-edge batch, schema {SCHEMA}"
        raise OutputError(f"{path / MANIFEST} is no manifest that this version reads", expected, hint) from error
    return {}


def _locked(path: Path) -> int:
    """A descriptor to hold as long as this run writes; the system lets go of it when the process ends, however."""
    try:
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", hint="choose another --output") from error
    if fcntl:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            hint = "wait for it, or choose another --output"
            raise OutputError(f"another mma-edge batch writes to {path}", hint=hint) from error
        except OSError:  # a network disk without locks
            pass
    return lock


def _lines(path: Path, kind: type[T]) -> Iterator[T]:
    """What a log says; a last line that was cut off is not there."""
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, TypeError):
                yield kind(**json.loads(line))


def _short(name: str) -> str:
    """A name that fits on a disk: a long one is cut, and made its own again by a hash of all of it."""
    data = os.fsencode(name)
    if len(data) <= LONGEST_NAME:
        return name
    cut = data[: LONGEST_NAME - 20].decode(errors="ignore")
    return f"{cut}-{hashlib.blake2b(data, digest_size=8).hexdigest()}"


def failed_of(task: Task, failure: Failure) -> Failed:
    """Its line."""
    return Failed(task.name, task.path, task.size, task.mtime_ns, failure.kind, failure.reason, failure.exit_code)


def unseen(name: str, path: Path, error: MMAEdgeError) -> Failed:
    """The line of a file that could not be looked at."""
    return Failed(name, str(path), None, None, type(error).__name__, str(error), error.exit_code)
