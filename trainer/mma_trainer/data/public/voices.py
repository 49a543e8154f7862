"""Acted speech with an emotion each, from six corpora in six languages.

RAVDESS (Livingstone and Russo 2018) lies in `ravdess_speech/Actor_NN/MM-VV-EE-II-SS-RR-AA.flac`: EE is the emotion, AA
the actor. The others lie in `voices/<corpus>/<speaker>_<emotion>_<number>.opus`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mma_edge.errors import DataError, UsageError
from mma_trainer.data.public.faces import Faces
from mma_trainer.data.public.waves import SAMPLE_RATE_HZ, read_waves
from mma_trainer.labels import DFEW_LABELS

CALM = len(DFEW_LABELS)  # RAVDESS alone has it; not among the seven: in training it is an eighth class
RAVDESS = "ravdess"
RAVDESS_TO_DFEW = {1: 2, 2: CALM, 3: 0, 4: 1, 5: 3, 6: 6, 7: 5, 8: 4}  # emotion code -> class
RAVDESS_ACTORS = {"train": range(1, 17), "val": range(17, 21)}


@dataclass(frozen=True)
class Corpus:
    """What is known about a corpus without looking at its files."""

    title: str
    language: str
    classes: tuple[int, ...]  # those that its speakers acted, DFEW's numbers, ascending
    terms: str


ALL_CLASSES = tuple(range(len(DFEW_LABELS)))
SIX_CLASSES = (0, 1, 2, 3, 4, 6)  # without disgust
CORPORA = {
    RAVDESS: Corpus("RAVDESS", "English", ALL_CLASSES, "CC BY-NC-SA 4.0, Livingstone and Russo 2018"),
    "nemo": Corpus("nEMO", "Polish", SIX_CLASSES, "CC BY-NC-SA 4.0"),
    "emovo": Corpus("EMOVO", "Italian", ALL_CLASSES, "free for research, Costantini et al. 2014"),
    "ased": Corpus("ASED", "Amharic", (0, 1, 2, 3, 6), "research, Retta et al. 2022"),
    "javanese": Corpus("Javanese", "Javanese", SIX_CLASSES, "MIT, 2black0"),
    "emotiontts": Corpus("EmotionTTS", "Korean", (0, 1, 2, 3), "CC BY-NC-SA 4.0"),
}


def classes_of(corpus: str) -> tuple[int, ...]:
    """The classes that a corpus has, DFEW's numbers, ascending."""
    return CORPORA[corpus].classes


@dataclass(frozen=True, eq=False)
class Voices:
    """Sentences with an emotion each.

    Attributes:
        waves: float32 (n,) each, in [-1, 1].
        labels: int64 (N,).
        corpora: str (N,), keys of CORPORA.
        speakers: str (N,), "corpus/speaker": two corpora's speaker 01 are two people.
    """

    waves: list[np.ndarray]
    labels: np.ndarray
    corpora: np.ndarray
    speakers: np.ndarray
    sample_rate_hz: int = SAMPLE_RATE_HZ

    def part(self, rows: np.ndarray) -> Voices:
        """Some of them, by number or by a bool for each."""
        numbers = np.arange(len(self.labels))[rows]
        waves = [self.waves[number] for number in numbers]
        return Voices(waves, *(a[numbers] for a in (self.labels, self.corpora, self.speakers)), self.sample_rate_hz)


class _Spoken(NamedTuple):
    """One file, by its name alone."""

    path: Path
    label: int
    corpus: str
    speaker: str


def parse_speakers(text: str, names: Sequence[str], what: str) -> tuple[str, tuple[str, ...]]:
    """NAME, or NAME/SPEAKER,... for some people of it -> the name and the speakers.

    UsageError that begins with `what` for a name that is not of `names`, or a speaker without a name.
    """
    name, slash, listed = text.partition("/")
    speakers = tuple(listed.split(",")) if slash else ()
    if name not in names or not all(speakers):
        raise UsageError(what, f"one of {', '.join(names)}; or NAME/SPEAKER,... for some people of one")
    return name, speakers


def check_pairs(faces: Faces, voices: Voices) -> None:
    """DataError unless every class of the faces has a voice to be paired with.

    Pairing a face with a voice of the same label makes a set good enough to train fusion. Given the label the two are
    independent, so what fusion gains on it says nothing about real clips.
    """
    if lacking := sorted(set(faces.labels.tolist()) - set(voices.labels.tolist())):
        raise DataError(f"no voice of the classes {lacking}", "a voice for every class of the faces", "see --data")


