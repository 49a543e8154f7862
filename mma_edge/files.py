"""Files written whole or not at all, and one clear line where they cannot be."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from mma_edge.errors import OutputError


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to, which takes the place of `path` when the block ends well.

    A reader, a full disk or a killed process never leaves half a file: there is the old one or the new one. Two
    processes that write the same file do not meet.

    Raises:
        OSError: of the block, or where the file cannot take its place.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


def to_json(value: object) -> str:
    return json.dumps(value, indent=1, allow_nan=False, default=str) + "\n"


def make_folder(folder: Path) -> None:
    """Create the folder of a report, before anything is computed for it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}", hint="choose another --output") from error


def write_text(path: Path, text: str) -> None:
    """A whole file or none; OutputError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as aside:
            aside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", hint="choose another folder") from error
