"""Answers relative to what is usual for each person: `--neutral auto`, where nobody sits still for a reference.

What a model says of one person on the whole is mostly who it is (see `neutral.py`). So it is learnt while running, by
face and kind of clip, from the answers up to now, and part of it is taken out of the next one: the more, the more was
seen. Programs that measure facial actions do much the same with the median of a film (Baltrusaitis et al. 2015,
"Cross-dataset learning and person-specific normalisation"). The price: who shows one emotion all the time shows it less
in the answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mma_edge.errors import UsageError
from mma_edge.pipeline.neutral import AUTO, NEUTRAL, NeutralReference, Referred, centred, kind_of, moved
from mma_edge.types import Emotion, Notify

SHARES = {"both": 0.75, "video": 1.0, "audio": 0.75}
"""Of what a well known person's answers are in the mean, so much is taken out, by kind of clip."""
MARGIN = 0.25
"""Of a well known person added to the class neutral, logarithm of a probability: people are neutral more often than
anything else, so that part of their mean is the truth."""
HALF_KNOWN_S = 40.0
"""Seconds of somebody after which half of SHARES and MARGIN count."""
REMEMBERED_S = 600.0
"""A mean forgets what was before so many seconds of somebody."""
HANDED_ON_S = 20.0
"""Seconds of its source's mean with which a face begins: mostly it is the same person, found again, and camera, light
and room are in any case."""
CLIP_S = 4.0
"""Seconds that a separate clip counts as, whatever its length: a window's."""
MOST_FACES = 256
"""Faces remembered of a source; the one not seen for longest goes first."""


@dataclass
class Mean:
    """The mean of somebody's answers, as logarithms of probabilities less their mean over the classes.

    Attributes:
        value: float64 (C,).
        seconds: what it is of, at most REMEMBERED_S; windows that overlap count by what is new in them.
    """

    value: np.ndarray
    seconds: float = 0.0

    def add(self, answer: np.ndarray, seconds: float) -> None:
        """An answer (C,), `centred`, to so much that is new."""
        self.seconds = min(self.seconds + seconds, REMEMBERED_S)
        if self.seconds:
            self.value = self.value + min(1.0, seconds / self.seconds) * (answer - self.value)

    def relative(self, probabilities: np.ndarray, kind: str, neutral: int) -> np.ndarray:
        """Probabilities float32 (C,) of the next answer, to that kind of clip, relative to the mean; `neutral` is that
        class."""
        known = self.seconds / (self.seconds + HALF_KNOWN_S)
        shift = -SHARES[kind] * known * self.value
        shift[neutral] += MARGIN * known
        return moved(probabilities, shift)


@dataclass
class _Known:
    mean: Mean
    until_s: float = -np.inf  # end of the newest clip


class Usual:
    """Answers of one source in their order, each relative to those of the same face, or of the voice, before it."""

    def __init__(self, labels: Sequence[str]) -> None:
        """UsageError where the model has no class neutral."""
        if NEUTRAL not in labels:
            what = f"--neutral {AUTO} with a model of the classes {', '.join(labels)}"
            raise UsageError(what, f"a class {NEUTRAL}", "without one nothing says what most people are like")
        self._neutral = list(labels).index(NEUTRAL)
        self._faces: dict[tuple[str, int | None], _Known] = {}
        self._source: dict[str, Mean] = {}

    def __call__(self, emotions: Iterable[Emotion]) -> Iterator[Emotion]:
        """The same answers with other probabilities."""
        for emotion in emotions:
            kind = kind_of(emotion)
            known = self._known(kind, emotion.track_id, len(emotion.labels))
            probabilities = known.mean.relative(emotion.probabilities, kind, self._neutral)
            # Times run backwards where a source began anew.
            new_s = min(max(0.0, emotion.end_s - known.until_s), emotion.end_s - emotion.start_s)
            known.until_s = emotion.end_s
            (answer,) = centred(emotion.probabilities[None])
            for mean in (known.mean, self._source[kind]):
                mean.add(answer, new_s)
            yield replace(emotion, probabilities=probabilities)

    def _known(self, kind: str, track: int | None, classes: int) -> _Known:
        """What is known of a face; it becomes the newest one."""
        source = self._source.setdefault(kind, Mean(np.zeros(classes)))
        known = self._faces.pop((kind, track), None)
        known = known or _Known(Mean(source.value, min(source.seconds, HANDED_ON_S)))
        self._faces[kind, track] = known
        if len(self._faces) > MOST_FACES:
            del self._faces[next(iter(self._faces))]
        return known


def relative_answers(neutral: NeutralReference | str, labels: Sequence[str], notify: Notify) -> Referred | Usual:
    """What makes the answers of one source relative to a reference, or with AUTO to what is usual; UsageError as
    `Usual`."""
    return Usual(labels) if neutral == AUTO else Referred(neutral, notify)


def relative_in_turn(probabilities: np.ndarray, people: np.ndarray, kind: str, neutral: int) -> np.ndarray:
    """Probabilities float32 (N, C) of separate clips of one kind, each relative to those of the same person before it.

    `people` (N,) says whose each clip is, `neutral` is that class; the clips come in an order by chance, always the
    same one, and count as CLIP_S seconds each.
    """
    means: dict[object, Mean] = {}
    changed, answers = np.empty_like(probabilities), centred(probabilities)
    for row in np.random.default_rng(0).permutation(len(people)):
        mean = means.setdefault(people[row], Mean(np.zeros(probabilities.shape[1])))
        changed[row] = mean.relative(probabilities[row], kind, neutral)
        mean.add(answers[row], CLIP_S)
    return changed
