"""Which files a batch is about: those of folders, of lists, and single ones."""

from __future__ import annotations

import csv
import fnmatch
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mma_edge.errors import SourceError, UsageError, first_line
from mma_edge.sources.file import MEDIA_SUFFIXES

LIST_SUFFIXES = (".txt", ".csv")
COLUMN = "path"
_SHOWN = 4


@dataclass(frozen=True)
class Corpus:
    """Files by name, in the order of their names, and what was left out."""

    files: dict[str, Path]
    hidden: int = 0
    other: Counter[str] = field(default_factory=Counter)  # suffix -> files of other types
    unreadable: dict[str, str] = field(default_factory=dict)  # folder -> why nothing in it was seen

    def left_out(self) -> str:
        """In short, "" where nothing was."""
        parts = [f"{self.hidden} hidden"] if self.hidden else []
        if total := self.other.total():
            common = [f"{suffix or 'no suffix'} {count}" for suffix, count in self.other.most_common(_SHOWN)]
            more = ", ..." if len(self.other) > _SHOWN else ""
            parts.append(f"{total} of other types ({', '.join(common)}{more})")
        return ", ".join(parts)


def find_corpus(inputs: Sequence[Path], patterns: Sequence[str] = (), output: Path | None = None) -> Corpus:
    """The files that a user named.

    Args:
        inputs: folders (searched all the way down; links to folders are not followed), media files, text lists (a path
            in each line, # begins a comment) and CSV lists (with a column "path"). Paths in a list are relative to it.
        patterns: of the files in folders take those whose name or relative path is like one of them, whatever their
            type; without any, those with a suffix of media.
        output: a folder that is not searched.

    A file has its name from its path below the folder or the list's folder, or its last part; with several inputs a
    folder's own name comes before. A second file of that name gets a number.

    Raises:
        UsageError: a list that is none. SourceError: an input that is not there, or no files at all.
    """
    search = _Search(patterns, output.resolve() if output else None)
    for path in inputs:
        if path.is_dir():
            search.folder(path, path.resolve().name if len(inputs) > 1 else "")
        elif not path.exists():
            raise SourceError(f"{path} does not exist", "a folder, a list or a media file", "check the path")
        elif path.suffix.lower() in LIST_SUFFIXES:
            for entry in _listed(path):
                search.add(entry, _relative(entry, path.parent))
        else:
            search.add(path, path.name)
    found = Corpus(dict(sorted(search.files.items())), search.hidden, search.other, search.unreadable)
    if not found.files and not found.unreadable:
        what = f"{', '.join(map(str, inputs))}: no media files"
        expected = f"files like {', '.join(patterns)}" if patterns else f"files such as {', '.join(MEDIA_SUFFIXES[:4])}"
        left_out = found.left_out()
        raise SourceError(what, expected, f"left out: {left_out}; --pattern takes others" if left_out else "")
    return found


class _Search:
    def __init__(self, patterns: Sequence[str], output: Path | None) -> None:
        self.files: dict[str, Path] = {}
        self.hidden, self.other = 0, Counter()
        self.unreadable: dict[str, str] = {}
        self._patterns, self._output = patterns, output
        self._seen: set[Path] = set()

    def add(self, path: Path, name: str) -> None:
        place = path.parent.resolve() / path.name
        if place in self._seen:  # named twice
            return
        self._seen.add(place)
        unique, number = name, 1
        while unique in self.files:
            number += 1
            unique = f"{name}~{number}"
        self.files[unique] = place

    def folder(self, root: Path, prefix: str) -> None:
        def cannot(error: OSError) -> None:
            self.unreadable[str(error.filename)] = first_line(error)

        for folder, subfolders, names in os.walk(root, onerror=cannot):
            self.hidden += sum(name.startswith(".") for name in (*subfolders, *names))
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            if self._output:
                subfolders[:] = [name for name in subfolders if Path(folder, name).resolve() != self._output]
            for name in sorted(name for name in names if not name.startswith(".")):
                path = Path(folder, name)
                relative = path.relative_to(root).as_posix()
                if self._wanted(relative):
                    self.add(path, f"{prefix}/{relative}" if prefix else relative)
                else:
                    self.other[path.suffix.lower()] += 1

    def _wanted(self, relative: str) -> bool:
        name = relative.rpartition("/")[2]
        if self._patterns:
            return any(fnmatch.fnmatch(text, p) for text in (name, relative) for p in self._patterns)
        return os.path.splitext(name)[1].lower() in MEDIA_SUFFIXES


def _listed(path: Path) -> Iterator[Path]:
    """The paths in a list; they need not exist."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror})", "a list of files") from error
    if "\0" in text:
        raise UsageError(f"{path} is not text", "a list: a path in each line, or CSV with a column path")
    for line in _column(path, text) if path.suffix.lower() == ".csv" else text.splitlines():
        line = line.strip()
        if line and not line.startswith("#"):
            yield path.parent / os.path.expanduser(line)


def _column(path: Path, text: str) -> Iterable[str]:
    rows = csv.DictReader(text.splitlines())
    if COLUMN not in (rows.fieldnames or ()):
        named = ", ".join(rows.fieldnames or ())[:200] or "none"
        raise UsageError(f"{path} has the columns {named}", f"a column {COLUMN}", "its first line names the columns")
    return [row[COLUMN] or "" for row in rows]


def _relative(path: Path, base: Path) -> str:
    """A name for a file of a list: below the list's folder, else its absolute path without what begins it."""
    whole = os.path.abspath(path)
    try:
        shown = Path(whole).relative_to(os.path.abspath(base))
    except ValueError:
        shown = Path(os.path.splitdrive(whole)[1].lstrip("/\\"))
    return shown.as_posix()
