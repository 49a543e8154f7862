"""Annotation lists: which clips they name, and where those lie on disk.

The authors' format is one line `<folder of frames> <number of frames> <class>` per clip. The
lists that come with the data sets are read too: DFEW's `video_name,label` (classes from 1) and
MAFW's `00025.mp4 anger`; neither has a number of frames: all in the folder count.

The wav of a clip lies in a parallel tree: DFEW has `clip_224x224/00012/` beside `raw_wav/12.wav`,
MAFW `clips_faces/00012/` beside `clips_wav/00012.wav`. A clip without a wav is heard as zeros.
No torch in here, so a benchmark on a device can read a test list.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath, PureWindowsPath

import soundfile
from PIL import Image

from mma_edge.audio.logmel import MIN_SAMPLE_RATE_HZ
from mma_edge.errors import DataError
from mma_trainer.data import check
from mma_trainer.data.check import Problem
from mma_trainer.data.entries import ClipEntry
from mma_trainer.labels import canonical

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}
PARALLEL_TREES = {"clip_224x224": "raw_wav", "clips_faces": "clips_wav"}
READERS = 8  # threads that look clips up: most of that time is spent waiting for the disk


class BadClipError(Exception):
    """A line that cannot be used: kind of problem, name of the clip, what was found."""


def scan_list(
    path: Path, frames_root: Path | None, audio_root: Path | None, labels: Sequence[str]
) -> tuple[list[ClipEntry], list[Problem]]:
    """The usable clips of a list, in its order, and everything that is wrong with the others.

    Of each clip the number of frames, the headers of three of them and that of its wav are looked at;
    nothing is decoded. DataError for a list that cannot be read or is empty.

    Args:
        path: the list; `.csv` is DFEW's own format.
        frames_root: where the listed folders lie, by their whole path or by its last part alone; None: as listed.
        audio_root: folder of the wavs; None: the parallel tree.
    """
    lines = read_lines(path)
    if not lines:
        raise DataError(f"{path}: it is empty", "one clip per line", "check --train-list and --val-list")

    def look_up(where: str, line: str) -> ClipEntry | Problem:
        try:
            return _find_clip(line, where, frames_root, audio_root, labels)
        except BadClipError as error:
            kind, clip, text = error.args
            return Problem(kind, where, clip, text)

    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(look_up, *zip(*lines, strict=True)))
    entries, twice = check.without_doubles([item for item in found if isinstance(item, ClipEntry)])
    return entries, [item for item in found if isinstance(item, Problem)] + twice


def read_lines(path: Path) -> list[tuple[str, str]]:
    """("set_1_train.txt line 3", the line) of every line that names a clip; DataError for an unreadable file."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        what = f"list {path} cannot be read ({error})"
        raise DataError(what, "a text file", "check --train-list and --val-list") from error
    numbered = [(f"{path.name} line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    return numbered[1:] if path.suffix.lower() == ".csv" else numbered  # a CSV begins with video_name,label


def parse_line(line: str, labels: Sequence[str]) -> tuple[str, int | None, int]:
    """(folder, number of frames or None, class) of a line in any of the formats; BadClipError for another."""
    if match := re.fullmatch(r"\s*(.+?)\s+(\d+)\s+(\d+)\s*", line):
        folder, count, label = match[1], int(match[2]), int(match[3])
    elif match := re.fullmatch(r'\s*"?(\d+)"?\s*,\s*(\d+)\s*', line):  # DFEW's split: classes count from 1
        folder, count, label = f"{int(match[1]):05d}", None, int(match[2]) - 1
    elif match := re.fullmatch(r"\s*(\S+)\.(?:mp4|avi|mov|mkv)\s+([a-z]+)\s*", line, re.IGNORECASE):
        word = canonical(match[2])
        if word not in labels:
            raise BadClipError(check.BAD_LABEL, match[1], f"class {match[2]!r}, none of {', '.join(labels)}")
        folder, count, label = match[1], None, list(labels).index(word)
    else:
        raise BadClipError(check.BAD_LINE, "", f"cannot be parsed: {line[:60]!r}")
    if not 0 <= label < len(labels):
        name = last_part(folder)
        raise BadClipError(check.BAD_LABEL, name, f"clip {name}: class {label} of {len(labels)}")
    return folder, count, label


def _find_clip(
    line: str, where: str, frames_root: Path | None, audio_root: Path | None, labels: Sequence[str]
) -> ClipEntry:
    listed, count, label = parse_line(line, labels)
    name = last_part(listed)
    places = [Path(listed)] if frames_root is None else [frames_root / listed, frames_root / name]
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise BadClipError(check.MISSING_FRAMES, name, f"no folder {places[0]}")
    with os.scandir(folder) as items:
        files = [item.name for item in items if os.path.splitext(item.name)[1].lower() in IMAGE_SUFFIXES]
    files.sort(key=frame_number)
    if not files or count == 0 or len(files) < (count or 0):
        expected = "at least one is needed" if count is None else f"the list says {count}"
        raise BadClipError(check.MISSING_FRAMES, name, f"{folder} has {len(files)} frames, {expected}")
    files = files[:count]
    if (wav := _find_wav(folder, audio_root)) is not None:
        _check_wav(wav, name)
    sizes = {_check_frame(folder / file, name) for file in (files[0], files[len(files) // 2], files[-1])}
    # Face crops differ in size from frame to frame; the others may be larger than these.
    frame_bytes = int(max(sizes) * len(files) * (1.1 if len(sizes) == 1 else 1.5))
    return ClipEntry(folder.name, folder, tuple(files), wav, label, where, frame_bytes)


def last_part(listed: str) -> str:
    """Name of a clip whose folder is given as on any machine."""
    return PureWindowsPath(listed).name if "\\" in listed else PurePosixPath(listed).name


def frame_number(name: str) -> tuple[int, str]:
    """Sort key of a frame's file name: by number, so that 10.jpg follows 9.jpg as it does in the video."""
    digits = re.findall(r"\d+", os.path.splitext(name)[0])
    return (int(digits[-1]) if digits else 0, name)


def _find_wav(folder: Path, audio_root: Path | None) -> Path | None:
    if audio_root is None:
        tree = PARALLEL_TREES.get(folder.parent.name)
        if tree is None:
            return None
        audio_root = folder.parent.with_name(tree)
    names = [folder.name, *([str(int(folder.name))] if folder.name.isdigit() else ())]
    return next((wav for name in names if (wav := audio_root / f"{name}.wav").is_file()), None)


def _check_wav(wav: Path, clip: str) -> None:
    try:
        info = soundfile.info(str(wav))
    except (soundfile.LibsndfileError, OSError) as error:
        if wav.stat().st_size == 0:
            raise BadClipError(check.EMPTY_SOUND, clip, f"{wav} is an empty file") from error
        raise BadClipError(check.BAD_SOUND, clip, f"{wav} cannot be read ({error})") from error
    if info.frames == 0:
        raise BadClipError(check.EMPTY_SOUND, clip, f"{wav} holds no samples")
    if info.samplerate < MIN_SAMPLE_RATE_HZ:
        raise BadClipError(check.BAD_SOUND, clip, f"{wav} has {info.samplerate} Hz, less than {MIN_SAMPLE_RATE_HZ}")


def _check_frame(path: Path, clip: str) -> int:
    """Decoded bytes of a frame, from its header."""
    try:
        with Image.open(path) as image:
            width, height = image.size
    except (OSError, Image.DecompressionBombError) as error:
        raise BadClipError(check.BAD_FRAME, clip, f"{path} cannot be read ({error})") from error
    return 3 * width * height


def scan_fold(
    train_list: Path, val_list: Path, frames_root: Path | None, audio_root: Path | None, labels: Sequence[str]
) -> tuple[list[ClipEntry], list[ClipEntry], list[Problem]]:
    """The usable training and test clips of a fold, and all that is wrong; a clip in both lists is a test clip."""
    train, problems = scan_list(train_list, frames_root, audio_root, labels)
    val, more = scan_list(val_list, frames_root, audio_root, labels)
    train, shared = check.without_tested(train, val)
    absent = check.absent_classes(train, labels, train_list.name) + check.absent_classes(val, labels, val_list.name)
    return train, val, [*problems, *more, *shared, *absent]
