"""Writes files whole or not at all, and says in one clear line when that fails."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from mma_edge.errors import OutputError


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to; it replaces `path` when the block ends without an error.

    A reader never sees half a file, even after a full disk or a killed process: only the old one or the new one. Two
    processes that write the same file do not disturb each other.

    Raises:
        OSError: from the block, or because `path` cannot be replaced.
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
    """Create a report's folder, before anything is computed for it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}", hint="choose another --output") from error


def write_text(path: Path, text: str) -> None:
    """Write a whole file or none; OutputError where that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as aside:
            aside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", hint="choose another folder") from error
