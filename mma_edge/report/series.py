"""Answers about one face over time, and for which time each of them stands: `mma_edge.session.spans` says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mma_edge.session.spans import spans_of
from mma_edge.types import UNCERTAIN

BASES = ("both", "face", "voice", "unknown")
"""What an answer rests on; unknown in records of old versions that do not say."""
BOTH = BASES.index("both")


@dataclass(frozen=True, eq=False)
class Series:
    """The answers about one face, or about the voice alone, in order of time. Times are in seconds of the page."""

    track_id: int | None  # None: the voice alone
    labels: tuple[str, ...]  # the classes, as the model orders them
    end_s: np.ndarray  # float64 (N,) end of the window, rising
    held_from_s: np.ndarray  # float64 (N,) from when and up to when each answer stands
    held_to_s: np.ndarray
    probabilities: np.ndarray  # float32 (N, C)
    chosen: np.ndarray  # int (N,) index of the label; C for "uncertain"
    basis: np.ndarray  # int (N,) index into BASES
    speaking: np.ndarray  # float (N,) NaN where unknown
    alone: np.ndarray  # bool (N,) this face alone of several had the sound, so was taken for the speaker
    seen_s: np.ndarray  # float64 (M,) when the boxes were seen, rising: also of answers that a part leaves out
    boxes: np.ndarray  # float (M, 4) in pixels of the source's frame

    @property
    def name(self) -> str:
        """For people."""
        return {None: "Voice alone", 0: "Centre of the picture"}.get(self.track_id, f"Face {self.track_id}")

    @property
    def states(self) -> tuple[str, ...]:
        """What `chosen` counts through."""
        return (*self.labels, UNCERTAIN)

    @cached_property
    def begins(self) -> np.ndarray:
        """(N,) whether there is a gap, or nothing, before an answer."""
        return np.concatenate([[True], self.held_from_s[1:] > self.held_to_s[:-1]])

    @cached_property
    def holds_s(self) -> np.ndarray:
        """(N,) for how long each answer stands."""
        return self.held_to_s - self.held_from_s

    @property
    def answered_s(self) -> float:
        """For how long there was an answer."""
        return float(self.holds_s.sum())

    def intervals(self, of: np.ndarray | None = None) -> np.ndarray:
        """(n, 2) for which times the answers stand; `of` chooses some, as a mask (N,)."""
        all_of_them = np.stack([self.held_from_s, self.held_to_s], axis=1)
        return all_of_them if of is None else all_of_them[of]

    def cut(self, from_s: float, to_s: float) -> Series | None:
        """The answers that stand for a time within this span, cut at both ends; None where there are none."""
        kept = (self.held_to_s > from_s) & (self.held_from_s < to_s)
        if not kept.any():
            return None
        parts = ("end_s", "held_from_s", "held_to_s", "probabilities", "chosen", "basis", "speaking", "alone")
        part = {name: getattr(self, name)[kept] for name in parts}
        for name in ("held_from_s", "held_to_s"):
            part[name] = np.clip(part[name], from_s, to_s)
        return replace(self, **part)


def series_of(
    track_id: int | None,
    labels: Sequence[str],
    records: Sequence[dict],
    windows: np.ndarray,
    hop_ms: int | None,
) -> Series:
    """The records of one face (at least one), whatever their version.

    Args:
        records: in order of their ends.
        windows: int64 (N, 2) start and end of each, in milliseconds of the page.
        hop_ms: see `mma_edge.session.spans.hop_of`.
    """
    labels = tuple(labels)
    states = (*labels, UNCERTAIN)
    held_s = spans_of(windows, hop_ms) / 1000
    end_s = windows[:, 1] / 1000
    probabilities = np.array([[record["probabilities"].get(label) or 0.0 for label in labels] for record in records])
    likeliest = probabilities.argmax(axis=1)
    chosen = [
        states.index(record["label"]) if record["label"] in states else int(likely)
        for record, likely in zip(records, likeliest, strict=True)
    ]
    basis = [_basis(record.get("modalities")) for record in records]
    speaking = [np.nan if record.get("speaking") is None else record["speaking"] for record in records]
    boxed = [number for number, record in enumerate(records) if record.get("box")]
    return Series(
        track_id=track_id,
        labels=labels,
        end_s=end_s,
        held_from_s=held_s[:, 0],
        held_to_s=held_s[:, 1],
        probabilities=probabilities.astype(np.float32),
        chosen=np.array(chosen),
        basis=np.array(basis),
        speaking=np.array(speaking, float),
        alone=np.zeros(len(records), bool),
        seen_s=end_s[boxed],
        boxes=np.array([records[number]["box"] for number in boxed], float).reshape(-1, 4),
    )


def with_speakers(many: Sequence[Series]) -> tuple[Series, ...]:
    """All series of one source, with `alone` found out: of windows that end at one time, one has face and sound."""
    ends = np.concatenate([np.zeros(0), *(series.end_s for series in many if series.track_id is not None)])
    both = np.concatenate([np.zeros(0), *(series.basis == BOTH for series in many if series.track_id is not None)])
    times, place = np.unique(ends, return_inverse=True)
    one = (np.bincount(place, minlength=len(times)) > 1) & (np.bincount(place, both, len(times)) == 1)
    return tuple(
        series
        if series.track_id is None
        else replace(series, alone=one[np.searchsorted(times, series.end_s)] & (series.basis == BOTH))
        for series in many
    )


def _basis(modalities: object) -> int:
    names = {("audio", "video"): "both", ("video",): "face", ("audio",): "voice"}
    given = tuple(sorted(map(str, modalities))) if isinstance(modalities, list) else ()
    return BASES.index(names.get(given, "unknown"))
