"""Records from every kind of file that holds some, checked; and as flat rows, for data frames."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from mma_edge.errors import DependencyError, SourceError, first_line
from mma_edge.session.reading import read_records
from mma_edge.sinks.records import columns, flat_row
from mma_edge.types import Notify, ignore_notice

Record = dict[str, Any]
_OPTIONAL = ("age_ms", "voice", "speaking", "smoothed_s")


def rows(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """See `mma_edge.records`."""
    notes: list[str] = []
    found = [flat_row(record) for record in checked_records(Path(path), notes.append)]
    for note in notes:
        warnings.warn(note, stacklevel=3)  # where mma_edge.records was called
    return found


def checked_records(path: Path, notify: Notify = ignore_notice) -> Iterator[Record]:
    """The records of a session's folder, of a file of `--output`, or of a table in Parquet, as `read_records` gives
    them.

    Raises:
        SourceError: no such file, or a record whose values are none that `--output` writes, or with other classes.
    """
    records = read_table(path) if path.suffix.lower() == ".parquet" else read_records(path, notify)
    return _checked(records, path)


def _checked(records: Iterable[Record], path: Path) -> Iterator[Record]:
    labels: list[str] = []
    for number, record in enumerate(records, 1):
        if not _is_record(record):
            raise SourceError(f"record {number} of {path} is damaged", "what mma-edge run --output writes")
        probabilities = record["probabilities"]
        labels = labels or list(probabilities)
        if list(probabilities) != labels:
            if set(probabilities) != set(labels):
                what = f"record {number} of {path} has other classes than the first ({', '.join(probabilities)})"
                raise SourceError(what, ", ".join(labels), "split the file: these are records of two models")
            record["probabilities"] = {label: probabilities[label] for label in labels}
        yield record


def _is_record(record: Record) -> bool:
    track, box, modalities = record["track_id"], record["box"], record["modalities"]
    numbers = [record["start_s"], record["end_s"], *record["probabilities"].values()]
    return (
        all(map(is_number, numbers))
        and len(numbers) > 2
        and all(record[name] is None or is_number(record[name]) for name in _OPTIONAL)
        and isinstance(record["label"], str)
        and isinstance(record["source"], str | None)
        and (track is None or (type(track) is int and 0 <= track < 2**31))
        and (box is None or (isinstance(box, list) and len(box) == 4 and all(map(is_number, box))))
        and (modalities is None or (isinstance(modalities, list) and all(isinstance(m, str) for m in modalities)))
    )


def is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def require_pyarrow() -> None:
    """DependencyError where Parquet cannot be read and written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ModuleNotFoundError as error:
        raise DependencyError("pyarrow is not installed", hint='pip install "mma-edge[table]"') from error


def read_table(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file of `TableWriter`, each as `mma_edge.session.reading.read_records` gives it.

    Raises:
        SourceError: there is no such file, or it is another table. DependencyError without pyarrow.
    """
    require_pyarrow()
    import pyarrow
    from pyarrow.parquet import ParquetFile

    expected = "a table of mma-edge batch, or of mma-edge convert --to parquet"
    if not path.is_file():
        raise SourceError(f"{path} does not exist", expected)
    try:
        with ParquetFile(path) as file:
            labels = [name[2:] for name in file.schema_arrow.names if name.startswith("p_")]
            if missing := [name for name in columns(labels) if name not in file.schema_arrow.names]:
                raise SourceError(f"{path} has no column {missing[0]}", expected)
            for batch in file.iter_batches(columns=columns(labels)):
                for row in batch.to_pylist():
                    yield _record(row, labels)
    except (OSError, pyarrow.ArrowException) as error:
        raise SourceError(f"{path} cannot be read: {first_line(error)}", expected) from error


def _record(row: dict[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """The inverse of `mma_edge.sinks.records.flat_row`."""
    box = [row.pop(name) for name in ("x0", "y0", "x1", "y1")]
    probabilities = {label: row.pop(f"p_{label}") for label in labels}
    modalities = row["modalities"] and row["modalities"].split("+")
    return row | {"box": box if None not in box else None, "modalities": modalities, "probabilities": probabilities}
