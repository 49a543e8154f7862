"""Where a bundle or a repository is made before it is moved to its place, whole."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mma_edge.errors import OutputError


@contextlib.contextmanager
def work_folder(target: Path, hint: str) -> Iterator[Path]:
    """A new folder beside `target`, on the same disk, that is gone at the end.

    Args:
        hint: what to do where the disk is full or may not be written to.

    Raises:
        OutputError: for any OSError of the block.
    """
    work = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        yield work
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}", hint=hint) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
