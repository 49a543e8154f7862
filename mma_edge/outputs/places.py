"""Places for the faces of a source: few and lasting, where numbers of tracks are many and short."""

from __future__ import annotations

from mma_edge.types import Emotion

VOICE = "voice"
"""The place of answers from the voice alone."""
PLACES = 4
STALE_S = 2.0
"""A face without an answer for so long, in presentation time, gives up its place."""


def place_name(number: int) -> str:
    return f"face_{number}"


class Places:
    """A face keeps its place as long as it is answered for; then the next new face has it. So what listens to "the face
    at place 1" goes on with whoever comes next, and there are never more than so many.
    """

    def __init__(self, places: int = PLACES, stale_s: float = STALE_S) -> None:
        self._places, self._stale_s = places, stale_s
        self._held: dict[int, tuple[int, float]] = {}  # place, from 1 -> (track, end of its newest window)

    def of(self, emotion: Emotion) -> str | None:
        """The name of the answer's place; None where all are taken."""
        if emotion.track_id is None:
            return VOICE
        # A source that was opened again may begin at any time.
        stale = {p for p, (_, end_s) in self._held.items() if abs(emotion.end_s - end_s) > self._stale_s}
        own = next((p for p, (track, _) in self._held.items() if track == emotion.track_id), None)
        free = (p for p in range(1, self._places + 1) if p not in self._held or p in stale)
        place = own or next(free, None)
        for each in stale - {place}:
            del self._held[each]
        if place is None:
            return None
        self._held[place] = (emotion.track_id, emotion.end_s)
        return place_name(place)
