"""Records in a file: JSON Lines or CSV, one per emotion, each written at once.

Both hold: start_s, end_s (seconds, PTS of the source), track_id, box (pixels of the upright frame), the modalities of
the clip, voice (share of speech in its sound), label (a class, or "uncertain"), one probability per class, age_ms (age
of the newest datum at the answer). With several faces also speaking (how well the mouth moves with the voice, 0 to 1),
and with smoothing smoothed_s; JSON Lines leave out what is not there, in a CSV its cell is empty.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from abc import abstractmethod
from pathlib import Path

from mma_edge.errors import OutputError, UsageError
from mma_edge.types import Emotion


class RecordSink(contextlib.AbstractContextManager):
    """Appends whole records to a file that it creates.

    Each record reaches the operating system before `write` returns. When a record cannot be written (disk full), a
    half-written line is cut off again, so the file always ends with a whole record.

    Raises:
        OutputError: the file exists and `overwrite` is False, or it cannot be written.
    """

    def __init__(self, path: str | os.PathLike, labels: tuple[str, ...], overwrite: bool = False) -> None:
        self.path, self.labels, self.count = Path(path), labels, 0
        try:
            # Binary and unbuffered: write() hands the bytes to the operating system.
            self._file = open(self.path, "wb" if overwrite else "xb", buffering=0)  # noqa: SIM115
        except FileExistsError as error:
            hint = "add --overwrite, or choose another --output"
            raise OutputError(f"{self.path} exists", "a new file", hint) from error
        except OSError as error:
            raise self._failure(error) from error
        self._size = 0
        if header := self.header():
            self._append(header)

    def header(self) -> str:
        """First line of the file with its newline, or "" for none."""
        return ""

    @abstractmethod
    def line(self, emotion: Emotion) -> str:
        """One record with its newline."""

    def write(self, emotion: Emotion) -> None:
        self._append(self.line(emotion))
        self.count += 1

    def close(self) -> None:
        self._file.close()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _append(self, text: str) -> None:
        data = text.encode()
        try:
            written = 0
            while written < len(data):  # a nearly full disk may take only a part
                written += self._file.write(data[written:])
        except OSError as error:
            with contextlib.suppress(OSError):  # a pipe or device has no length to restore
                self._file.truncate(self._size)
                self._file.seek(self._size)
            raise self._failure(error) from error
        self._size += len(data)

    def _failure(self, error: OSError) -> OutputError:
        kept = f" after {self.count} records, which are kept" if self.count else ""
        return OutputError(
            f"cannot write {self.path}{kept}: {error.strerror}", hint="free disk space or choose another --output"
        )


class JsonlSink(RecordSink):
    """One JSON object per line."""

    def line(self, emotion: Emotion) -> str:
        return json.dumps(emotion.to_dict()) + "\n"


class CsvSink(RecordSink):
    """One row per emotion; the columns of the probabilities are named p_<label>."""

    def header(self) -> str:
        names = ["start_s", "end_s", "track_id", "x0", "y0", "x1", "y1", "modalities", "label"]
        # New columns come last: some read a CSV by position.
        return _csv_row([*names, *(f"p_{label}" for label in self.labels), "age_ms", "voice", "speaking", "smoothed_s"])

    def line(self, emotion: Emotion) -> str:
        record = emotion.to_dict()
        values = [record["start_s"], record["end_s"], record["track_id"], *(record["box"] or [None] * 4)]
        values += ["+".join(record["modalities"]), record["label"], *record["probabilities"].values()]
        values += [record["age_ms"], record["voice"], record.get("speaking"), record.get("smoothed_s")]
        return _csv_row(values)


def _csv_row(values: list) -> str:
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
