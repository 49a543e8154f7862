"""Where compiled models are kept between runs: a folder of the user, which may be deleted at any time.

MMA_EDGE_CACHE, else XDG_CACHE_HOME/mma-edge, else ~/.cache/mma-edge (Windows: LOCALAPPDATA/mma-edge);
MMA_EDGE_CACHE=off keeps nothing
    openvino/<version>/<SHA-256 of the graph>/    one folder per library version and graph: nothing goes stale
    tensorrt/<version>/<device>[-<power mode>].timings    see engines/tensorrt/plan.py
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

CACHE_VARIABLE = "MMA_EDGE_CACHE"
KEEP = 8
"""Graphs kept per library version; the least recently used is deleted first. A ViT-B in fp32 takes 0.7 GB."""


def cache_root() -> Path | None:
    """The folder, which need not exist yet; None when the user wants no cache."""
    chosen = os.environ.get(CACHE_VARIABLE, "")
    if chosen:
        return None if chosen == "off" else Path(chosen)
    variable, default = "XDG_CACHE_HOME", ".cache"
    if sys.platform == "win32":
        variable, default = "LOCALAPPDATA", "AppData/Local"
    return Path(os.environ.get(variable) or Path.home() / default) / "mma-edge"


def cached_folder(library: str, key: str, needed_bytes: int, fill: Callable[[Path], None]) -> Path:
    """The folder of `key`, filled by `fill` if it is new: complete or not there, even if others fill it too.

    It lies in the subfolder `library`, e.g. "openvino/2026.4.1"; `fill` writes at most `needed_bytes`. OSError where
    the folder cannot be written, or the disk is too full.
    """
    root = cache_root()
    if root is None:
        raise OSError(f"{CACHE_VARIABLE} is off")
    shelf = root / library
    folder = shelf / key
    if folder.is_dir():
        os.utime(folder)  # the time of the last use
        return folder
    # These files are loaded as code: nobody else may write them.
    shelf.mkdir(parents=True, exist_ok=True, mode=0o700)
    if shutil.disk_usage(shelf).free < needed_bytes:
        raise OSError(f"less than {needed_bytes / 1e6:.0f} MB free in {shelf}")
    work = Path(tempfile.mkdtemp(prefix=".", dir=shelf))
    try:
        fill(work)
        try:
            os.replace(work, folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was quicker
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    others = sorted((path for path in shelf.iterdir() if path != folder), key=lambda path: path.stat().st_mtime)
    for path in others[: max(0, len(others) + 1 - KEEP)]:
        shutil.rmtree(path, ignore_errors=True)
    return folder
