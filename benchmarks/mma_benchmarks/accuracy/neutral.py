"""What it gains to know a person: answers relative to neutral clips of each, or to what is usual for each, as with
`mma-edge run --neutral`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mma_edge.bundle.manifest import MODALITIES
from mma_edge.clip import evenly
from mma_edge.errors import DataError
from mma_edge.pipeline.neutral import NEUTRAL, NeutralReference, centred
from mma_edge.pipeline.usual import relative_in_turn
from mma_trainer.evaluation.predict import Answers


def relative(answers: Answers, people: np.ndarray, labels: Sequence[str], count: int) -> list[tuple[str, Answers]]:
    """The answers but those to `count` neutral clips of each person, as they are and relative to these.

    `people` (N,) says whose each clip is; of the neutral clips of a person some evenly over their order are taken. Each
    comes with what is to be said of it.

    Raises:
        DataError: somebody has fewer neutral clips.
    """
    neutral = answers.labels == list(labels).index(NEUTRAL)
    rest, moved = np.ones(len(people), bool), answers.probabilities.copy()
    for person in np.unique(people):
        own = people == person
        known = np.flatnonzero(own & neutral)
        if len(known) < count:
            what = f"--neutral {count}: {person} has {len(known)} neutral clips"
            raise DataError(what, f"at least {count} of each person", "ask for fewer, or leave the set out")
        known = known[evenly(len(known), count)]
        rest[known] = False
        reference = _reference(answers, known, tuple(labels))
        for number, kind in enumerate(MODALITIES):
            rows = own & (answers.available == number)
            moved[rows] = reference.probabilities(answers.probabilities[rows], kind)
    named = f"{count} neutral clip{'s' if count > 1 else ''} of each person"
    return [
        (f"without {named}", _part(answers, answers.probabilities, rest)),
        (f"relative to {named}", _part(answers, moved, rest)),
    ]


def relative_to_usual(answers: Answers, people: np.ndarray, labels: Sequence[str]) -> tuple[str, Answers]:
    """All answers, each relative to those to earlier clips of the same person, and what is to be said of them.

    The clips of a person come in an order by chance, always the same one, each as long as a window.
    """
    probabilities, neutral = answers.probabilities.copy(), list(labels).index(NEUTRAL)
    for number, kind in enumerate(MODALITIES):
        rows = answers.available == number
        probabilities[rows] = relative_in_turn(answers.probabilities[rows], people[rows], kind, neutral)
    everything = np.ones(len(people), bool)
    return "relative to what is usual for each", _part(answers, probabilities, everything)


def _reference(answers: Answers, rows: np.ndarray, labels: tuple[str, ...]) -> NeutralReference:
    kinds = {kind: rows[answers.available[rows] == number] for number, kind in enumerate(MODALITIES)}
    kinds = {kind: found for kind, found in kinds.items() if len(found)}
    neutral = {kind: centred(answers.probabilities[found]).mean(axis=0) for kind, found in kinds.items()}
    return NeutralReference("", labels, neutral, {kind: len(found) for kind, found in kinds.items()})


def _part(answers: Answers, probabilities: np.ndarray, rows: np.ndarray) -> Answers:
    fields = {"labels": answers.labels[rows], "available": answers.available[rows]}
    return dataclasses.replace(answers, probabilities=probabilities[rows], **fields)
