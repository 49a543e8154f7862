"""What a broker should keep: the newest answer at each place of each source. Few places that last, where numbers of
tracks are many and short.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mma_edge.outputs.homeassistant import plain
from mma_edge.types import Emotion

VOICE = "voice"
"""The place of answers from the voice alone."""
PLACES = 4
STALE_S = 2.0
"""A face without an answer for so long, in presentation time, gives up its place."""


def place_name(number: int) -> str:
    return f"face_{number}"


EVERY_S = 5.0
"""Least time between two states of a place with the same label: Home Assistant keeps every change for days."""
HEARTBEAT_S = 30.0
"""A state that does not change is repeated, as long as the source delivers."""
NOBODY = json.dumps({"label": None, "confidence": None})
"""The state of an empty place."""


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


@dataclass
class State:
    """What should be kept under one topic, and what is."""

    source: str
    place: str
    text: str = NOBODY
    label: str | None = None
    answered_s: float = float("-inf")
    sent: tuple[str, str | None] | None = None  # text and label; None: not since the connection was made
    sent_s: float = 0.0

    def is_due(self, now_s: float, seen_s: float) -> bool:
        """Whether to send it now, where the source delivered last at `seen_s`."""
        if self.sent is None or self.sent[1] != self.label:
            return True
        if self.sent[0] != self.text:
            return now_s - self.sent_s >= EVERY_S
        return now_s - seen_s < HEARTBEAT_S <= now_s - self.sent_s


class States:
    """Those of a run, by topic. One thread answers, another one sends."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._lock = threading.Lock()
        self._states: dict[str, State] = {}
        self._places: dict[str, Places] = {}
        self._ids: dict[str, str] = {}
        self.seen_s: dict[str, float] = {}  # source -> when it delivered last
        self.stale_s = STALE_S

    def begin(self, sources: tuple[str, ...], hop_s: float) -> None:
        """Every source has a first place and a voice."""
        self.stale_s = max(STALE_S, 3 * hop_s)
        for source in sources:
            for place in (place_name(1), VOICE):
                self._state(source, place)

    def topic(self, source: str, last: str) -> str:
        return f"{self._prefix}/{self.id_of(source)}/{last}"

    def id_of(self, source: str) -> str:
        """What stands for a source in topics and entities; no two have the same."""
        with self._lock:
            if source not in self._ids:
                name = base = plain(source) or "source"
                while name in self._ids.values():
                    name = f"{base}_{len(self._ids) + 1}"
                self._ids[source] = name
            return self._ids[source]

    def _state(self, source: str, place: str) -> State:
        topic = self.topic(source, place)
        with self._lock:
            return self._states.setdefault(topic, State(source, place))

    def answer(self, emotion: Emotion, record: dict[str, Any]) -> None:
        """The newest of its place, unless all places are taken."""
        source = emotion.source or ""
        place = self._places.setdefault(source, Places(stale_s=self.stale_s)).of(emotion)
        if place:
            text = json.dumps({**record, "place": place, "confidence": round(emotion.confidence, 4)})
            state = self._state(source, place)
            with self._lock:
                state.text, state.label, state.answered_s = text, emotion.label, time.monotonic()

    def forget_sent(self) -> None:
        """A new connection: nobody knows what is kept at its other end."""
        with self._lock:
            for state in self._states.values():
                state.sent = None

    def __iter__(self) -> Iterator[tuple[str, State]]:
        with self._lock:
            return iter(list(self._states.items()))

    def due(self, state: State) -> tuple[str, str | None] | None:
        """Text and label to send now, None for nothing; who has left is nobody."""
        now_s = time.monotonic()
        with self._lock:
            if state.label is not None and now_s - state.answered_s > self.stale_s:
                state.text, state.label = NOBODY, None
            seen_s = self.seen_s.get(state.source, float("-inf"))
            return (state.text, state.label) if state.is_due(now_s, seen_s) else None
