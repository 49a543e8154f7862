"""Whether a mode is good enough to ship: its answers are compared with those of the whole float32 graph, window by
window.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
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
SOUND_AGES_S = (1.0, 0.5, 0.25)
"""How old the sound of an answer may get; the first that passes ships."""
TURNS = 8
"""Each clip's picture is judged with its own sound, and with that of TURNS - 1 other moments of the clip."""


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
        self._full: list[tuple[list[Clip], list[np.ndarray]]] = []
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
            left = gate.most_of_each
            for turn in (part[:left] for part in turned(seen)):
                self._full.append((turn, [full_logits(engine, clip) for clip in turn]))
                if left is not None and (left := left - len(turn)) <= 0:
                    break
        if not self._runs:
            names = ", ".join(map(str, gate.sources)) or "no clip"
            raise DataError(f"no face in {names}", "clips with a face to measure rolling on", "leave --clips out")

    def figures(
        self, graphs: StreamingGraphs, mode: str, max_age_s: float = float("inf"), sound_age_s: float = 0.0
    ) -> dict[str, float | int]:
        """How far a mode agrees with the whole graph, as the manifest stores it; with `sound_age_s` over full windows,
        for others the sound is not kept.
        """
        agreement = Agreement()
        for clips, logits in self._full if sound_age_s else self._runs:
            compare(clips, Streamer(graphs, mode, max_age_s, sound_age_s), logits, agreement)
        return agreement.figures()

    def judge_exact(self, graphs: StreamingGraphs, precision: str) -> dict:
        """What the manifest says of mode exact in a precision that rounds: `parity`, and `refused` if it fails."""
        figures = self.figures(graphs, "exact")
        least = MIN_TOP1_AGREEMENT[precision]
        verdict: dict = {"parity": figures}
        return verdict if figures["top1_agreement"] >= least else {**verdict, "refused": _refusal(figures, least)}

    def judge_rolling(self, graphs: StreamingGraphs, precision: str) -> dict:
        """What the manifest says of mode rolling besides its parity: `curve`, `max_age_s` if it is bounded and `sound`,
        or `refused`.

        The longest age that agrees in enough windows is taken; where none does, rolling is refused with the figures of
        the best.
        """
        curve, least = [], least_agreement(precision)
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
        bounded = {} if bound is None else {"max_age_s": bound}
        return {"curve": curve, **bounded, "sound": self._judge_sound(graphs, precision, **bounded)}

    def _judge_sound(self, graphs: StreamingGraphs, precision: str, max_age_s: float = float("inf")) -> dict:
        """What the manifest says of the sound that mode rolling keeps: `curve`, and `max_age_s` or `refused`.

        The longest age that agrees in enough windows is taken.
        """
        curve, least = [], least_agreement(precision)
        if not self._full:
            return {"curve": curve, "refused": "no clip with sound was longer than a window"}
        for age_s in SOUND_AGES_S:
            curve.append({"max_age_s": age_s, **self.figures(graphs, "rolling", max_age_s, age_s)})
            if curve[-1]["top1_agreement"] >= least:
                return {"curve": curve, "max_age_s": age_s}
        return {"curve": curve, "refused": _refusal(max(curve, key=lambda point: point["top1_agreement"]), least)}


def turned(clips: Sequence[Clip]) -> Iterator[list[Clip]]:
    """The full windows of each face, with their own sound and with the sound turned against the picture.

    So there are many windows of few clips, each as a stream would have it: from one to the next both go on.
    """
    longest_s = max((clip.end_s - clip.start_s for clip in clips), default=0.0)
    full = [clip for clip in clips if clip.end_s - clip.start_s > longest_s - 1e-3 and clip.mel is not None]
    faces = [[clip for clip in full if clip.track_id == track] for track in dict.fromkeys(c.track_id for c in full)]
    for face, turn in itertools.product(faces, range(TURNS)):
        first = len(face) * turn // TURNS
        mels = [clip.mel for clip in face[first:] + face[:first]]
        again = [replace(clip, mel=mel) for clip, mel in zip(face, mels, strict=True)]
        # Not across the seam, where the sound ends and begins.
        yield from (part for part in (again[: len(face) - first], again[len(face) - first :]) if len(part) > 1)


def least_agreement(precision: str) -> float:
    """Share of windows in which rolling has to agree."""
    return min(REQUIRED_AGREEMENT, MIN_TOP1_AGREEMENT.get(precision, REQUIRED_AGREEMENT))


def _refusal(figures: dict, least: float) -> str:
    share = f"{figures['top1_agreement']:.1%} of {figures['windows']} windows"
    return f"at export it agreed with full recomputation in {share}, of {least:.0%} that are required"
