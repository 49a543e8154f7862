"""Overlapping windows share frames, so the work on these is done only once. `mma-edge run SOURCE --streaming MODE`.

exact     the work on a frame before it meets the sound (patch embedding and the first image block) is done once per
          frame and kept; everything else is done for every window. The results are those of the whole graph.
rolling   new frames go through all layers; older ones take part with the values from the window in which they were
          new, that is, with the sound of that time. An approximation; a bundle offers it only if the exporter found
          that it agrees with full recomputation (manifest, `streaming.rolling`).

Both need frames that stay the same from window to window: see `mma_edge.clip.GridClips`. A window without a face goes
through the whole graph: it has no frames to save work on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mma_edge.audio.logmel import NUM_MEL_BINS, NUM_MEL_FRAMES
from mma_edge.bundle import Bundle
from mma_edge.clip import NUM_FRAMES, batch_of
from mma_edge.engines.base import cpu_threads, run_failure
from mma_edge.engines.session import open_session
from mma_edge.errors import BackendError, BundleError, UsageError
from mma_edge.predictor import Predictor
from mma_edge.types import Clip, Emotion

MODES = ("exact", "rolling")
BACKEND, PRECISION = "cpu", "fp32"
"""The only engine that this version makes graphs in parts for."""


def check_mode(mode: str) -> None:
    """UsageError unless this is one of MODES."""
    if mode not in MODES:
        raise UsageError(f"--streaming {mode}", f"one of {', '.join(MODES)}")


def choose_engine(backend: str, precision: str | None) -> tuple[str, str]:
    """Backend and precision of a streaming run: "auto" and None become the only ones that can, others are refused."""
    backend, precision = BACKEND if backend == "auto" else backend, PRECISION if precision is None else precision
    if (backend, precision) != (BACKEND, PRECISION):
        raise BackendError(
            f"--streaming on backend {backend} with precision {precision}",
            f"backend {BACKEND} with precision {PRECISION}, the only one with graphs in parts",
            f"add --backend {BACKEND} --precision {PRECISION}, or leave --streaming out",
        )
    return BACKEND, PRECISION


class StreamingGraphs:
    """The model in parts, in onnxruntime sessions on the CPU, from the ONNX files of the stem and of the mode's rest.

    Raises:
        BundleError, BackendError, DependencyError: see `open_session`; BackendError also where an inference fails.
    """

    def __init__(self, stem: Path, rest: Path) -> None:
        self._stem, self._rest = (open_session(path, cpu_threads())[0] for path in (stem, rest))
        shapes = {node.name: node.shape for node in self._rest.get_inputs()}
        self.summary_width: int = shapes["past"][1] if "past" in shapes else 0

    def stem(self, frames: np.ndarray) -> np.ndarray:
        """frames uint8 (M, S, S, 3) -> tokens float32 (M, T, W)."""
        return _run(self._stem, ["tokens"], {"frames": frames})[0]

    def window(self, tokens: np.ndarray, mel: np.ndarray) -> np.ndarray:
        """Mode exact: tokens (N, 16, T, W) and mel (N, 512, 128) -> logits (N, C)."""
        return _run(self._rest, ["logits"], {"tokens": tokens, "mel": mel})[0]

    def roll(self, tokens: np.ndarray, past: np.ndarray, order: np.ndarray, mel: np.ndarray) -> tuple[np.ndarray, ...]:
        """Mode rolling, one clip: logits (1, C) and summaries (M, D) of the new frames.

        tokens (M, T, W) of the new frames, M >= 1; past float32 (16, D), summaries of older frames; order int64 (16,):
        m < M is the m-th new frame, M + k is row k of `past`; mel (1, 512, 128).
        """
        inputs = {"tokens": tokens, "past": past, "order": order, "mel": mel}
        return tuple(_run(self._rest, ["logits", "summaries"], inputs))


def _run(session: Any, outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    try:
        return session.run(outputs, inputs)
    except Exception as error:  # onnxruntime's exceptions share no public base class
        raise run_failure(error, "onnxruntime CPU, the graphs of --streaming,") from error


@dataclass
class StreamingStats:
    """Work done: windows with a face, and how many frames went through the stem and through the layers above it."""

    updates: int = 0
    stem_frames: int = 0
    layer_frames: int = 0


@dataclass
class _Track:
    """What is kept for one face, by the time of the frame; only for the frames of the newest window."""

    tokens: dict[float, np.ndarray] = field(default_factory=dict)
    # Rolling: the summary, and the end of the window in which it was computed.
    summaries: dict[float, tuple[np.ndarray, float]] = field(default_factory=dict)
    heard: bool = False


class Streamer:
    """Logits of clips that share frames with earlier clips. Use one per source; the clips need `times_s`.

    In mode rolling a summary that is older than `max_age_s`, in presentation time, is computed again.
    """

    def __init__(self, graphs: StreamingGraphs, mode: str, max_age_s: float = float("inf")) -> None:
        check_mode(mode)
        self.graphs, self.mode, self.max_age_s = graphs, mode, max_age_s
        self.stats = StreamingStats()
        self._tracks: dict[int | None, _Track] = {}

    def __call__(self, clip: Clip) -> np.ndarray:
        """Logits (1, C) of a clip with frames; forgets what the track no longer needs."""
        track = self._tracks.setdefault(clip.track_id, _Track())
        mel = np.zeros((NUM_MEL_FRAMES, NUM_MEL_BINS), np.float32) if clip.mel is None else clip.mel
        place = {time_s: index for index, time_s in enumerate(clip.times_s)}  # of each frame, once
        self.stats.updates += 1
        self._embed(track, clip, place)
        if self.mode == "exact":
            self.stats.layer_frames += NUM_FRAMES
            tokens = np.stack([track.tokens[time_s] for time_s in clip.times_s])
            return self.graphs.window(tokens[None], mel[None])
        return self._roll(track, clip, list(place), mel)

    def keep_only(self, track_ids: set[int | None]) -> None:
        """Forget every other track."""
        self._tracks = {number: track for number, track in self._tracks.items() if number in track_ids}

    def _embed(self, track: _Track, clip: Clip, place: dict[float, int]) -> None:
        """Put the clip's frames, and no others, into `track.tokens`."""
        unseen = [time_s for time_s in place if time_s not in track.tokens]
        if unseen:
            self.stats.stem_frames += len(unseen)
            # Copies: a row that is a view would keep the whole batch in memory.
            fresh = self.graphs.stem(clip.frames[[place[time_s] for time_s in unseen]])
            track.tokens.update((time_s, row.copy()) for time_s, row in zip(unseen, fresh, strict=True))
        track.tokens = {time_s: track.tokens[time_s] for time_s in place}

    def _roll(self, track: _Track, clip: Clip, times_s: list[float], mel: np.ndarray) -> np.ndarray:
        heard = clip.mel is not None
        if heard != track.heard:  # older context is only similar while the sound neither begins nor ends
            track.summaries, track.heard = {}, heard
        oldest_s = clip.end_s - self.max_age_s - 1e-6
        kept = {t: track.summaries[t] for t in times_s if t in track.summaries and track.summaries[t][1] >= oldest_s}
        # The graph needs a new frame; where there is none (a slow camera), the newest one is computed again.
        new = [t for t in times_s if t not in kept] or times_s[-1:]
        old = [t for t in times_s if t not in new]
        past = np.zeros((NUM_FRAMES, self.graphs.summary_width), np.float32)
        for row, time_s in enumerate(old):
            past[row] = kept[time_s][0]
        row_of = {time_s: row for row, time_s in enumerate(new + old)}
        order = np.array([row_of[time_s] for time_s in clip.times_s], np.int64)
        self.stats.layer_frames += len(new)
        logits, summaries = self.graphs.roll(np.stack([track.tokens[t] for t in new]), past, order, mel[None])
        kept.update((t, (row.copy(), clip.end_s)) for t, row in zip(new, summaries, strict=True))
        track.summaries = kept
        return logits


