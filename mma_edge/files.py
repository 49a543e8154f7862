"""Writes files whole or not at all, and says in one clear line when that fails."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from mma_edge.errors import OutputError


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to; it replaces `path` when the block ends without an error.

    A reader never sees half a file, even after a full disk or a killed process: only the old one or the new one. Two
    processes that write the same file do not disturb each other. What is not a file (a pipe, /dev/null) is written to
    itself: a file in its place would take it away from everybody.

    Raises:
        OSError: from the block, or because `path` cannot be replaced.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


@contextlib.contextmanager
def replaced_folders(targets: Sequence[Path], beside: Path, hint: str) -> Iterator[list[Path]]:
    """New folders, one for each of `targets`, that take their places when the block ends well: all of them or none.

    They are made next to `beside`, on the same disk: whoever looks at a target sees the old folder or the whole new
    one, and nothing is left behind where the block or a move fails.

    Args:
        targets: folders of one parent, which is made if it is not there.
        beside: what is written, for the message.
        hint: what to do where the disk is full or may not be written to.

    Raises:
        OutputError: for any OSError of the block or of the moves.
    """
    work = None
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{beside.name}-", dir=beside.parent))
        places = [work / target.name for target in targets]
        for place in places:
            place.mkdir()
            place.chmod(0o755)  # for others to read, whatever the umask
        yield places
        _put_in_place(places, targets)
    except OSError as error:
        raise OutputError(f"cannot write {beside}: {error.strerror or error}", hint=hint) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)


def _put_in_place(places: Sequence[Path], targets: Sequence[Path]) -> None:
    """Move every folder to its target; if one cannot be moved, all that were go back."""
    undo: list[tuple[Path, Path]] = []
    parent = targets[0].parent
    made_parent = not parent.exists()
    parent.mkdir(exist_ok=True)
    try:
        for place, target in zip(places, targets, strict=True):
            old = place.with_name(f"{place.name}.replaced")
            for source, to in ((target, old), (place, target)):
                if source.exists():
                    os.replace(source, to)
                    undo.append((to, source))
    except OSError:
        for moved, source in reversed(undo):
            os.replace(moved, source)
        if made_parent:
            parent.rmdir()
        raise


class LineFile(contextlib.AbstractContextManager):
    """A new file that grows by whole lines.

    Each line reaches the operating system before `append` returns. When one cannot be written (disk full), what was
    written of it is cut off again, so the file always ends with a whole line.

    Raises:
        OutputError: the file exists and neither `overwrite` nor `go_on` is asked for, or it cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        overwrite: bool = False,
        what: str = "records",
        option: str = "--output",
        go_on: bool = False,
    ) -> None:
        """`what` its lines are and which `option` names it, for the messages. `go_on`: keep the lines that are there,
        without what a killed process left of its last one."""
        self.path, self.count = Path(path), 0
        self._what, self._option = what, option
        self._size = 0
        try:
            if go_on and self.path.exists():
                self._size = self.path.read_bytes().rfind(b"\n") + 1
                os.truncate(self.path, self._size)
            # Binary and unbuffered: write() hands the bytes to the operating system.
            mode = "ab" if go_on else "wb" if overwrite else "xb"
            self._file = open(self.path, mode, buffering=0)  # noqa: SIM115
        except FileExistsError as error:
            hint = f"add --overwrite, or choose another {option}"
            raise OutputError(f"{self.path} exists", "a new file", hint) from error
        except OSError as error:
            raise self._failure(error) from error

    def append(self, line: str) -> None:
        """Add a line, which ends with its newline."""
        data = line.encode()
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
        self.count += 1

    def close(self) -> None:
        self._file.close()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _failure(self, error: OSError) -> OutputError:
        kept = f" after {self.count} {self._what}, which are kept" if self.count else ""
        hint = f"free disk space or choose another {self._option}"
        return OutputError(f"cannot write {self.path}{kept}: {error.strerror}", hint=hint)


def state_root() -> Path:
    """The user's folder for what must outlive a run and is no cache, such as a server's certificate; it need not exist.

    MMA_EDGE_STATE, else XDG_STATE_HOME/mma-edge, else ~/.local/state/mma-edge (Windows: LOCALAPPDATA/mma-edge).
    """
    if chosen := os.environ.get("MMA_EDGE_STATE"):
        return Path(chosen)
    variable, default = "XDG_STATE_HOME", ".local/state"
    if sys.platform == "win32":
        variable, default = "LOCALAPPDATA", "AppData/Local"
    return Path(os.environ.get(variable) or Path.home() / default) / "mma-edge"


def to_json(value: object) -> str:
    return json.dumps(value, indent=1, allow_nan=False, default=str) + "\n"


def check_new_file(path: Path, overwrite: bool, option: str = "--output") -> None:
    """Before any work for a file: OutputError where it exists and must not be replaced, or its folder does not."""
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists", "a new file", f"add --overwrite, or choose another {option}")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}", hint="make it first")


def make_folder(folder: Path) -> None:
    """Create a report's folder, before anything is computed for it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}", hint="choose another --output") from error


def write_text(path: Path, text: str) -> None:
    """Write a whole file or none; OutputError where that fails."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or none; OutputError where that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as aside:
            aside.write_bytes(data)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", hint="choose another folder") from error
