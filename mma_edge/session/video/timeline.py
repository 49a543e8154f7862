"""Which faces and which answers a frame of a finished file has: from a run on it, or from its records alone."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mma_edge.session.spans import hop_of, spans_of, windows_ms
from mma_edge.types import Face, as_box

EDGE_S = 0.5
"""An answer is shown so long before and after the time that it stands for, where no other one is: from the first frames
on, and to the last."""
APART_S = 1.6
"""Between answers of one face that are farther apart, it is taken to have been away."""


@dataclass
class Timeline:
    """The records of one source, sorted by face, and the faces of each frame where they are known."""

    answers: Mapping[int | None, Sequence[Mapping[str, Any]]]  # by track, in order of their windows' ends
    faces: Sequence[tuple[float, Sequence[Face]]] | None = None  # PTS and faces of every frame; None: only the records
    _spans: dict[int | None, list[list[int]]] = field(default_factory=dict)  # see `mma_edge.session.spans`
    _times_s: list[float] = field(default_factory=list)

    @classmethod
    def of(
        cls, records: Iterable[Mapping[str, Any]], faces: Sequence[tuple[float, Sequence[Face]]] | None = None
    ) -> Timeline:
        by_track: dict[int | None, list[Mapping[str, Any]]] = defaultdict(list)
        for record in records:
            by_track[record["track_id"]].append(record)
        for answers in by_track.values():
            answers.sort(key=lambda each: each["end_s"])
        timeline = cls(dict(by_track), faces)
        windows = {
            track: windows_ms([(each["start_s"], each["end_s"]) for each in answers])
            for track, answers in by_track.items()
        }
        hop_ms = hop_of(windows.values())
        timeline._spans = {track: spans_of(each, hop_ms).tolist() for track, each in windows.items()}
        timeline._times_s = [time_s for time_s, _ in faces or ()]
        return timeline

    @property
    def count(self) -> int:
        """Of answers."""
        return sum(map(len, self.answers.values()))

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes of the answers."""
        return tuple(next((each["probabilities"] for answers in self.answers.values() for each in answers), ()))

    def answers_at(self, time_s: float) -> dict[int | None, Mapping[str, Any]]:
        """Of each face, and of the voice alone, the answer that stands for this time."""
        shown, time_ms = {}, round(1000 * time_s)
        for track, spans in self._spans.items():
            after = bisect_right(spans, time_ms, key=lambda span: span[0])
            # The one that holds, or the nearest: a gap or nothing may be between two.
            away = {
                number: max(spans[number][0] - time_ms, time_ms - spans[number][1])
                for number in (after - 1, after)
                if 0 <= number < len(spans)
            }
            number = min(away, key=away.get)
            if away[number] <= 1000 * EDGE_S:
                shown[track] = self.answers[track][number]
        return shown

    def faces_at(self, time_s: float) -> Sequence[Face]:
        """Where the faces are in the frame of this time."""
        if self.faces is not None:
            number = bisect_right(self._times_s, time_s + 1e-6) - 1
            return self.faces[number][1] if number >= 0 else ()
        found = [(track, self._between(track, time_s)) for track in self.answers if track]
        return [Face(track, as_box(box), 1.0) for track, box in found if box is not None]

    def faces_between(self, first_s: float, last_s: float) -> Iterable[tuple[float, Sequence[Face]]]:
        """The faces of all frames of a span; with records alone at every tenth of a second."""
        if self.faces is None:
            return [(time_s, self.faces_at(time_s)) for time_s in np.arange(first_s, last_s, 0.1)]
        return self.faces[bisect_left(self._times_s, first_s) : bisect_right(self._times_s, last_s)]

    def _between(self, track: int, time_s: float) -> np.ndarray | None:
        """The box of a face: each record has that of its window's end, on the way from one to the next."""
        answers = sorted((each for each in self.answers[track] if each["box"]), key=lambda each: each["end_s"])
        after = bisect_left(answers, time_s, key=lambda each: each["end_s"])
        before, after = (answers[number] if 0 <= number < len(answers) else None for number in (after - 1, after))
        if before and after and after["end_s"] - before["end_s"] <= APART_S:
            share = (time_s - before["end_s"]) / (after["end_s"] - before["end_s"])
            return (1 - share) * np.array(before["box"]) + share * np.array(after["box"])
        if after and after["end_s"] - time_s <= EDGE_S:
            return np.array(after["box"])
        return np.array(before["box"]) if before and time_s - before["end_s"] <= EDGE_S else None
