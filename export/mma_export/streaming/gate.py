"""Is rolling good enough to ship? Its answers beside full recomputation on the same frames, window by window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mma_edge.clip import GridClips, batch_of
from mma_edge.engines.base import Engine
from mma_edge.errors import DataError
from mma_edge.pipeline import collect_clips
from mma_edge.predictor import softmax
from mma_edge.streaming import Streamer, StreamingGraphs
from mma_edge.types import Clip

REQUIRED_AGREEMENT = 0.99
"""Share of windows with the same most probable class, from which on rolling is shipped."""
HOP_S, STRIDES = 0.25, (2, 1)
"""Windows are taken at every second of these hops, which is the default hop, and at every one."""
MAX_AGES_S = (float("inf"), 2.0, 1.0)
"""How old a summary may get; the first that passes is what ships. A window is 4 s, so inf is the window's length."""


def every(clips: Sequence[Clip], stride: int) -> list[Clip]:
    """The clips of every stride-th window: those of a hop that is so much longer."""
    ends_s = sorted({clip.end_s for clip in clips})
    chosen = set(ends_s[stride - 1 :: stride])
    return [clip for clip in clips if clip.end_s in chosen]


@dataclass
class Agreement:
    """Rolling beside full recomputation.

    Attributes:
        same: per window, whether the most probable class is the same.
        errors: per window, the absolute error of each probability: arrays (C,).
    """

    same: list[bool] = field(default_factory=list)
    errors: list[np.ndarray] = field(default_factory=list)

    def add(self, logits: np.ndarray, expected: np.ndarray) -> None:
        """One window: logits (1, C) of both."""
        got, want = softmax(logits)[0], softmax(expected)[0]
        self.same.append(bool(got.argmax() == want.argmax()))
        self.errors.append(np.abs(got - want))

    def figures(self) -> dict[str, float | int]:
        """As the manifest and the benchmark store them."""
        return {
            "windows": len(self.same),
            "top1_agreement": float(np.mean(self.same)),
            "mean_abs_probability_error": float(np.mean(self.errors)),
            "max_abs_probability_error": float(np.max(self.errors)),
        }


def compare(clips: Sequence[Clip], streamer: Streamer, expected: Sequence[np.ndarray], into: Agreement) -> None:
    """Stream the clips of one source through a new Streamer; `expected` are the whole graph's logits (1, C)."""
    for clip, logits in zip(clips, expected, strict=True):
        into.add(streamer(clip), logits)


def full_logits(engine: Engine, clip: Clip) -> np.ndarray:
    """The whole graph's logits (1, C) of a clip with a face."""
    return engine(*batch_of([clip], clip.frames.shape[1]))


def rolling_gate(graphs: StreamingGraphs, engine: Engine, image_size: int, sources: Sequence[str]) -> dict:
    """What the manifest says of rolling beyond its parity: `max_age_s` if it is bounded, `curve`, or `refused`.

    The longest age that agrees in REQUIRED_AGREEMENT of the windows is taken; where none does, rolling is refused
    with the figures of the best.
    """
    runs = []
    for source in sources:
        seen = [clip for clip in collect_clips(source, image_size, HOP_S, GridClips) if clip.frames is not None]
        expected = {id(clip): full_logits(engine, clip) for clip in seen}
        parts = [every(seen, stride) for stride in STRIDES]
        runs += [(part, [expected[id(clip)] for clip in part]) for part in parts if part]
    if not runs:
        names = ", ".join(sources) or "no clip"
        raise DataError(f"no face in {names}", "clips with a face to measure rolling on", "leave --clips out")
    curve = []
    for max_age_s in MAX_AGES_S:
        agreement = Agreement()
        for clips, logits in runs:
            compare(clips, Streamer(graphs, "rolling", max_age_s), logits, agreement)
        bound = None if max_age_s == float("inf") else max_age_s
        curve.append({"max_age_s": bound, **agreement.figures()})
    passed = [point for point in curve if point["top1_agreement"] >= REQUIRED_AGREEMENT]
    verdict: dict = {"curve": curve}
    if not passed:
        best = max(curve, key=lambda point: point["top1_agreement"])
        share = f"{best['top1_agreement']:.1%} of {best['windows']} windows"
        verdict["refused"] = (
            f"at export it agreed with full recomputation in {share}, of {REQUIRED_AGREEMENT:.0%} that are required"
        )
    elif passed[0]["max_age_s"] is not None:
        verdict["max_age_s"] = passed[0]["max_age_s"]
    return verdict
