"""Annotation lists in the authors' format: `<folder of frames> <number of frames> <class>` per line.

The wav of a clip lies in a parallel tree: DFEW has `clip_224x224/00012/` beside `raw_wav/12.wav`,
MAFW `clips_faces/00012/` beside `clips_wav/00012.wav`. A clip without a wav is heard as zeros.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from mma_edge.audio import log_mel
from mma_edge.audio.logmel import NUM_MEL_BINS, NUM_MEL_FRAMES
from mma_edge.clip import frame_indices
from mma_edge.errors import DataError
from mma_edge.faces import resize
from mma_trainer.data.sampling import augment_clip, train_indices
from mma_trainer.model import MMADFERConfig
from mma_trainer.recipe import Recipe
from mma_trainer.task import WHOLE, Batch, Shard

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}
PARALLEL_TREES = {"clip_224x224": "raw_wav", "clips_faces": "clips_wav"}
MAX_NAMED = 5


@dataclass(frozen=True)
class ClipEntry:
    """One line of a list, found on disk: its frames in order, its wav (None: silent) and its class."""

    name: str
    frames: tuple[Path, ...]
    wav: Path | None
    label: int


def read_list(path: Path, frames_root: Path | None, audio_root: Path | None, num_classes: int) -> list[ClipEntry]:
    """Read a list and look every clip up; all problems are named at once, before any training."""
    try:
        lines = [line for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"list {path} cannot be read ({error})", "a text file", "check --train-list and --val-list"
        ) from error
    entries, problems = [], []
    for number, line in enumerate(lines, 1):
        try:
            entries.append(_read_line(line, frames_root, audio_root, num_classes))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    if problems or not entries:
        shown = "; ".join(problems[:MAX_NAMED]) or "it is empty"
        more = f" (and {len(problems) - MAX_NAMED} more)" if len(problems) > MAX_NAMED else ""
        raise DataError(
            f"{path}: {shown}{more}", "'<folder of frames> <number of frames> <class>' per line", "check --frames-root"
        )
    return entries


def _read_line(line: str, frames_root: Path | None, audio_root: Path | None, num_classes: int) -> ClipEntry:
    match = re.fullmatch(r"\s*(.+?)\s+(\d+)\s+(\d+)\s*", line)
    if match is None:
        raise ValueError(f"cannot be parsed: {line[:60]!r}")
    listed, count, label = Path(match[1]), int(match[2]), int(match[3])
    if label >= num_classes:
        raise ValueError(f"class {label} of {num_classes}")
    places = [listed] if frames_root is None else [frames_root / listed, frames_root / listed.name]
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise ValueError(f"no folder {places[0]}")
    frames = sorted((p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES), key=_frame_number)
    if len(frames) < count or count == 0:
        raise ValueError(f"{folder} has {len(frames)} frames, the list says {count}")
    return ClipEntry(folder.name, tuple(frames[:count]), _find_wav(folder, audio_root), label)


def _frame_number(path: Path) -> tuple[int, str]:
    # By number, so that 10.jpg follows 9.jpg as it does in the video.
    digits = re.findall(r"\d+", path.stem)
    return (int(digits[-1]) if digits else 0, path.name)


def _find_wav(folder: Path, audio_root: Path | None) -> Path | None:
    names = [folder.name + ".wav"]
    if folder.name.isdigit():
        names.append(f"{int(folder.name)}.wav")
    roots = [audio_root] if audio_root else []
    if not roots and folder.parent.name in PARALLEL_TREES:
        roots = [folder.parent.with_name(PARALLEL_TREES[folder.parent.name])]
    return next((root / name for root in roots for name in names if (root / name).is_file()), None)


def load_clip(entry: ClipEntry, image_size: int, rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
    """frames uint8 (16, S, S, 3) and log-mel (512, 128); augmented when `rng` is given."""
    indices = frame_indices(len(entry.frames)) if rng is None else train_indices(len(entry.frames), rng)
    try:
        images = {index: np.asarray(Image.open(entry.frames[index]).convert("RGB")) for index in set(indices.tolist())}
    except OSError as error:
        raise DataError(
            f"clip {entry.name}: a frame cannot be read ({error})", "a picture", "prepare it again"
        ) from error
    frames = [images[index] for index in indices.tolist()]
    if rng is None:
        clip = np.stack([resize(frame, image_size) for frame in frames])
    else:
        clip = augment_clip(frames, image_size, rng)
    return clip, _load_mel(entry)


def _load_mel(entry: ClipEntry) -> np.ndarray:
    if entry.wav is None:
        return np.zeros((NUM_MEL_FRAMES, NUM_MEL_BINS), np.float32)
    try:
        wave, rate = soundfile.read(entry.wav, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError) as error:
        raise DataError(f"clip {entry.name}: {entry.wav} cannot be read ({error})", "a wav file") from error
    return log_mel(wave.T, rate)


class ListDataset(Dataset):
    """Clips of a list as tensors; a training item is a function of (seed, epoch, index) alone."""

    def __init__(self, entries: list[ClipEntry], image_size: int, seed: int, epoch: int | None) -> None:
        self.entries, self.image_size, self.seed, self.epoch = entries, image_size, seed, epoch

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        rng = None if self.epoch is None else np.random.default_rng((self.seed, self.epoch, index))
        frames, mel = load_clip(self.entries[index], self.image_size, rng)
        return torch.from_numpy(frames), torch.from_numpy(mel), self.entries[index].label


class ListTask:
    """The paper's protocol: shuffled batches with the last incomplete one dropped; one test clip per video."""

    def __init__(
        self,
        train_list: Path,
        val_list: Path,
        frames_root: Path | None,
        audio_root: Path | None,
        config: MMADFERConfig,
        recipe: Recipe,
        workers: int,
    ) -> None:
        self.train = read_list(train_list, frames_root, audio_root, config.num_classes)
        self.val = read_list(val_list, frames_root, audio_root, config.num_classes)
        self.image_size, self.recipe, self.workers = config.image_size, recipe, workers
        self.num_batches = len(self.train) // recipe.batch_size
        if self.num_batches == 0:
            raise DataError(
                f"{train_list} has {len(self.train)} clips",
                f"at least a batch of {recipe.batch_size}",
                "lower --batch-size",
            )

    def train_batches(self, epoch: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        shuffle = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + epoch)
        dataset = ListDataset(self.train, self.image_size, self.recipe.seed, epoch)
        yield from self._load(dataset, shuffle)

    def val_batches(self, shard: Shard = WHOLE) -> Iterator[Batch]:
        yield from self._load(ListDataset(self.val, self.image_size, self.recipe.seed, None), None)

    def _load(self, dataset: ListDataset, shuffle: torch.Generator | None) -> Iterator[Batch]:
        loader = DataLoader(
            dataset,
            self.recipe.batch_size,
            shuffle=shuffle is not None,
            generator=shuffle,
            num_workers=self.workers,
            drop_last=shuffle is not None,
            pin_memory=torch.cuda.is_available(),
        )
        for frames, mel, labels in loader:
            yield Batch((frames, mel), labels)
