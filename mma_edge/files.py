"""Files of results: written whole or not at all, and one clear line where they cannot be."""

from __future__ import annotations

import json
from pathlib import Path

from mma_edge.errors import OutputError


def to_json(value: object) -> str:
    return json.dumps(value, indent=1, allow_nan=False, default=str) + "\n"


def make_folder(folder: Path) -> None:
    """Create the folder of a report, before anything is computed for it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}", hint="choose another --output") from error


def write_text(path: Path, text: str) -> None:
    """A whole file or none."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", hint="choose another folder") from error
    finally:
        if temporary.is_file():
            temporary.unlink()
