"""A session's folder: the names of its files, and what a reader gets of it, also half of one after a crash."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mma_edge.errors import SourceError
from mma_edge.session.reading import RECORDS, read_lines, read_records
from mma_edge.types import Notify

MANIFEST, MARKS, EVENTS = "manifest.json", "marks.jsonl", "events.jsonl"
KIND, SCHEMA = "mma-edge session", 1
RUNNING, ENDED = "running", "ended"
"""States of a session."""
NOT_ENDED = "the session was not ended: its program crashed, or still records"
_EXPECTED = "the folder of a session"
_MAKE = "mma-edge run SOURCE --session DIR makes one"
# Field of the manifest -> its type; docs/sessions.md says what they hold.
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "state": str,
    "started": str,
    "ended": (str, type(None)),
    "run_s": (int, float),
    "versions": dict,
    "model": dict,
    "options": dict,
    "sources": dict,
    "privacy": dict,
}


@dataclass(frozen=True)
class Session:
    """What is in a session's folder. Its dicts are those of the files, see docs/sessions.md."""

    folder: Path
    name: str
    state: str  # RUNNING or ENDED; RUNNING also after a crash
    started: str  # ISO 8601, UTC
    ended: str | None
    run_s: float
    versions: dict[str, str]
    model: dict[str, Any]
    options: dict[str, Any]
    sources: dict[str, dict[str, Any]]  # by name
    privacy: dict[str, Any]
    marks: tuple[dict[str, Any], ...]
    events: tuple[dict[str, Any], ...]
    problems: tuple[str, ...]  # what is missing or cut, one line each

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """All records, read at the first look; `mma_edge.session.reading.FIELDS` are in each."""
        return list(read_records(self.folder)) if (self.folder / RECORDS).is_file() else []

    def videos(self, source: str) -> list[tuple[Path, float]]:
        """The files of a source's video that are there, and the PTS at which each begins."""
        # A manifest comes from anywhere: nothing outside its folder is opened.
        named = [(self.folder / Path(name).name, start_s) for name, start_s in _videos(self.sources.get(source, {}))]
        return [(path, start_s) for path, start_s in named if path.is_file()]

    def zero_s(self, source: str) -> float:
        """PTS of a source at 0 of its time line, in a report as in what is converted.

        That of its video, as players count; without one a live source begins at its first frame or sound, since its
        clock may count from anywhere, and a file keeps its own times.
        """
        about = self.sources.get(source, {})
        name = "video_start_s" if about.get("video") else "first_s" if about.get("live") else None
        return _time(about.get(name))


def read_session(path: str | os.PathLike[str]) -> Session:
    """The session in a folder; half of one too, whose `problems` say what is missing.

    Raises:
        SourceError: it is none, its manifest cannot be read, or is of another schema.
    """
    folder = Path(path)
    manifest = _manifest(folder)
    problems = [] if manifest["state"] == ENDED else [NOT_ENDED]
    marks, events = (tuple(_lines(folder / name, problems.append)) for name in (MARKS, EVENTS))
    _check_records(folder, problems.append)
    for name, source in manifest["sources"].items():
        for video, _ in _videos(source):
            if not (folder / Path(video).name).is_file():
                problems.append(f"{video}, the video of {name}, is missing")
    fields = {name: manifest[name] for name in _FIELDS}
    return Session(folder, **fields, marks=marks, events=events, problems=tuple(problems))


def _videos(source: dict[str, Any]) -> list[tuple[str, float]]:
    """Names of the files of a source's video, and where they begin, as its part of a manifest has them."""
    more = source.get("video_more")
    parts = [part for part in more if isinstance(part, dict)] if isinstance(more, list) else []
    named = [
        (source.get("video"), source.get("video_start_s")),
        *((part.get("file"), part.get("start_s")) for part in parts),
    ]
    return [(name, _time(start_s)) for name, start_s in named if isinstance(name, str) and name]


def _time(value: object) -> float:
    """A time of a manifest; 0 for what is none."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12  # NaN is not
    return float(value) if known else 0.0


def _manifest(folder: Path) -> dict[str, Any]:
    """The checked manifest; further keys are let be."""
    path = folder / MANIFEST
    if not folder.exists():
        raise SourceError(f"{folder} does not exist", _EXPECTED, _MAKE)
    if not folder.is_dir():
        raise SourceError(f"{folder} is a file", _EXPECTED, _MAKE)
    if not path.is_file():
        raise SourceError(f"{folder} is no session: it has no {MANIFEST}", _EXPECTED, _MAKE)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise SourceError(f"{path} cannot be read ({' '.join(str(error).split())})", "JSON") from error
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise SourceError(f"{folder} is no session: {MANIFEST} is not that of one", _EXPECTED, _MAKE)
    if manifest.get("schema") != SCHEMA:
        hint = "upgrade mma-edge: pip install -U mma-edge"
        raise SourceError(f"{folder} has schema {manifest.get('schema')!r}", f"schema {SCHEMA}", hint)
    for name, kind in _FIELDS.items():
        if not isinstance(manifest.get(name, ...), kind):
            raise SourceError(f"{path} has no usable field {name}", f"schema {SCHEMA}")
    if not all(isinstance(source, dict) for source in manifest["sources"].values()):
        raise SourceError(f"{path} has no usable field sources", f"schema {SCHEMA}")
    return manifest


def _lines(path: Path, problem: Notify) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON Lines, as many as there are."""
    if not path.is_file():
        problem(f"{path.name} is missing")
        return
    try:
        for value in read_lines(path, problem):
            if isinstance(value, dict):
                yield value
    except SourceError as error:
        problem(error.what)


def _check_records(folder: Path, problem: Notify) -> None:
    """Say without reading all of them what is wrong with the records."""
    path = folder / RECORDS
    if not path.is_file():
        problem(f"{RECORDS} is missing")
        return
    try:
        next(read_records(folder), None)
        last = _last_line(path)
        if last and not last.endswith(b"\n"):
            json.loads(last)
    except SourceError as error:
        problem(error.what)
    except ValueError:
        problem(f"the last line of {RECORDS} is cut off and left out")


def _last_line(path: Path, most: int = 1 << 16) -> bytes:
    """What is after the last line break but one."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - most))
        lines = file.read().splitlines(keepends=True)
    return lines[-1] if lines else b""