class StreamingRecognizer:
    """Takes the place of a pipeline's recognizer: the same Emotions with less work.

    Raises:
        UsageError: the mode does not exist. BackendError: another engine than the one that can.
        BundleError: the bundle has no graphs for the mode, refuses it, or its graphs fail the self-test.
    """

    def __init__(self, recognizer: Predictor, mode: str) -> None:
        check_mode(mode)
        choose_engine(recognizer.backend, recognizer.precision)
        self.recognizer, self.image_size = recognizer, recognizer.image_size
        graphs, max_age_s = open_graphs(recognizer.bundle, mode)
        self_test(recognizer.bundle, graphs, mode)
        self.streamer = Streamer(graphs, mode, max_age_s)
        self.stats = self.streamer.stats

    def predict_clips(self, clips: Sequence[Clip]) -> list[Emotion]:
        """One Emotion per clip; clips come in the order of their windows."""
        if not clips:
            return []
        frames, mel = batch_of(clips, self.image_size)
        logits = [
            self.recognizer.engine(frames[row : row + 1], mel[row : row + 1])
            if clip.frames is None
            else self.streamer(clip)
            for row, clip in enumerate(clips)
        ]
        newest_s = max(clip.end_s for clip in clips)
        self.streamer.keep_only({clip.track_id for clip in clips if clip.end_s == newest_s})
        return self.recognizer.emotions(clips, self.recognizer.probabilities(np.concatenate(logits), frames, mel))


def open_graphs(bundle: Bundle, mode: str) -> tuple[StreamingGraphs, float]:
    """The graphs of a mode and its `max_age_s`; BundleError where the bundle has none or refuses it."""
    entry = bundle.manifest.get("streaming")
    if entry is None:
        hint = "export it with mma-export --streaming, or leave --streaming out"
        raise BundleError(f"bundle {bundle.folder} has no graphs for --streaming", "a bundle exported for it", hint)
    if refused := entry[mode].get("refused"):
        raise BundleError(f"bundle {bundle.folder} does not offer --streaming {mode}: {refused}", hint="use exact")
    rest = bundle.folder / entry[mode]["file"]
    return StreamingGraphs(bundle.folder / entry["stem"], rest), float(entry[mode].get("max_age_s", "inf"))


def self_test(bundle: Bundle, graphs: StreamingGraphs, mode: str) -> None:
    """BundleError where the parts together do not reproduce the bundle's golden logits."""
    frames, mel, expected, tolerance = bundle.golden
    clip = Clip(0.0, 1.0, 0, None, frames[0], mel[0], 0.0, tuple(float(index) for index in range(NUM_FRAMES)))
    logits = Streamer(graphs, mode)(clip)
    difference = float(np.abs(logits - expected).max())
    if not difference <= tolerance:  # NaN fails too
        what = f"{bundle.folder}: the graphs of --streaming {mode} differ from the golden output by {difference:.2e}"
        hint = "update onnxruntime, or export the bundle again with mma-export --streaming"
        raise BundleError(what, f"at most {tolerance:.0e}", hint)