def load_voices(
    folder: str | Path,
    split: str,
    corpora: Sequence[str] = tuple(CORPORA),
    calm: bool = False,
    without: Sequence[str] = (),
) -> Voices:
    """Voices to train on ("train") or to report on ("val").

    RAVDESS is split by actor (1-16 and 17-20); of every other corpus all are for training but the speakers `without`,
    who are named as in `Voices.speakers`. `calm` voices have the class CALM and are left out unless asked for.

    Raises:
        UsageError: a corpus that CORPORA does not have, or a speaker `without` whom no file is of.
        DataError: a folder of `voices/` that CORPORA does not have, a corpus without files, a name without a known
            emotion, a file that cannot be decoded. All names are checked before the first file is decoded.
    """
    files = []
    _check_folders(Path(folder) / "voices")
    for corpus in corpora:
        if corpus == RAVDESS:
            files += _ravdess(Path(folder) / "ravdess_speech", RAVDESS_ACTORS[split], calm)
        elif split == "train":
            own = [name for name in without if name.startswith(f"{corpus}/")]
            files += _without(_corpus(Path(folder) / "voices", corpus), own)
    if not files:
        raise DataError(f"none of {', '.join(corpora)} has voices for {split!r}", f"{RAVDESS} among them")
    return _read(files)


def _without(files: Sequence[_Spoken], speakers: Sequence[str]) -> list[_Spoken]:
    """All but those of some speakers, who must be there."""
    known = {file.speaker for file in files}
    if unknown := [name for name in speakers if name not in known]:
        raise UsageError(f"speaker {unknown[0]} left out", f"some of {', '.join(sorted(known))}")
    return [file for file in files if file.speaker not in speakers]


def load_corpus(folder: str | Path, corpus: str) -> Voices:
    """All voices of one corpus, without RAVDESS's calm ones; errors as `load_voices`."""
    if corpus == RAVDESS:
        actors = [actor for part in RAVDESS_ACTORS.values() for actor in part]
        return _read(_ravdess(Path(folder) / "ravdess_speech", actors, calm=False))
    return _read(_corpus(Path(folder) / "voices", corpus))


def _read(files: Sequence[_Spoken]) -> Voices:
    waves = read_waves([file.path for file in files])
    labels, corpora, speakers = (np.array([file[column] for file in files]) for column in (1, 2, 3))
    return Voices(waves, labels.astype(np.int64), corpora, speakers)


def _ravdess(root: Path, actors: Sequence[int], calm: bool) -> list[_Spoken]:
    files = []
    for path in (path for actor in actors for path in sorted((root / f"Actor_{actor:02d}").glob("*.flac"))):
        label, actor = ravdess_name(path)
        if label != CALM or calm:
            files.append(_Spoken(path, label, RAVDESS, f"{RAVDESS}/{actor}"))
    if not files:
        hint = "give --data their parent folder"
        raise DataError(f"no voices in {root}", "folders Actor_01 ... of .flac files", hint)
    return files


def ravdess_name(path: Path) -> tuple[int, str]:
    """Class (CALM among them) and actor of MM-VV-EE-II-SS-RR-AA; DataError where the name has no known emotion."""
    fields = path.stem.split("-")
    label = RAVDESS_TO_DFEW.get(int(fields[2])) if len(fields) == 7 and fields[2].isdecimal() else None
    if label is None or not fields[6].isdecimal():
        raise DataError(f"{path}: no RAVDESS emotion code", f"a name MM-VV-EE-II-SS-RR-AA{path.suffix}")
    return label, fields[6]


def _check_folders(root: Path) -> None:
    """Refuse a corpus that is not known: its classes would be guesses."""
    names = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if unknown := [name for name in names if name not in CORPORA or name == RAVDESS]:
        known = ", ".join(name for name in CORPORA if name != RAVDESS)
        raise DataError(f"{root / unknown[0]} is no known corpus", f"folders named {known}", "move it elsewhere")


def _corpus(root: Path, corpus: str) -> list[_Spoken]:
    if corpus not in CORPORA:
        raise UsageError(f"corpus {corpus!r}", f"one of {', '.join(CORPORA)}")
    words = {DFEW_LABELS[label]: label for label in classes_of(corpus)}
    files = []
    for path in sorted((root / corpus).glob("*.opus")):
        speaker, _, rest = path.stem.partition("_")
        label = words.get(rest.partition("_")[0])
        if label is None:
            expected = f"<speaker>_<emotion>_<number>.opus with one of {', '.join(words)}"
            raise DataError(f"{path}: no emotion of {corpus} in its name", expected, "rename it or move it elsewhere")
        files.append(_Spoken(path, label, corpus, f"{corpus}/{speaker}"))
    if not files:
        hint = "give --data the folder that voices/ lies in"
        raise DataError(f"no voices in {root / corpus}", "files <speaker>_<emotion>_<number>.opus", hint)
    return files
