"""Annotation lists that a test knows to be without fault."""

from __future__ import annotations

from pathlib import Path

from mma_trainer.data.entries import ClipEntry
from mma_trainer.data.lists import scan_list


def clips_of(path: Path, frames_root: Path | None, audio_root: Path | None, num_classes: int) -> list[ClipEntry]:
    """The clips of a list; nothing may be wrong with any of them."""
    entries, problems = scan_list(path, frames_root, audio_root, tuple(map(str, range(num_classes))))
    assert problems == []
    return entries
