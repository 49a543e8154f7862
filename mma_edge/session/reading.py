"""Reads records: of a session, and of every file that `--output` has written since there are records.

The one reader of records in the project; `mma_edge.sinks.records` says what the fields are.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mma_edge.errors import SourceError
from mma_edge.types import Notify, ignore_notice

RECORDS = "records.jsonl"
"""Name of the records in a session's folder."""
FIELDS = (
    "start_s", "end_s", "track_id", "box", "modalities", "voice", "label", "probabilities", "age_ms", "source",
    "speaking", "smoothed_s",
)  # fmt: skip
"""Every record that is read has all of them; None stands for what its version, or its clip, did not have."""
_NEEDED = {"start_s", "end_s", "label", "probabilities"}
_NUMBERS = ("start_s", "end_s", "age_ms", "voice", "speaking", "smoothed_s")
_BOX = ("x0", "y0", "x1", "y1")
_EXPECTED = "a session's folder, or records as mma-edge run --output FILE.jsonl or FILE.csv writes them"

Line = Callable[[str], dict[str, Any]]
"""Makes a dict of a line's text; ValueError for what is none."""


def read_records(path: str | os.PathLike[str], notify: Notify = ignore_notice) -> Iterator[dict[str, Any]]:
    """Records in their order, each a dict of plain values with all FIELDS; fields of later versions are kept as well.

    A last line that a crash has cut is left out, as is a line in the middle that is damaged: `notify` gets one line
    about it. The same records come from a CSV as from JSON Lines.

    Raises:
        SourceError: at once where there is no such file; while reading, where it holds no records.
    """
    path = Path(path)
    if path.is_dir():
        path = path / RECORDS
        if not path.is_file():
            raise SourceError(f"{path.parent} has no {RECORDS}", _EXPECTED)
    if not path.is_file():
        raise SourceError(f"{path} does not exist", _EXPECTED)
    if path.suffix.lower() not in (".jsonl", ".csv"):
        raise SourceError(f"{path} ends neither in .jsonl nor in .csv", _EXPECTED)
    read = _csv_lines if path.suffix.lower() == ".csv" else _json_lines
    return read(path, notify)


def read_lines(path: Path, notify: Notify, parse: Line = json.loads, skip: int = 0) -> Iterator[dict[str, Any]]:
    """What `parse` makes of the lines of a file after the first `skip`; see `read_records` for damaged ones.

    SourceError where the file cannot be read, or where its first line is none that `parse` knows.
    """
    damaged, good, number = 0, 0, 0
    try:
        with open(path, encoding="utf-8-sig", errors="replace", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if number <= skip or not line.strip():
                    continue
                try:
                    yield parse(line)
                    good += 1
                except (ValueError, RecursionError) as error:
                    if not line.endswith("\n"):
                        notify(f"the last line of {path.name} is cut off and left out")
                    elif not good:
                        what = f"line {number} of {path} is none of these records ({error})"
                        raise SourceError(what, _EXPECTED) from error
                    else:
                        damaged += 1
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}", _EXPECTED) from error
    if damaged:
        notify(f"{damaged} line(s) of {path.name} are damaged and left out")


def _json_lines(path: Path, notify: Notify) -> Iterator[dict[str, Any]]:
    def parse(line: str) -> dict[str, Any]:
        return _whole(json.loads(line))

    return read_lines(path, notify, parse)


def _whole(record: object) -> dict[str, Any]:
    """The record with all FIELDS; ValueError for what is none."""
    if not isinstance(record, dict):
        raise ValueError("no JSON object")
    if missing := sorted(_NEEDED - set(record)):
        raise ValueError(f"no {missing[0]}")
    if not isinstance(record["probabilities"], dict):
        raise ValueError("probabilities without their labels")
    return dict.fromkeys(FIELDS) | record


def _csv_lines(path: Path, notify: Notify) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        header = next(csv.reader(file), [])
    labels = [name[2:] for name in header if name.startswith("p_")]
    if missing := sorted((_NEEDED - {"probabilities"}) - set(header)) or [] if labels else ["p_LABEL"]:
        raise SourceError(f"{path} has no column {missing[0]}", _EXPECTED)

    def parse(line: str) -> dict[str, Any]:
        cells = next(csv.reader([line]))
        if len(cells) != len(header):
            raise ValueError(f"{len(cells)} columns, not {len(header)}")
        row = dict(zip(header, cells, strict=True))
        record: dict[str, Any] = {name: _number(row.get(name)) for name in _NUMBERS}
        record["track_id"] = int(row["track_id"]) if row.get("track_id") else None
        record["box"] = [float(row[name]) for name in _BOX] if row.get("x0") else None
        record["modalities"] = row["modalities"].split("+") if "modalities" in row else None
        record |= {"label": row["label"], "source": row.get("source") or None}
        record["probabilities"] = {label: float(row[f"p_{label}"]) for label in labels}
        return _whole(record)

    return read_lines(path, notify, parse, skip=1)


def _number(cell: str | None) -> float | None:
    return float(cell) if cell else None
