"""Whether a mode is good enough to ship: its answers are compared with those of the whole float32 graph, window by
window.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mma_edge.clip import GridClips, batch_of
from mma_edge.engines.agreement import agreement
from mma_edge.engines.base import Engine
from mma_edge.errors import DataError, SourceError
from mma_edge.pipeline import collect_clips
from mma_edge.precisions import MIN_TOP1_AGREEMENT
from mma_edge.predictor import softmax
from mma_edge.streaming import Streamer, StreamingGraphs
from mma_edge.types import Clip

REQUIRED_AGREEMENT = 0.99
"""Rolling ships where at least this share of the windows has the same most probable class, or what the whole graph of
its precision has to reach, if that is less."""
HOP_S, STRIDES = 0.25, (2, 1)
"""Windows are taken at every second of these hops, which gives the default hop, and at every one."""
MAX_AGES_S = (float("inf"), 2.0, 1.0)
"""How old a summary may get; the first that passes ships. A window is 4 s long, so inf means 4 s."""


def every(clips: Sequence[Clip], stride: int) -> list[Clip]:
    """The clips of every stride-th window, as a hop that is `stride` times as long would give them."""
    ends_s = sorted({clip.end_s for clip in clips})
    chosen = set(ends_s[stride - 1 :: stride])
    return [clip for clip in clips if clip.end_s in chosen]


@dataclass(frozen=True)
class PartsGate:
    """What the parts are measured on.

    Attributes:
        sources: clips that `open_source` understands.
        most: windows in all, the first ones of each source; None: every one.
        keep_going: a mode that fails is noted in the manifest instead of being left out.
    """

    sources: Sequence[str | Path] = ("sample",)
    most: int | None = None
    keep_going: bool = False

    @property
    def most_of_each(self) -> int | None:
        """Windows of each source at each stride, at least two."""
        return None if self.most is None else max(2, self.most // (len(self.sources) * len(STRIDES)))


@dataclass
class Agreement:
    """How far rolling agrees with full recomputation.

    Attributes:
        answers, expected: per window, probabilities: arrays (C,).
    """

    answers: list[np.ndarray] = field(default_factory=list)
    expected: list[np.ndarray] = field(default_factory=list)

    def add(self, logits: np.ndarray, expected: np.ndarray) -> None:
        """One window: logits (1, C) of both."""
        self.answers.append(softmax(logits)[0])
        self.expected.append(softmax(expected)[0])

    def figures(self) -> dict[str, float | int]:
        """As the manifest and the benchmark store them."""
        found = agreement(np.stack(self.expected), np.stack(self.answers))
        return {
            "windows": found.clips,
            "top1_agreement": found.top1,
            "mean_abs_probability_error": found.mean_difference,
            "max_abs_probability_error": found.max_difference,
        }


def compare(clips: Sequence[Clip], streamer: Streamer, expected: Sequence[np.ndarray], into: Agreement) -> None:
    """Stream the clips of one source through a new Streamer; `expected` are the whole graph's logits (1, C)."""
    for clip, logits in zip(clips, expected, strict=True):
        into.add(streamer([clip]), logits)


def full_logits(engine: Engine, clip: Clip) -> np.ndarray:
    """The whole graph's logits (1, C) of a clip with a face."""
    return engine(*batch_of([clip], clip.frames.shape[1]))


class Windows:
    """Windows of real clips, with the answers of the whole float32 graph.

    `engine` is that graph's.

    Raises:
        DataError: no face in any of the sources.
    """

    def __init__(self, engine: Engine, image_size: int, gate: PartsGate) -> None:
        self._runs: list[tuple[list[Clip], list[np.ndarray]]] = []
        for source in gate.sources:
            seen: list[Clip] = []
            with contextlib.suppress(SourceError):  # a file with neither a face nor sound
                seen = [clip for clip in collect_clips(source, image_size, HOP_S, GridClips) if clip.frames is not None]
            parts = [every(seen, stride)[: gate.most_of_each] for stride in STRIDES]
            expected: dict[int, np.ndarray] = {}  # a window may be in several parts
            for clip in itertools.chain(*parts):
                if id(clip) not in expected:
                    expected[id(clip)] = full_logits(engine, clip)
            self._runs += [(part, [expected[id(clip)] for clip in part]) for part in parts if part]
        if not self._runs:
            names = ", ".join(map(str, gate.sources)) or "no clip"
            raise DataError(f"no face in {names}", "clips with a face to measure rolling on", "leave --clips out")

    def figures(self, graphs: StreamingGraphs, mode: str, max_age_s: float = float("inf")) -> dict[str, float | int]:
        """How far a mode agrees with the whole graph, as the manifest stores it."""
        agreement = Agreement()
        for clips, logits in self._runs:
            compare(clips, Streamer(graphs, mode, max_age_s), logits, agreement)
        return agreement.figures()

    def judge_exact(self, graphs: StreamingGraphs, precision: str) -> dict:
        """What the manifest says of mode exact in a precision that rounds: `parity`, and `refused` if it fails."""
        figures = self.figures(graphs, "exact")
        least = MIN_TOP1_AGREEMENT[precision]
        verdict: dict = {"parity": figures}
        return verdict if figures["top1_agreement"] >= least else {**verdict, "refused": _refusal(figures, least)}

    def judge_rolling(self, graphs: StreamingGraphs, precision: str) -> dict:
        """What the manifest says of mode rolling besides its parity: `curve`, and `max_age_s` if it is bounded, or
        `refused`.

        The longest age that agrees in enough windows is taken; where none does, rolling is refused with the figures of
        the best.
        """
        curve, least = [], min(REQUIRED_AGREEMENT, MIN_TOP1_AGREEMENT.get(precision, REQUIRED_AGREEMENT))
        for max_age_s in MAX_AGES_S:
            bound = None if max_age_s == float("inf") else max_age_s
            curve.append({"max_age_s": bound, **self.figures(graphs, "rolling", max_age_s)})
            if precision != "fp32" and curve[-1]["top1_agreement"] >= least:
                break  # the curve of fp32 tells the rest
        passed = [point for point in curve if point["top1_agreement"] >= least]
        if not passed:
            best = max(curve, key=lambda point: point["top1_agreement"])
            return {"curve": curve, "refused": _refusal(best, least)}
        bound = passed[0]["max_age_s"]
        return {"curve": curve} if bound is None else {"curve": curve, "max_age_s": bound}


def _refusal(figures: dict, least: float) -> str:
    share = f"{figures['top1_agreement']:.1%} of {figures['windows']} windows"
    return f"at export it agreed with full recomputation in {share}, of {least:.0%} that are required"
