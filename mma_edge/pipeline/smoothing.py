"""Answers averaged over time, for a face that seems to change its mood with every hop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from mma_edge.errors import UsageError
from mma_edge.types import Emotion

LONGEST_S = 60.0
FORGOTTEN_AFTER = 5.0
"""A face without an answer for so many time constants begins anew: less than 1 % of the old average would be left."""


def check_smoothing(time_constant_s: object) -> None:
    """UsageError unless this is a number of seconds above 0 and up to LONGEST_S."""
    if not isinstance(time_constant_s, (int, float)) or not 0 < time_constant_s <= LONGEST_S:  # NaN fails too
        expected = f"seconds, above 0 and up to {LONGEST_S:g}"
        raise UsageError(f"--smooth {time_constant_s}", expected, "leave it out to have each answer as it is")


class Smoother:
    """Averages the probabilities of each face (and of the voice alone) exponentially, with one time constant.

    The weight of an answer is 1/e of that of one `time_constant_s` younger, whatever the hop is and whichever are
    missing. The price is delay: answers come later by the time constant on average, and after a sudden change it takes
    this long until 63 % of it are shown. The first answer of a face is shown as it is.
    """

    def __init__(self, time_constant_s: float) -> None:
        check_smoothing(time_constant_s)
        self.time_constant_s = time_constant_s
        self._last: dict[int | None, tuple[float, np.ndarray]] = {}

    def __call__(self, emotions: Iterable[Emotion]) -> Iterator[Emotion]:
        """The same answers in the same order, with averaged probabilities and `smoothed_s`."""
        for emotion in emotions:
            now_s, probabilities = emotion.end_s, emotion.probabilities
            kept_s = FORGOTTEN_AFTER * self.time_constant_s
            # Times run backwards where a source began anew.
            self._last = {track: last for track, last in self._last.items() if 0 <= now_s - last[0] <= kept_s}
            if emotion.track_id in self._last:
                last_s, average = self._last[emotion.track_id]
                weight = 1 - np.exp((last_s - now_s) / self.time_constant_s)
                probabilities = (average + weight * (probabilities - average)).astype(np.float32)
            self._last[emotion.track_id] = now_s, probabilities
            yield replace(emotion, probabilities=probabilities, smoothed_s=self.time_constant_s)
