"""Answers over the Lab Streaming Layer: a stream of numbers for each source, and one of markers.

No queue and no thread of our own: a push into liblsl takes microseconds whoever listens, and what a consumer does not
take in time is dropped there, the oldest first.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Sequence
from typing import Any

import pylsl

from mma_edge import __version__
from mma_edge.errors import OutputError, first_line
from mma_edge.sinks import Follower
from mma_edge.types import AudioChunk, Emotion, Face, Frame

TYPE = "Emotion"
EXTRA = (("track_id", "number"), ("video", "boolean"), ("audio", "boolean"), ("voice", "share"))
"""Channels after those of the classes, with their units."""
NO_TRACK = -1.0
"""`track_id` of an answer from the voice alone. What else is unknown is NaN."""
KEPT = 10
"""Samples that wait for one consumer, in hundreds: liblsl's measure for streams without a rate."""
SPAN_S, STEP_S = 5.0, 1.0


class SourceClock:
    """When something of a source happened, on `time.monotonic()`: from the least delay of its newest data, as a network
    only ever makes them later.
    """

    def __init__(self) -> None:
        self._begun_s = self._newest_s = float("-inf")
        self._least = self._before = float("inf")  # arrival - presentation, of this span and of the one before

    def add(self, time_s: float, arrival_s: float) -> None:
        """A frame or sound of this presentation time arrived then."""
        if time_s < self._newest_s - STEP_S:  # it was opened again and counts anew
            self._begun_s = self._newest_s = float("-inf")
            self._least = self._before = float("inf")
        if arrival_s - self._begun_s > SPAN_S:
            self._begun_s, self._before, self._least = arrival_s, self._least, float("inf")
        self._newest_s = max(self._newest_s, time_s)
        self._least = min(self._least, arrival_s - time_s)

    def at(self, time_s: float) -> float:
        """NaN before anything arrived."""
        offset_s = min(self._least, self._before)
        return time_s + offset_s if math.isfinite(offset_s) else math.nan


class LslStreams(Follower):
    """Makes the streams when the run begins; they end with it."""

    name = "--lsl"

    def __init__(self, name: str) -> None:
        """`name` of the stream; with several sources each stream has also its source's."""
        self._name = name
        self._outlets: dict[str, pylsl.StreamOutlet] = {}
        self._clocks: dict[str, SourceClock] = {}
        self._markers: pylsl.StreamOutlet | None = None

    def begin(self, running: Any) -> None:
        options = running.options
        try:
            for source in running.names:
                name = self._name if len(running.names) == 1 else f"{self._name} {source}"
                info = self._info(name, TYPE, len(running.labels) + len(EXTRA), pylsl.cf_float32, source)
                _describe(info, source, running.labels, {"window_s": options.window_s, "hop_s": options.hop_s})
                self._outlets[source] = pylsl.StreamOutlet(info, max_buffered=KEPT)
                self._clocks[source] = SourceClock()
            markers = self._info(f"{self._name} markers", "Markers", 1, pylsl.cf_string, "")
            self._markers = pylsl.StreamOutlet(markers, max_buffered=KEPT)
        except (RuntimeError, ValueError) as error:  # what pylsl makes of liblsl's errors
            raise OutputError(f"no stream can be made: {first_line(error)}", hint="look at lsl_api.cfg") from error
        options.notify(f"--lsl: {len(self._outlets) + 1} streams, {', '.join(map(repr, self._names()))}")

    def _names(self) -> list[str]:
        return [outlet.get_info().name() for outlet in (*self._outlets.values(), self._markers)]

    def _info(self, name: str, kind: str, channels: int, form: int, source: str) -> pylsl.StreamInfo:
        # The same at the next start, so that a consumer finds the stream again by itself.
        origin = f"mma-edge {socket.gethostname()} {self._name} {kind} {source}"
        return pylsl.StreamInfo(name, kind, channels, pylsl.IRREGULAR_RATE, form, origin)

    def frame(self, source: str, frame: Frame, faces: Sequence[Face]) -> None:
        if source in self._clocks:
            self._clocks[source].add(frame.time_s, frame.arrival_s)

    def sound(self, source: str, chunk: AudioChunk) -> None:
        if source in self._clocks:
            self._clocks[source].add(chunk.end_s, chunk.arrival_s)

    def write(self, emotion: Emotion) -> None:
        source = emotion.source or ""
        outlet = self._outlets.get(source)
        if outlet is None:
            return
        stamp_s = self._clocks[source].at(emotion.end_s)
        if math.isnan(stamp_s):
            stamp_s = time.monotonic() - emotion.age_ms / 1000
        # liblsl's clock is the same one on Linux, and another elsewhere.
        stamp_s += pylsl.local_clock() - time.monotonic()
        outlet.push_sample(sample_of(emotion), stamp_s)

    def notice(self, line: str) -> None:
        self.mark(line)

    def mark(self, text: str) -> None:
        """Send a marker with the time of this moment; from any thread."""
        markers = self._markers
        if markers is not None:
            markers.push_sample([text])

    def __exit__(self, *exc_info: object) -> None:
        self._outlets.clear()
        self._markers = None


def sample_of(emotion: Emotion) -> list[float]:
    """The probabilities, then EXTRA."""
    track = NO_TRACK if emotion.track_id is None else float(emotion.track_id)
    given = [float(each in emotion.modalities) for each in ("video", "audio")]
    voice = math.nan if emotion.voice is None else emotion.voice
    return [*map(float, emotion.probabilities), track, *given, voice]


def _describe(info: pylsl.StreamInfo, source: str, labels: Sequence[str], window: dict[str, float]) -> None:
    """What XDF files keep with the numbers: the meaning of each channel and of the time stamps."""
    about = info.desc()
    channels = about.append_child("channels")
    for label, kind, unit in [
        *((label, "Probability", "probability") for label in labels),
        *((name, "Context", unit) for name, unit in EXTRA),
    ]:
        channel = channels.append_child("channel")
        channel.append_child_value("label", label)
        channel.append_child_value("type", kind)
        channel.append_child_value("unit", unit)
    about.append_child_value("manufacturer", "mma-edge")
    about.append_child_value("version", __version__)
    about.append_child_value("source", source)
    about.append_child_value("time_stamp", "end of the window that the answer is about")
    for name, value in window.items():
        about.append_child_value(name, f"{value:g}")
