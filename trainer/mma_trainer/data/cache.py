"""Decoded frames and log-mels on disk, so that a second epoch, run or fold decodes nothing.

Frames are stored as they come out of the decoder, uint8 at their own size, and mapped into memory;
log-mels as float32. Both are what the files give, to the bit. An entry belongs to the files it was
made of by their path, size and time; of a folder of frames the first, middle and last file are
looked at. Files are written whole or not at all, so any number of processes may share a folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mma_edge.audio.logmel import NUM_MEL_BINS, NUM_MEL_FRAMES
from mma_edge.errors import OutputError, UsageError
from mma_edge.files import replaced
from mma_trainer.data.entries import ClipEntry, ClipFiles

VERSION = "1"  # part of every key: to be raised when what is stored changes, the log-mel for instance
MEL_BYTES = 4 * NUM_MEL_FRAMES * NUM_MEL_BINS + 128  # of one log-mel's file: its header has 128
HEADER_BYTES = 4096  # room for the headers and the table of sizes of a clip's frames


class ClipCache(ClipFiles):
    """A bounded store of clips in a folder; see `mma_trainer.data.entries.load_clip`.

    Which clips fit is settled here, log-mels first, then frames in the order of `entries`, so that
    worker processes need not agree on anything. What the folder already holds takes room, too.

    Args:
        folder: made when it is not there; OutputError when it cannot be made.
        entries: the clips that will be asked for.
        max_gb: bound in 10^9 bytes for all that is in the folder; UsageError unless positive.

    Attributes:
        clips, clips_kept: how many clips there are, and the frames of how many find room.
    """

    def __init__(self, folder: Path, entries: Iterable[ClipEntry], max_gb: float) -> None:
        if not max_gb > 0:
            raise UsageError(f"--cache-gb {max_gb:g}", "more than 0")
        self.folder = folder
        try:
            for name in ("frames", "mel"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            stored = [path for name in ("frames", "mel") for path in (folder / name).glob("*.npy")]
            present = {path.stem: path.stat().st_size for path in stored}
        except OSError as error:
            raise OutputError(f"cache {folder} cannot be made ({error})", hint="choose another --cache") from error
        room = max_gb * 1e9 - sum(present.values())
        unique = list({entry.folder: entry for entry in entries}.values())
        self._mels: dict[Path, Path] = {}
        for wav in {entry.wav for entry in unique if entry.wav}:
            key = _key(wav, [wav])
            if key in present or room >= MEL_BYTES:
                self._mels[wav] = folder / "mel" / f"{key}.npy"
                room -= 0 if key in present else MEL_BYTES
        self._frames: dict[Path, Path] = {}
        for entry in unique:
            files = [entry.files[0], entry.files[len(entry.files) // 2], entry.files[-1]]
            key = _key(entry.folder, [entry.folder / name for name in files], *entry.files)
            needed = entry.frame_bytes + HEADER_BYTES
            if key in present or room >= needed:
                self._frames[entry.folder] = folder / "frames" / f"{key}.npy"
                room -= 0 if key in present else needed
        self.clips, self.clips_kept = len(unique), len(self._frames)

    def images(self, entry: ClipEntry, indices: Sequence[int]) -> list[np.ndarray]:
        """Frames at `indices`: uint8 (h, w, 3) each, read-only where they come from the store."""
        path = self._frames.get(entry.folder)
        if path is None:
            return super().images(entry, indices)
        stored = _open_frames(path, len(entry.files))
        if stored is None:
            images = super().images(entry, range(len(entry.files)))
            if sum(image.nbytes for image in images) <= entry.frame_bytes:
                # Two arrays behind each other: sizes int64 (n, 2), then all pixels in a row, uint8.
                sizes = np.array([image.shape[:2] for image in images], np.int64)
                _write(path, sizes, np.concatenate([image.ravel() for image in images]))
            return [images[int(index)] for index in indices]
        shapes, ends, pixels = stored
        return [
            pixels[ends[index] - shapes[index].prod() * 3 : ends[index]].reshape(*shapes[index], 3)
            for index in map(int, indices)
        ]

    def mel(self, entry: ClipEntry) -> np.ndarray:
        """Log-mel float32 (512, 128)."""
        path = self._mels.get(entry.wav) if entry.wav else None
        if path is None:
            return super().mel(entry)
        try:
            stored = np.load(path)
            if stored.shape == (NUM_MEL_FRAMES, NUM_MEL_BINS) and stored.dtype == np.float32:
                return stored
        except (OSError, ValueError, EOFError):
            pass  # not there yet, or damaged: made again
        mel = super().mel(entry)
        _write(path, mel)
        return mel


def _key(path: Path, made_of: Sequence[Path], *names: str) -> str:
    """Name of a stored item: changes with the files that it was made of."""
    digest = hashlib.sha256(VERSION.encode())
    digest.update(os.fsencode(path.absolute()))
    for file in made_of:
        status = file.stat()
        digest.update(f"/{status.st_size}/{status.st_mtime_ns}".encode())
    for name in names:
        digest.update(os.fsencode(name) + b"\0")
    return digest.hexdigest()[:32]


def _open_frames(path: Path, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Sizes (n, 2), ends (n,) and the pixels, mapped; None where there is no whole file."""
    try:
        with path.open("rb") as file:
            shapes = np.load(file)
            np.lib.format.read_magic(file)
            (length,), _, dtype = np.lib.format.read_array_header_1_0(file)  # numpy's choice for a short header
            offset = file.tell()
        ends = np.cumsum(shapes.prod(axis=1) * 3)
        if shapes.shape != (count, 2) or dtype != np.uint8 or ends[-1] != length:
            return None
        return shapes, ends, np.memmap(path, np.uint8, "r", offset, (length,))
    except (OSError, ValueError, EOFError):
        return None


def _write(path: Path, *arrays: np.ndarray) -> None:
    """Whole or not at all: a reader never sees half a file."""
    try:
        with replaced(path) as aside, aside.open("wb") as file:
            for array in arrays:
                np.save(file, array)
    except OSError as error:
        what, hint = f"cache {path.parent} cannot be written ({error})", "lower --cache-gb, or leave --cache out"
        raise OutputError(what, "free disk space", hint) from error
