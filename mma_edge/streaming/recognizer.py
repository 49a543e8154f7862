"""A recognizer whose clips go through the model in parts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from mma_edge.bundle import Bundle
from mma_edge.bundle.streaming import MODES, Parts
from mma_edge.clip import NUM_FRAMES, batch_of
from mma_edge.engines import backend_module, require_parts
from mma_edge.errors import BackendError, BundleError
from mma_edge.predictor import Predictor
from mma_edge.streaming.graphs import StreamingGraphs
from mma_edge.streaming.streamer import AUTO, Streamer, check_mode
from mma_edge.types import Clip, Emotion, Notify


class StreamingRecognizer:
    """Takes the place of a pipeline's recognizer: the same Emotions with less work.

    Args:
        sound_age_s: in mode rolling, how old what is kept of the sound may get; None: as old as the bundle allows,
            which is the most that is taken.

    Raises:
        UsageError: the mode does not exist.
        BundleError: the bundle has no graphs for the mode on the recognizer's engine, refuses it, or its graphs fail
            the self-test.
        BackendError, DependencyError: the engine cannot open them.
    """

    def __init__(self, recognizer: Predictor, mode: str, sound_age_s: float | None = None) -> None:
        check_mode(mode)
        self.recognizer, self.image_size = recognizer, recognizer.image_size
        bundle, backend, precision = recognizer.bundle, recognizer.backend, recognizer.precision
        if mode not in recognizer.streaming_graphs:  # several sources share them
            opened = open_graphs(bundle, mode, backend, precision)
            self_test(bundle, opened[0], mode, backend, precision)
            recognizer.streaming_graphs[mode] = opened
        graphs, parts = recognizer.streaming_graphs[mode]
        age_s = parts.sound_age_s if sound_age_s is None else min(sound_age_s, parts.sound_age_s)
        self.streamer = Streamer(graphs, mode, parts.max_age_s, age_s)
        self.stats = self.streamer.stats

    def predict_clips(self, clips: Sequence[Clip]) -> list[Emotion]:
        """One Emotion per clip; clips come in the order of their windows."""
        if not clips:
            return []
        frames, mel = batch_of(clips, self.image_size)
        # The faces of one window go in together; a window after it needs what is kept of them.
        groups = itertools.groupby(range(len(clips)), lambda row: (clips[row].end_s, clips[row].frames is None))
        logits = []
        for (_, faceless), rows in groups:
            chosen = list(rows)
            if faceless:
                logits.append(self.recognizer.engine(frames[chosen], mel[chosen]))
            else:
                logits.append(self.streamer([clips[row] for row in chosen]))
        newest_s = max(clip.end_s for clip in clips)
        self.streamer.keep_only({clip.track_id for clip in clips if clip.end_s == newest_s})
        return self.recognizer.emotions(clips, self.recognizer.probabilities(np.concatenate(logits), frames, mel))


def choose_mode(recognizer: Predictor, mode: str | None, notify: Notify) -> str | None:
    """A mode as it is; for "auto" rolling where the bundle offers it for the recognizer's engine, else exact, else
    None. `notify` gets the reason why it is not rolling.
    """
    if mode != AUTO:
        return mode
    reasons = []
    for name in reversed(MODES):
        try:
            failed = require_parts(recognizer.bundle, recognizer.backend, recognizer.precision, name).failed
        except (BackendError, BundleError) as error:
            failed = str(error)
        if failed is None:
            break
        reasons.append(failed)
    taken = None if len(reasons) == len(MODES) else name
    if reasons:
        notify(f"--streaming auto computes {f'in mode {taken}' if taken else 'every window as a whole'}: {reasons[0]}")
    return taken


def open_graphs(bundle: Bundle, mode: str, backend: str, precision: str) -> tuple[StreamingGraphs, Parts]:
    """The graphs of a mode on an engine, and what the bundle says of them; errors as of `require_parts`."""
    parts = require_parts(bundle, backend, precision, mode)
    return StreamingGraphs(*backend_module(backend).open_parts(bundle, precision, parts)), parts


def self_test(bundle: Bundle, graphs: StreamingGraphs, mode: str, backend: str, precision: str) -> None:
    """BundleError where the parts together do not reproduce the bundle's golden logits."""
    frames, mel, expected, _ = bundle.golden
    tolerance = bundle.parts(backend, precision, mode).tolerance or bundle.tolerance(precision)
    difference = golden_difference(graphs, mode, frames, mel, expected)
    if not difference <= tolerance:  # NaN fails too
        raise BundleError(
            f"{bundle.folder}: the graphs of --streaming {mode} in {precision} on {backend} differ from the golden "
            f"output by {difference:.2e}",
            f"at most {tolerance:.0e}",
            "try another --precision or --backend, or export the bundle again with mma-export --streaming",
        )


def golden_difference(
    graphs: StreamingGraphs, mode: str, frames: np.ndarray, mel: np.ndarray, expected: np.ndarray
) -> float:
    """Largest difference of a logit where all frames of one clip, of a bundle's golden inputs, are new; and where it
    comes again, so that what is kept of its sound is used.
    """
    clip = Clip(0.0, 1.0, 0, None, frames[0], mel[0], 0.0, tuple(float(index) for index in range(NUM_FRAMES)))
    streamer = Streamer(graphs, mode, sound_age_s=1.0, clear=0.0)
    times = 2 if graphs.keeps_sound else 1
    return float(max(np.abs(streamer([clip]) - expected).max() for _ in range(times)))
