"""Answers about one face over time, and how long each of them holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mma_edge.types import UNCERTAIN

REACH_HOPS = 2.5
"""An answer holds for the time since the one before it if that is at most so many hops, else for one hop: one or two
answers that a busy machine left out are no gap."""
ENOUGH_STEPS = 5
"""Of a face's own answers, to know the usual time between two of them."""
BASES = ("both", "face", "voice", "unknown")
"""What an answer rests on; unknown in records of old versions that do not say."""


@dataclass(frozen=True, eq=False)
class Series:
    """The answers about one face, or about the voice alone, in order of time. Times are in seconds of the page."""

    track_id: int | None  # None: the voice alone
    labels: tuple[str, ...]  # the classes, as the model orders them
    start_s: np.ndarray  # float64 (N,) start of the window
    end_s: np.ndarray  # float64 (N,) end of the window, rising
    probabilities: np.ndarray  # float32 (N, C)
    chosen: np.ndarray  # int (N,) index of the label; C for "uncertain"
    basis: np.ndarray  # int (N,) index into BASES
    speaking: np.ndarray  # float (N,) NaN where unknown
    boxes: np.ndarray  # float (N, 4) in pixels of the source's frame; NaN where there is none
    hop_s: float  # usual time between two answers
    from_s: float = -np.inf  # nothing before it holds

    @property
    def name(self) -> str:
        """For people."""
        return {None: "Voice alone", 0: "Centre of the picture"}.get(self.track_id, f"Face {self.track_id}")

    @property
    def states(self) -> tuple[str, ...]:
        """What `chosen` counts through."""
        return (*self.labels, UNCERTAIN)

    @cached_property
    def held_from_s(self) -> np.ndarray:
        """(N,) since when each answer holds; it does so to its `end_s`."""
        hop = self.hop_s
        before = np.concatenate([[-np.inf], self.end_s[:-1]])
        held = np.where(self.end_s - before <= REACH_HOPS * hop, before, self.end_s - hop)
        return np.minimum(np.maximum(held, max(self.from_s, float(self.start_s[0]))), self.end_s)

    @cached_property
    def begins(self) -> np.ndarray:
        """(N,) whether there is a gap, or nothing, before an answer."""
        return np.concatenate([[True], self.held_from_s[1:] > self.end_s[:-1]])

    @cached_property
    def holds_s(self) -> np.ndarray:
        """(N,) for how long each answer holds."""
        return self.end_s - self.held_from_s

    @property
    def answered_s(self) -> float:
        """For how long there was an answer."""
        return float(self.holds_s.sum())

    def intervals(self, of: np.ndarray | None = None) -> np.ndarray:
        """(n, 2) where the answers hold; `of` chooses some, as a mask (N,)."""
        all_of_them = np.stack([self.held_from_s, self.end_s], axis=1)
        return all_of_them if of is None else all_of_them[of]

    def cut(self, from_s: float, to_s: float) -> Series | None:
        """The answers of this span; None where there are none."""
        kept = (self.end_s > from_s) & (self.end_s <= to_s)
        if not kept.any():
            return None
        parts = ("start_s", "end_s", "probabilities", "chosen", "basis", "speaking", "boxes")
        return replace(self, **{part: getattr(self, part)[kept] for part in parts}, from_s=max(from_s, self.from_s))


def steps_of(end_s: Sequence[float]) -> np.ndarray:
    """Times between answers."""
    steps = np.diff(np.sort(np.asarray(end_s, float)))
    return steps[steps > 0]


def series_of(
    track_id: int | None,
    labels: Sequence[str],
    records: Sequence[dict],
    times_s: Sequence[tuple[float, float]],
    usual_s: float | None,
) -> Series:
    """The records of one face (at least one), whatever their version.

    Args:
        times_s: start and end of each, in seconds of the page.
        usual_s: time between two answers for a face with too few to tell; None: its window.
    """
    labels = tuple(labels)
    states = (*labels, UNCERTAIN)
    times = np.array(times_s, float)
    order = np.argsort(times[:, 1], kind="stable")
    probabilities = np.array([[record["probabilities"].get(label) or 0.0 for label in labels] for record in records])
    likeliest = probabilities.argmax(axis=1)
    chosen = [
        states.index(record["label"]) if record["label"] in states else int(likely)
        for record, likely in zip(records, likeliest, strict=True)
    ]
    basis = [_basis(record.get("modalities")) for record in records]
    speaking = [np.nan if record.get("speaking") is None else record["speaking"] for record in records]
    boxes = [record.get("box") or [np.nan] * 4 for record in records]
    columns = (times[:, 0], times[:, 1], probabilities.astype(np.float32), np.array(chosen), np.array(basis))
    columns += (np.array(speaking, float), np.array(boxes, float))
    steps = steps_of(times[:, 1])
    hop_s = float(np.median(steps)) if len(steps) >= ENOUGH_STEPS else usual_s
    if hop_s is None:
        hop_s = max(float(times[0, 1] - times[0, 0]), 0.0)
    return Series(track_id, labels, *(column[order] for column in columns), hop_s)


def _basis(modalities: object) -> int:
    names = {("audio", "video"): "both", ("video",): "face", ("audio",): "voice"}
    given = tuple(sorted(map(str, modalities))) if isinstance(modalities, list) else ()
    return BASES.index(names.get(given, "unknown"))
