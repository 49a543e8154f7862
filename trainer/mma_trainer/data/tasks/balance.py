"""Which clip comes how often, and what its target is."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from mma_trainer.data.batch import Batch
from mma_trainer.data.public.voices import CALM, Voices, classes_of

ABSENT = -1.0
"""In a row of targets: a class that the clip's corpus does not have. The loss does not compare it with the others."""


class Answering(Protocol):
    """Teaches what it thinks of a clip."""

    share: float
    """Of the targets of a batch, how much it decides; the labels decide the rest."""

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The inputs of a batch -> log-probabilities (B, C)."""
        ...


def vote_weights(targets: np.ndarray, balance: float) -> Tensor:
    """How likely each picture is drawn: float64 (N,). A class with n votes comes in proportion to n ** balance.

    1: as they are; 0: all classes alike. `targets` float32 (N, C), each row with sum 1.
    """
    votes = targets.sum(axis=0, dtype=np.float64)
    per_vote = np.divide(votes**balance, votes, out=np.zeros_like(votes), where=votes > 0)
    return torch.from_numpy(targets @ per_vote)


def voice_weights(voices: Voices, balance: float) -> Tensor:
    """How likely each voice is drawn: float64 (N,). Were it not balanced, the corpus would tell the label.

    A corpus of n voices comes in proportion to n ** balance; in it all pairs of speaker and class alike.
    """
    weights = np.zeros(len(voices.labels))
    for corpus in np.unique(voices.corpora):
        rows = np.flatnonzero(voices.corpora == corpus)
        names = [f"{voices.speakers[row]} {voices.labels[row]}" for row in rows]
        _, cell, counts = np.unique(names, return_inverse=True, return_counts=True)
        weights[rows] = len(rows) ** balance / len(counts) / counts[cell]
    return torch.from_numpy(weights)


def voice_targets(voices: Voices) -> Tensor:
    """Targets (N, 8), the eighth class is CALM: 1 for the class, ABSENT for those that the corpus does not have."""
    targets = np.full((len(voices.labels), CALM + 1), ABSENT, np.float32)
    for row, (corpus, label) in enumerate(zip(voices.corpora, voices.labels, strict=True)):
        targets[row, list(classes_of(corpus))] = 0.0
        if corpus == "ravdess":
            targets[row, CALM] = 0.0
        targets[row, label] = 1.0
    return torch.from_numpy(targets)


def class_coverage(voices: Voices, balance: float) -> Tensor:
    """Of the voices that are drawn, the share whose corpus has a class: float32 (8,), in (0, 1].

    The loss compares a class only where its corpus has it, so an encoder thinks it is as frequent everywhere as there.
    """
    weights = voice_weights(voices, balance)
    covered = (voice_targets(voices) >= 0).double()
    return ((weights @ covered) / weights.sum()).float()


def mixed(targets: Tensor, others: Tensor, part: float) -> Tensor:
    """`part` of some targets and the rest of others (B, C); a class is ABSENT where neither has it."""
    absent = (targets < 0) & (others < 0)
    return torch.where(absent, ABSENT, part * targets.clamp(min=0) + (1 - part) * others.clamp(min=0))


def taught(batch: Batch, teacher: Answering | None) -> Batch:
    """The teacher's share of the targets of a batch becomes what it says of the classes that are not ABSENT.

    Labels do not tell which classes look or sound alike in this clip (Hinton et al. 2015).
    """
    if teacher is None:
        return batch
    known, wanted = batch.labels >= 0, batch.labels.clamp(min=0)
    said = teacher(*batch.inputs).masked_fill(~known, -torch.inf).softmax(dim=1) * wanted.sum(dim=1, keepdim=True)
    return batch._replace(labels=torch.where(known, torch.lerp(wanted, said, teacher.share), ABSENT))


def match_labels(wanted: np.ndarray, available: np.ndarray, chances: Tensor, rng: Generator) -> np.ndarray:
    """For each wanted label the index of a random clip that has it, drawn by `chances` float64 (N,)."""
    chosen = np.empty(len(wanted), np.int64)
    for label in np.unique(wanted):
        rows, places = np.flatnonzero(available == label), np.flatnonzero(wanted == label)
        drawn = torch.multinomial(chances[rows], len(places), replacement=True, generator=rng)
        chosen[places] = rows[drawn.numpy()]
    return chosen
