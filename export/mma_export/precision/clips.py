"""Clips to calibrate and to gate a graph with: made of the sample, a folder of the user's videos, or the public sets.

All of them come out of the runtime's own pipeline (detector, tracker, crop, log-mel), so a graph is judged on what it
will get in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from mma_edge.audio.logmel import NUM_MEL_BINS, NUM_MEL_FRAMES
from mma_edge.clip import NUM_FRAMES, batch_of, evenly
from mma_edge.engines.session import open_session
from mma_edge.errors import DataError, SourceError, UsageError
from mma_edge.pipeline import collect_clips
from mma_edge.sources.file import VIDEO_SUFFIXES, videos_in
from mma_edge.types import Clip
from mma_export.precision.varied import varied
from mma_trainer.evaluation.sets.public import open_set
from mma_trainer.labels import DFEW_LABELS

SAMPLE_HOP_S = 0.1
"""The sample is short, so its windows overlap more than those of a live view."""
FOLDER_HOP_S = 1.0
BUDGET_BYTES = 256 << 20
"""Memory for all clips together."""


@dataclass(frozen=True, eq=False)
class RealClips:
    """Clips as the engine gets them.

    Attributes:
        frames: uint8 (N, 16, S, S, 3); zeros where there is no face.
        mel: float32 (N, 512, 128); zeros where there is no sound.
        labels: int64 (N,) or None.
        origin: where they come from, in words without paths, for the manifest.
    """

    frames: np.ndarray
    mel: np.ndarray
    labels: np.ndarray | None
    origin: str

    def __len__(self) -> int:
        return len(self.frames)

    def feed(self, start: int, count: int = 1) -> dict[str, np.ndarray]:
        """The inputs of `count` clips from `start` on."""
        return {"frames": self.frames[start : start + count], "mel": self.mel[start : start + count]}

    def part(self, rows: slice | np.ndarray) -> RealClips:
        labels = None if self.labels is None else self.labels[rows]
        return RealClips(self.frames[rows], self.mel[rows], labels, self.origin)

    def halves(self) -> tuple[RealClips, RealClips]:
        """Clips to calibrate with, and clips to gate with: they alternate."""
        return self.part(slice(0, None, 2)), self.part(slice(1, None, 2))

    def spread(self, count: int) -> RealClips:
        """At most `count` of them, evenly spread."""
        return self.part(evenly(len(self), count))


def windows_of(source: str | Path, image_size: int, hop_s: float) -> list[Clip]:
    """The clips that the runtime makes of a source; [] where a file has neither face nor sound."""
    try:
        return collect_clips(source, image_size, hop_s)
    except SourceError:
        if not Path(source).is_file():
            raise
        return []


def made_clips(image_size: int, count: int) -> RealClips:
    """Other faces and voices, made of the package's sample clip: see `varied`."""
    windows = [clip for clip in windows_of("sample", image_size, SAMPLE_HOP_S) if clip.frames is not None]
    frames, mel = varied(*batch_of(windows, image_size), _affordable(image_size, count))
    return RealClips(frames, mel, None, "clips made of the sample")


def folder_clips(folder: Path, image_size: int, labels: Sequence[str], count: int) -> RealClips:
    """Clips of all videos below a folder; where its subfolders are named as classes, with labels.

    Raises:
        DataError: no such folder, no videos, or neither faces nor sound in any of them.
    """
    hint = "give a folder of videos that show faces, or leave --clips out for the sample"
    if not folder.is_dir():
        raise DataError(f"--clips {folder} is not a folder", "a folder of videos", hint)
    videos = videos_in(folder)
    if not videos:
        raise DataError(f"--clips {folder} has no videos", f"files ending in {', '.join(VIDEO_SUFFIXES)}", hint)
    clips, classes = [], []
    limit = _affordable(image_size, count)
    for video in videos:
        found = windows_of(video, image_size, FOLDER_HOP_S)
        # Every video counts, however long another one is.
        found = [found[row] for row in evenly(len(found), max(1, 2 * limit // len(videos)))]
        clips += found
        classes += [labels.index(video.parent.name) if video.parent.name in labels else -1] * len(found)
    if not any(clip.frames is not None for clip in clips):
        raise DataError(f"--clips {folder}: no face was found in {len(videos)} videos", "faces", hint)
    rows = evenly(len(clips), limit)
    known = np.array(classes)[rows]
    arrays = batch_of([clips[row] for row in rows], image_size)
    return RealClips(*arrays, known if (known >= 0).all() else None, f"{len(videos)} videos")


def public_clips(data: Path, image_size: int, labels: Sequence[str], count: int) -> RealClips:
    """Pseudo pairs of FER+ faces and RAVDESS voices, as `mma-eval --set pseudo` has them."""
    if tuple(labels) != DFEW_LABELS:
        raise UsageError("--data with a model of other classes", ", ".join(DFEW_LABELS), "give videos with --clips DIR")
    clips = open_set("pseudo", data, image_size).first(_affordable(image_size, count))
    frames, mel, found = zip(*clips.batches(), strict=True)
    return RealClips(
        np.concatenate(frames), np.concatenate(mel), np.concatenate(found), "pseudo pairs of FER+ and RAVDESS"
    )


def _affordable(image_size: int, count: int) -> int:
    """As many clips as asked for, or as fit into BUDGET_BYTES, but at least two."""
    per_clip = NUM_FRAMES * image_size**2 * 3 + NUM_MEL_FRAMES * NUM_MEL_BINS * 4
    return max(2, min(count, BUDGET_BYTES // per_clip))


def logits_of(graph: onnx.ModelProto | Path, clips: RealClips, batch: int = 1) -> np.ndarray:
    """Logits float32 (N, C) of all clips, from a graph in memory or on disk, on onnxruntime's CPU."""
    if isinstance(graph, Path):
        session, _ = open_session(graph)
    else:
        # Optimising, onnxruntime moves a Transpose behind a QuantizeLinear, and has none for E4M3.
        has_e4m3 = any(tensor.data_type == onnx.TensorProto.FLOAT8E4M3FN for tensor in graph.graph.initializer)
        session, _ = open_session(graph.SerializeToString(), optimized=not has_e4m3)
    found = []
    for start in range(0, len(clips), batch):
        found += session.run(["logits"], clips.feed(start, batch))
    return np.concatenate(found)
