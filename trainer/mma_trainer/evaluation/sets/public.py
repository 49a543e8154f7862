"""The public sets by name: faces, voices, real clips, and pairs of faces and voices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from mma_edge.clip import NUM_FRAMES
from mma_edge.errors import DataError
from mma_trainer.data.public.clips import CLIP_CORPORA
from mma_trainer.data.public.faces import UNKNOWN, Faces, labelled_faces, load_faces, load_fer2013_val
from mma_trainer.data.public.voices import (
    CORPORA,
    RAVDESS,
    Voices,
    check_pairs,
    load_corpus,
    load_voices,
    parse_speakers,
)
from mma_trainer.evaluation.sets.clips import EvalSet, RawClip, raw_set
from mma_trainer.evaluation.sets.filmed import filmed_set
from mma_trainer.labels import DFEW_LABELS

PAIRING_SEED = 0


def faces_set(data: Path, image_size: int) -> EvalSet:
    """FER+'s validation faces by the first choice of the votes, each shown for 16 frames, without sound."""
    return stills_set("faces", "FER+ validation, first choice of the votes", load_faces(data, "val"), image_size)


def agreed_faces_set(data: Path, image_size: int) -> EvalSet:
    """Those of `faces_set` that more than half of the people call the same."""
    faces = load_faces(data, "val")
    chosen = labelled_faces(faces.images[faces.agreed], faces.labels[faces.agreed])
    return stills_set("faces-agreed", "FER+ validation, more than half of the votes agree", chosen, image_size)


def own_labels_set(data: Path, image_size: int) -> EvalSet:
    """The pictures of `faces_set` with FER2013's own labels."""
    faces = load_faces(data, "val")
    known = faces.own_labels != UNKNOWN
    chosen = labelled_faces(faces.images[known], faces.own_labels[known])
    return stills_set("faces-fer2013", "FER+ validation pictures with FER2013's own labels", chosen, image_size)


def fer2013_set(data: Path, image_size: int) -> EvalSet:
    """FER2013's contrast-equalised validation faces with its own labels."""
    return stills_set("fer2013", "FER2013 validation, contrast equalised", load_fer2013_val(data), image_size)


def stills_set(name: str, what: str, faces: Faces, image_size: int) -> EvalSet:
    description = f"{what}, {len(faces.labels)} stills shown for {NUM_FRAMES} frames, no sound"
    return raw_set(
        name, description, faces.labels, lambda i: RawClip(still(faces, i), None), image_size, modalities=("video",)
    )


def still(faces: Faces, index: int) -> tuple[np.ndarray, ...]:
    """One grey still as the 16 equal frames uint8 (h, w, 3) of a clip."""
    return (np.repeat(faces.images[index][..., None], 3, axis=2),) * NUM_FRAMES


def voices_set(data: Path) -> EvalSet:
    """RAVDESS speech of the validation actors, without faces."""
    return speech_set("voices", "RAVDESS speech, actors 17-20", load_voices(data, "val", (RAVDESS,)))


def corpus_set(corpus: str, data: Path) -> EvalSet:
    """A whole corpus of speech: honest figures of a model that was not trained on it."""
    facts = CORPORA[corpus]
    what = f"{facts.title} speech ({facts.language}), the whole corpus"
    return speech_set(corpus, what, load_corpus(data, corpus))


def speech_set(name: str, what: str, voices: Voices) -> EvalSet:
    rate_hz, more = voices.sample_rate_hz, {"modalities": ("audio",), "groups": voices.speakers}
    speakers = len(np.unique(voices.speakers))
    description = f"{what}, {len(voices.labels)} clips of {speakers} speakers at {rate_hz} Hz, no faces"
    return raw_set(name, description, voices.labels, lambda i: RawClip(None, voices.waves[i], rate_hz), **more)


def pseudo_set(data: Path, image_size: int) -> EvalSet:
    """Validation faces with validation voices of the same label: shows fusion at work, not audio-visual accuracy."""
    faces, voices = load_faces(data, "val"), load_voices(data, "val", (RAVDESS,))
    check_pairs(faces, voices)
    rng = np.random.default_rng(PAIRING_SEED)
    partner = np.array([rng.choice(np.flatnonzero(voices.labels == label)) for label in faces.labels])
    description = (
        f"pseudo audio-visual: {len(faces.labels)} FER+ faces paired with RAVDESS voices of the same label; "
        "given the label both are independent, so the gain from fusion is overstated"
    )

    def raw(index: int) -> RawClip:
        return RawClip(still(faces, index), voices.waves[partner[index]], voices.sample_rate_hz)

    return raw_set("pseudo", description, faces.labels, raw, image_size, groups=voices.speakers[partner])


OPENERS: dict[str, Callable[[Path, int], EvalSet]] = {
    "faces": faces_set,
    "faces-agreed": agreed_faces_set,
    "faces-fer2013": own_labels_set,
    "fer2013": fer2013_set,
    "voices": lambda data, image_size: voices_set(data),
    **{name: lambda data, image_size, name=name: corpus_set(name, data) for name in CORPORA},
    **{name: partial(filmed_set, name) for name in CLIP_CORPORA},
    "pseudo": pseudo_set,
}
SETS = tuple(OPENERS)
DEFAULT_SETS = ("faces", "faces-agreed", "voices", "javanese/04,05", "av-javanese/04,05", "pseudo")
"""Measured unless others are named: the default model was trained on nobody in them."""


def parse_set(text: str) -> tuple[str, tuple[str, ...]]:
    """One of SETS, and the speakers of it who are asked for, none for all; UsageError for what `open_set` lacks."""
    return parse_speakers(text, SETS, f"set {text!r}")


def open_set(name: str, data: Path, image_size: int) -> EvalSet:
    """One of SETS from the folder of the public data; "javanese/04,05": these speakers of it alone.

    UsageError for a set or speakers that are not there; DataError for files, see the set.
    """
    base, speakers = parse_set(name)
    clips = OPENERS[base](data, image_size)
    return clips.of_speakers(speakers) if speakers else clips


def check_labels(labels: Sequence[str]) -> None:
    """DataError unless a model's first classes are those of the public sets."""
    if tuple(labels[: len(DFEW_LABELS)]) != DFEW_LABELS:
        expected = f"those of the public sets first: {', '.join(DFEW_LABELS)}"
        hint = "measure a model with DFEW's classes"
        raise DataError(f"the model's classes are {', '.join(labels)}", expected, hint)
