"""Records in a file: JSON Lines or CSV, one per emotion, each written at once.

Both hold: start_s, end_s (seconds, PTS of the source), track_id, box (pixels of the upright frame), the modalities of
the clip, voice (share of speech in its sound), label (a class, or "uncertain"), one probability per class, age_ms (age
of the newest datum at the answer), source (its name). With several faces also speaking (how well the mouth moves with
the voice, 0 to 1), and with smoothing smoothed_s; JSON Lines leave out what is not there, in a CSV its cell is empty.
"""

from __future__ import annotations

import csv
import io
import json
import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mma_edge.errors import UsageError
from mma_edge.files import LineFile
from mma_edge.types import Emotion


class RecordSink(LineFile):
    """Appends whole records to a file that it creates; see `LineFile`."""

    def __init__(self, path: str | os.PathLike, labels: tuple[str, ...], overwrite: bool = False) -> None:
        self.labels = labels
        super().__init__(path, overwrite)
        if header := self.header():
            self.append(header)
            self.count = 0

    def header(self) -> str:
        """First line of the file with its newline, or "" for none."""
        return ""

    @abstractmethod
    def line(self, emotion: Emotion) -> str:
        """One record with its newline."""

    def write(self, emotion: Emotion) -> None:
        self.append(self.line(emotion))


class JsonlSink(RecordSink):
    """One JSON object per line."""

    def line(self, emotion: Emotion) -> str:
        return json.dumps(emotion.to_dict()) + "\n"


class CsvSink(RecordSink):
    """One row per emotion; see `columns`."""

    def header(self) -> str:
        return _csv_row(columns(self.labels))

    def line(self, emotion: Emotion) -> str:
        return _csv_row(flat_row(emotion.to_dict()).values())


def columns(labels: Sequence[str]) -> list[str]:
    """The columns of every table of records: CSV, Parquet, data frame. Those of the probabilities are p_<label>."""
    names = ["start_s", "end_s", "track_id", "x0", "y0", "x1", "y1", "modalities", "label"]
    # New columns come last: some read a CSV by position.
    return [*names, *(f"p_{label}" for label in labels), "age_ms", "voice", "source", "speaking", "smoothed_s"]


def flat_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record, of `Emotion.to_dict` or of `mma_edge.session.reading`, as one row: a value, or None, for each of
    `columns`, in their order."""
    row = {name: record[name] for name in ("start_s", "end_s", "track_id")}
    row.update(zip(("x0", "y0", "x1", "y1"), record["box"] or [None] * 4, strict=True))
    modalities = record["modalities"]
    row |= {"modalities": None if modalities is None else "+".join(modalities), "label": record["label"]}
    row.update((f"p_{label}", probability) for label, probability in record["probabilities"].items())
    return row | {name: record.get(name) for name in ("age_ms", "voice", "source", "speaking", "smoothed_s")}


def _csv_row(values: Iterable) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()


def record_sink_of(path: str | os.PathLike) -> type[RecordSink]:
    """The kind of sink for a file name that ends in .jsonl or .csv; UsageError for others. Opens nothing."""
    suffix = Path(path).suffix.lower()
    kinds = {".jsonl": JsonlSink, ".csv": CsvSink}
    if suffix not in kinds:
        raise UsageError(f"--output {path}", "a name that ends in .jsonl or .csv")
    return kinds[suffix]
