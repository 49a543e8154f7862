"""Labelled clips that show a real face while its own voice is heard: what audio-visual accuracy is measured on.

`av/javanese/AA-SS-EE_RR.mp4`: actor AA says sentence SS with emotion EE. `av/ravdess_actor01/MM-VV-EE-II-SS-RR-AA.mp4`:
RAVDESS, one man. Javanese clips are never trained on, but their sound is among `voices/javanese` (repetition 01 of the
same speakers): a model that was trained on a speaker there has heard his clips.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mma_edge.errors import DataError
from mma_trainer.data.public.voices import CALM, SIX_CLASSES, ravdess_name
from mma_trainer.labels import DFEW_LABELS

JAVANESE_TO_DFEW = {1: 2, 2: 1, 3: 0, 4: 4, 5: 6, 6: 3}  # emotion code -> class
JAVANESE_NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)_(\d\d)")


@dataclass(frozen=True)
class LabelledClip:
    """A video file and who acts what in it."""

    path: Path
    label: int
    actor: str  # "corpus/actor", as `voices.Voices.speakers`


@dataclass(frozen=True)
class ClipCorpus:
    """What is known about a corpus of clips without looking at its files."""

    folder: str  # below av/
    title: str
    classes: tuple[int, ...]


CLIP_CORPORA = {
    "av-javanese": ClipCorpus("javanese", "Javanese clips, five actors", SIX_CLASSES),
    "av-ravdess": ClipCorpus("ravdess_actor01", "RAVDESS clips, actor 01", tuple(range(len(DFEW_LABELS)))),
}


def load_clips(folder: str | Path, name: str) -> list[LabelledClip]:
    """The clips of a corpus of CLIP_CORPORA, by name of the file; RAVDESS's calm ones are left out.

    Raises:
        DataError: no clips, a name without a known emotion.
    """
    root = Path(folder) / "av" / CLIP_CORPORA[name].folder
    found = []
    for path in sorted(root.glob("*.mp4")):
        label, actor = _javanese_name(path) if name == "av-javanese" else ravdess_name(path)
        if label != CALM:
            found.append(LabelledClip(path, label, f"{name.removeprefix('av-')}/{actor}"))
    if not found:
        raise DataError(f"no clips in {root}", ".mp4 files", "give --data the folder that av/ lies in")
    return found


def _javanese_name(path: Path) -> tuple[int, str]:
    matched = JAVANESE_NAME.fullmatch(path.stem)
    label = JAVANESE_TO_DFEW.get(int(matched[3])) if matched else None
    if label is None:
        raise DataError(f"{path}: no known emotion code", "a name AA-SS-EE_RR.mp4, EE from 01 to 06")
    return label, matched[1]
