"""Rows of records in one Parquet file, which pandas, polars, R, DuckDB and Spark open."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from mma_edge import __version__
from mma_edge.errors import DependencyError, OutputError, SourceError, first_line
from mma_edge.files import replaced
from mma_edge.sinks.records import columns

SCHEMA = 1
"""Version of the columns, in the file's metadata as mma_edge.schema; beside it mma_edge.version and mma_edge.labels."""
_TEXTS = ("modalities", "label", "source")


def require_pyarrow() -> None:
    """DependencyError where Parquet cannot be read and written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ModuleNotFoundError as error:
        raise DependencyError("pyarrow is not installed", hint='pip install "mma-edge[table]"') from error


class TableWriter(AbstractContextManager):
    """A Parquet file that grows by batches of rows and is there when its `with` block ends well, or not at all.

    The columns are those of `mma_edge.sinks.records.columns`: texts as string, track_id as int32, all other numbers as
    double. What is not known is null.
    """

    def __init__(self, path: str | os.PathLike[str], labels: Sequence[str]) -> None:
        """It replaces what is at `path`. DependencyError without pyarrow."""
        require_pyarrow()
        import pyarrow

        self.path, self.count = Path(path), 0
        types = dict.fromkeys(columns(labels), pyarrow.float64())
        types |= dict.fromkeys(_TEXTS, pyarrow.string()) | {"track_id": pyarrow.int32()}
        about = {"version": __version__, "schema": str(SCHEMA), "labels": json.dumps(list(labels))}
        metadata = {f"mma_edge.{name}": value for name, value in about.items()}
        self._schema = pyarrow.schema(list(types.items()), metadata)
        self._stack = ExitStack()

    def __enter__(self) -> TableWriter:
        from pyarrow.parquet import ParquetWriter

        with ExitStack() as stack:
            try:
                aside = stack.enter_context(replaced(self.path))
                self._writer = stack.enter_context(ParquetWriter(aside, self._schema, compression="zstd"))
            except OSError as error:
                raise self._failure(error) from error
            self._stack = stack.pop_all()
        return self

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows, each with values for some of the columns; one group of the file, so better many at once.

        Raises:
            OutputError: a row has what is no column, such as the probability of another label; or the disk is full.
        """
        import pyarrow

        if strange := {name for row in rows for name in row} - set(self._schema.names):
            names = ", ".join(sorted(strange))
            hint = "records of models with other classes need a table of their own"
            raise OutputError(f"{self.path}: a row has {names}", f"columns {', '.join(self._schema.names)}", hint)
        try:
            self._writer.write_batch(pyarrow.RecordBatch.from_pylist(list(rows), schema=self._schema))
        except OSError as error:
            raise self._failure(error) from error
        self.count += len(rows)

    def __exit__(self, *exc_info: Any) -> None:
        try:
            self._stack.__exit__(*exc_info)
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> OutputError:
        what = f"cannot write {self.path}: {error.strerror or first_line(error)}"
        return OutputError(what, hint="free disk space or choose another place")


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
