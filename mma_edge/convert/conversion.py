"""The formats, and the way from a file of records to one of them."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mma_edge.convert.boris import write_boris
from mma_edge.convert.elan import write_elan
from mma_edge.convert.material import Choice, Material, read_material
from mma_edge.convert.praat import write_textgrid
from mma_edge.convert.rows import require_pyarrow
from mma_edge.convert.segments import SegmentOptions
from mma_edge.convert.subtitles import write_srt, write_vtt
from mma_edge.convert.table import TableWriter
from mma_edge.convert.timeline import TimeLine
from mma_edge.errors import OutputError, UsageError
from mma_edge.files import write_text
from mma_edge.session.reading import RECORDS
from mma_edge.sinks.records import columns, flat_row
from mma_edge.types import Notify, ignore_notice

_BATCH = 10_000
"""Rows of one group of a Parquet file."""


@dataclass(frozen=True)
class Format:
    """One of `--to`. It has one of the three writers."""

    what: str
    suffixes: tuple[str, ...]  # of its files; the first one where no name is given
    write_one: Callable[[TimeLine, Path], None] | None = None  # has room for one source
    write_all: Callable[[Sequence[TimeLine], Path], None] | None = None
    write_rows: Callable[[Material, Path], None] | None = None  # every record as it is
    check: Callable[[], None] | None = None  # DependencyError where a package is missing


def _write_csv(material: Material, path: Path) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns(material.labels))
    table.writerows(flat_row(record).values() for record in material.records)
    write_text(path, text.getvalue())


def _write_parquet(material: Material, path: Path) -> None:
    with TableWriter(path, material.labels) as table:
        for first in range(0, len(material.records), _BATCH):
            table.write([flat_row(record) for record in material.records[first : first + _BATCH]])


FORMATS = {
    "elan": Format("annotation of ELAN (EAF 3.0)", (".eaf",), write_one=write_elan),
    "textgrid": Format("TextGrid of Praat", (".TextGrid",), write_one=write_textgrid),
    "boris": Format("tabular events as BORIS exports them", (".tsv", ".csv"), write_all=write_boris),
    "vtt": Format("subtitles for browsers (WebVTT)", (".vtt",), write_one=write_vtt),
    "srt": Format("subtitles for players (SubRip)", (".srt",), write_one=write_srt),
    "csv": Format("table, the columns of run --output FILE.csv", (".csv",), write_rows=_write_csv),
    "parquet": Format("typed table, the same columns", (".parquet",), write_rows=_write_parquet, check=require_pyarrow),
}


@dataclass(frozen=True)
class ConvertOptions:
    """How records are converted; None: the default of each."""

    output: Path | None = None  # for several files each gets its source's name before the suffix
    overwrite: bool = False
    choice: Choice = field(default_factory=Choice)
    segments: SegmentOptions | None = None
    media: Path | None = None
    notify: Notify = ignore_notice


def convert(path: str | os.PathLike[str], to: str, options: ConvertOptions | None = None) -> list[Path]:
    """Write the records of a session, .jsonl, .csv or .parquet in one of FORMATS; returns the files.

    Raises:
        UsageError: no such format, or options that do not go with it or with the records.
        SourceError: there are no records. OutputError: a file exists, or cannot be written.
        DependencyError: the format needs a package that is not installed.
    """
    path, options = Path(path), options or ConvertOptions()
    if to not in FORMATS:
        raise UsageError(f"--to {to}", f"one of {', '.join(FORMATS)}")
    kind = FORMATS[to]
    _check(to, kind, options)
    material = read_material(path, options.choice, options.notify)
    target = options.output or (path / RECORDS if path.is_dir() else path).with_suffix(kind.suffixes[0])
    if kind.write_rows:
        _check_targets([target], path, options)
        kind.write_rows(material, target)
        if material.session and material.session.marks:
            options.notify(f"{len(material.session.marks)} mark(s) are left out: a table has one row per answer")
        return [target]
    time_lines = material.time_lines(options.segments or SegmentOptions(), options.media, options.notify)
    if kind.write_all:
        _check_targets([target], path, options)
        kind.write_all(time_lines, target)
        return [target]
    targets = [target] if len(time_lines) == 1 else _targets_of(target, [line.source for line in time_lines])
    _check_targets(targets, path, options)
    for time_line, place in zip(time_lines, targets, strict=True):
        kind.write_one(time_line, place)
    return targets


def _check(to: str, kind: Format, options: ConvertOptions) -> None:
    """All that can be said before anything is read."""
    if kind.check:
        kind.check()
    if kind.write_rows and (options.segments or options.media):
        given = "--media" if options.media else "--min-s, --hysteresis or --as-of"
        hint = "a table has every answer as it is; leave the option out"
        raise UsageError(f"{given} with --to {to}", "a format with segments", hint)
    suffixes = tuple(suffix.lower() for suffix in kind.suffixes)
    if options.output and options.output.suffix.lower() not in suffixes:
        raise UsageError(f"--output {options.output}", f"a name that ends in {' or '.join(kind.suffixes)}")


def _targets_of(target: Path, sources: Sequence[str]) -> list[Path]:
    """A file for each source, its name before the suffix."""
    names: list[str] = []
    for source in sources:
        name = own = re.sub(r"[^\w.-]+", "_", source).strip("_") or "source"
        while name in names:
            name = f"{own}-{len(names) + 1}"
        names.append(name)
    return [target.with_name(f"{target.stem}-{name}{target.suffix}") for name in names]


def _check_targets(targets: Sequence[Path], path: Path, options: ConvertOptions) -> None:
    for target in targets:
        if target.exists() and path.exists() and target.samefile(path / RECORDS if path.is_dir() else path):
            raise UsageError(f"{target} would replace the records", "another file", "choose another --output")
        if target.exists() and not options.overwrite:
            raise OutputError(f"{target} exists", "a new file", "add --overwrite, or choose another --output")
