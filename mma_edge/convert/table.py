"""Rows of records in one Parquet file, which pandas, polars, R, DuckDB and Spark open."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from mma_edge import __version__
from mma_edge.convert.rows import require_pyarrow
from mma_edge.errors import OutputError, first_line
from mma_edge.files import replaced
from mma_edge.sinks.records import columns

SCHEMA = 1
"""Version of the columns, in the file's metadata as mma_edge.schema; beside it mma_edge.version and mma_edge.labels."""
_TEXTS = ("modalities", "label", "source")


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
                self.path.parent.mkdir(parents=True, exist_ok=True)
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
