"""The model in parts: the calls that a stream makes, whatever engine runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mma_edge.clip import NUM_FRAMES
from mma_edge.engines.base import Part


@dataclass(frozen=True, eq=False)
class Roll:
    """What mode rolling needs of one face's window.

    Attributes:
        tokens: float32 (M, T, W) of the new frames, M >= 1; not read where `heard` is there.
        past: float32 (16, D), summaries of older frames.
        order: int64 (16,), what each frame is, by time: m < M is the m-th new frame, M + k is row k of `past`.
        mel: float32 (512, 128).
        heard: float32 (D,), the sound's summary, which is taken instead of `mel` where there is one.
        frames: uint8 (M, S, S, 3), the new frames themselves, which are taken instead of `tokens` with it.
    """

    tokens: np.ndarray | None
    past: np.ndarray
    order: np.ndarray
    mel: np.ndarray
    heard: np.ndarray | None = None
    frames: np.ndarray | None = None

    @property
    def new(self) -> np.ndarray:
        """What goes in of the new frames."""
        return self.tokens if self.heard is None else self.frames


@dataclass(frozen=True, eq=False)
class Rolled:
    """What mode rolling answers for one face's window.

    Attributes:
        logits: float32 (C,).
        summaries: float32 (M, D), of the new frames.
        heard: float32 (D,), the sound's summary, the given one or a new one; None where the bundle keeps none.
        tokens: float32 (M, T, W), of the new frames.
    """

    logits: np.ndarray
    summaries: np.ndarray
    heard: np.ndarray | None
    tokens: np.ndarray


class StreamingGraphs:
    """The stem and the rest of one mode, and what runs instead of both where the sound's summary is given.

    Raises:
        MMAEdgeError: as `mma_edge.engines.base.run_failure` has it, where an inference fails.
    """

    def __init__(self, stem: Part, rest: Part, seeing: Part | None = None) -> None:
        self._stem, self._rest, self._seeing = stem, rest, seeing
        self.keeps_sound = seeing is not None
        self.summary_width: int = rest.shapes["past"][-1] if "past" in rest.shapes else 0
        # Bundles from before several faces went in together: the graph takes one clip, without its dimension.
        self._alone = "past" in rest.shapes and "owner" not in rest.shapes

    def stem(self, frames: np.ndarray) -> np.ndarray:
        """frames uint8 (M, S, S, 3) -> tokens float32 (M, T, W)."""
        most = NUM_FRAMES * (self._stem.max_clips or len(frames))
        found = [self._stem(frames=_padded(self._stem, some))["tokens"][: len(some)] for some in _parts(frames, most)]
        return np.concatenate(found)

    def window(self, tokens: np.ndarray, mel: np.ndarray) -> np.ndarray:
        """Mode exact: tokens (N, 16, T, W) and mel (N, 512, 128) -> logits (N, C)."""
        most = self._rest.max_clips or len(mel)
        pairs = zip(_parts(tokens, most), _parts(mel, most), strict=True)
        return np.concatenate([self._rest(tokens=clip, mel=sound)["logits"] for clip, sound in pairs])

    def roll(self, rolls: Sequence[Roll]) -> list[Rolled]:
        """Mode rolling. Faces whose sound is computed go in together, and so do those whose sound is given."""
        rolled = {}
        due, given = ([roll for roll in rolls if (roll.heard is not None) == is_given] for is_given in (False, True))
        for part, group in ((self._rest, due), (self._seeing, given)):
            most = 1 if self._alone or not group else part.max_clips or len(group)
            for some in _parts(group, most):
                found = part(**self._together(part, some))
                ends = np.cumsum([len(roll.new) for roll in some])
                summaries = np.split(found["summaries"][: ends[-1]], ends[:-1])
                if group is due:
                    heard = found["heard"] if self.keeps_sound else [None] * len(some)
                    tokens = [roll.tokens for roll in some]
                else:
                    heard = [roll.heard for roll in some]
                    tokens = np.split(found["tokens"][: ends[-1]], ends[:-1])
                answers = map(Rolled, found["logits"], summaries, heard, tokens)
                rolled.update(zip(map(id, some), answers, strict=True))
        return [rolled[id(roll)] for roll in rolls]

    def _together(self, part: Part, rolls: Sequence[Roll]) -> dict[str, np.ndarray]:
        """The inputs of one call."""
        counts = [len(roll.new) for roll in rolls]
        new = _padded(part, np.concatenate([roll.new for roll in rolls]))
        owner = np.zeros(len(new), np.int64)
        owner[: sum(counts)] = np.repeat(np.arange(len(rolls)), counts)
        order = [
            # Rows of older frames come after those of all new ones.
            np.where(roll.order < count, first + roll.order, len(new) + NUM_FRAMES * number + roll.order - count)
            for number, (roll, count, first) in enumerate(zip(rolls, counts, np.cumsum([0, *counts[:-1]]), strict=True))
        ]
        name, sound = ("tokens", "mel") if rolls[0].heard is None else ("frames", "heard")
        inputs = {name: new, sound: np.stack([getattr(roll, sound) for roll in rolls])}
        past, order = np.stack([roll.past for roll in rolls]), np.stack(order).astype(np.int64)
        if self._alone:
            return {**inputs, "past": past[0], "order": order[0]}
        return {**inputs, "owner": owner, "past": past, "order": order}


def _padded(part: Part, rows: np.ndarray) -> np.ndarray:
    """Rows of frames, and behind them zeros that no clip refers to, up to a number that the part takes."""
    if part.frame_counts is None:
        return rows
    missing = next(count for count in part.frame_counts if count >= len(rows)) - len(rows)
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)]) if missing else rows


def _parts(rows: Sequence, most: int) -> list:
    """A sequence in pieces of at most `most`."""
    return [rows[start : start + most] for start in range(0, len(rows), most)]
