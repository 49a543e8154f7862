"""What the model says of a person whom nothing moves, and answers relative to it.

Who it is matters more to the model than what is felt: a face may look angry to it at rest, a voice afraid in every
sentence. A reference holds what it said while the person was neutral; with it half of that (of a face alone three
quarters) is taken out of each later answer. The idea is that of speech normalised by a speaker's neutral speech (Busso
et al. 2011), and of the participant calibration of programs for laboratories.

The file is JSON: format, version, model (of which bundle and calibration, see `identity`), bundle, labels, source,
created, seconds, and per kind of clip (both, video, audio) its `clips` and its `neutral`: the mean logarithm of each
class's probability minus the mean over the classes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mma_edge.bundle import Bundle
from mma_edge.bundle.manifest import MODALITIES
from mma_edge.errors import SourceError, UsageError
from mma_edge.files import check_new_file, write_text
from mma_edge.predictor import Predictor
from mma_edge.types import Clip, Emotion, Notify

FORMAT, VERSION = "mma-edge-neutral", 1
NEUTRAL = "neutral"
"""Name of the class that the reference stands for."""
AUTO = "auto"
"""Instead of a reference: learn what is usual for each person while running, see `usual.py`."""
FEWEST_CLIPS = 3
LEAST_PROBABILITY = 1e-6
SHARES = {"both": 0.5, "video": 0.75, "audio": 0.5}
"""Of what the model says of a neutral person, how much is taken out, by kind of clip. All of it would make of whatever
differs from the few neutral clips by chance an emotion; chosen, as MARGINS, on Javanese and RAVDESS speakers and clips,
that of a face with four models."""
MARGINS = {"both": 0.25, "video": 0.0, "audio": 0.75}
"""Added to the class neutral, whose own share has been taken out too: logarithm of a probability, by kind of clip."""


@dataclass(frozen=True, eq=False)
class NeutralReference:
    """What a model says of one person who is neutral.

    Attributes:
        model: `identity` of the bundle that said it.
        labels: its classes.
        neutral: kind of clip (of MODALITIES) -> float64 (C,), logarithms of probabilities, mean 0.
        clips: kind -> number of clips.
        about: bundle, source, created, seconds: for people.
    """

    model: str
    labels: tuple[str, ...]
    neutral: Mapping[str, np.ndarray]
    clips: Mapping[str, int]
    about: Mapping[str, str | float] = field(default_factory=dict)

    def probabilities(self, probabilities: np.ndarray, kind: str) -> np.ndarray:
        """Probabilities float32 (C,) or (N, C) of clips of one kind, relative to the reference; rows sum to 1.

        Those of a kind that the reference does not have are returned as they are.
        """
        if kind not in self.neutral:
            return probabilities
        shift = -SHARES[kind] * self.neutral[kind]
        shift[self.labels.index(NEUTRAL)] += MARGINS[kind]
        return moved(probabilities, shift)

    def check(self, bundle: Bundle) -> None:
        """UsageError where another model said it."""
        if self.model != identity(bundle):
            what = f"the neutral reference is of another model ({self.about.get('bundle', 'unknown')})"
            raise UsageError(what, f"one of {bundle.name}", "make it again with mma-edge neutral and this --bundle")

    def to_dict(self) -> dict:
        """What a file holds, as plain values."""
        plain = {"format": FORMAT, "version": VERSION, "model": self.model, "labels": list(self.labels), **self.about}
        neutral = {kind: [round(float(value), 4) for value in row] for kind, row in self.neutral.items()}
        return {**plain, "clips": dict(self.clips), "neutral": neutral}

    def write(self, path: str | os.PathLike, overwrite: bool = False) -> None:
        """OutputError where the file exists and is not to be replaced, or cannot be written."""
        path = Path(path)
        check_new_file(path, overwrite)
        write_text(path, json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def from_dict(cls, content: dict) -> NeutralReference:
        """What `to_dict` gave; ValueError, KeyError, TypeError or AttributeError for anything else."""
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError("it is none")
        if content["version"] != VERSION:
            raise ValueError(f"it is of version {content['version']!r}, not {VERSION}")
        labels = tuple(map(str, content["labels"]))
        neutral = {kind: np.array(row, np.float64) for kind, row in content["neutral"].items()}
        if NEUTRAL not in labels or not neutral or not set(neutral) <= set(MODALITIES):
            raise ValueError("its classes or its kinds of clips are odd")
        if any(row.shape != (len(labels),) or not np.isfinite(row).all() for row in neutral.values()):
            raise ValueError("its values do not fit its classes")
        clips = {kind: int(count) for kind, count in content["clips"].items()}
        about = {key: content[key] for key in ("bundle", "source", "created", "seconds") if key in content}
        return cls(str(content["model"]), labels, neutral, clips, about)

    @classmethod
    def read(cls, path: str | os.PathLike) -> NeutralReference:
        """What `write` wrote; UsageError for anything else."""
        expected = f"a file of mma-edge neutral, or {AUTO}"
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise UsageError(f"--neutral {path} cannot be read: {error.strerror or error}", expected) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError(f"--neutral {path} cannot be used ({error})", expected, "make it again") from error


def identity(bundle: Bundle) -> str:
    """What two bundles share that give the same answers save for rounding: weights and temperatures, in any precision.

    The weights are told by the expected output of the self-test.
    """
    known = [list(bundle.labels), bundle.manifest["golden"]["logits"], bundle.temperatures]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def neutral_from(given: NeutralReference | str | os.PathLike | None) -> NeutralReference | str | None:
    """What `--neutral` names: a reference, AUTO or None as they are, else that of a file; UsageError if it is none."""
    return given if given in (None, AUTO) or isinstance(given, NeutralReference) else NeutralReference.read(given)


def check_neutral(neutral: NeutralReference | str | None, bundle: Bundle) -> None:
    """UsageError where it is a reference that another model said; AUTO and None go with any."""
    if isinstance(neutral, NeutralReference):
        neutral.check(bundle)


def plain_neutral(neutral: NeutralReference | str | None) -> dict | str | None:
    """As JSON holds it; `neutral_from_plain` takes it back."""
    return neutral.to_dict() if isinstance(neutral, NeutralReference) else neutral


def neutral_from_plain(plain: dict | str | None) -> NeutralReference | str | None:
    """What `plain_neutral` gave."""
    return NeutralReference.from_dict(plain) if isinstance(plain, dict) else plain


def relative_to(neutral: NeutralReference | str) -> str:
    """For a title: what answers are relative to."""
    return "relative to what is usual for each person" if neutral == AUTO else "relative to a person at rest"


def kind_of(emotion: Emotion) -> str:
    """Which of MODALITIES an answer is from."""
    return "both" if len(emotion.modalities) > 1 else emotion.modalities[0]


class Referred:
    """Answers relative to a reference; the first one of a kind that the reference does not have is said."""

    def __init__(self, reference: NeutralReference, notify: Notify) -> None:
        self.reference, self._notify, self._missing = reference, notify, set()

    def __call__(self, emotions: Iterable[Emotion]) -> Iterator[Emotion]:
        for emotion in emotions:
            kind = kind_of(emotion)
            if kind not in self.reference.neutral and kind not in self._missing:
                self._missing.add(kind)
                what = {"both": "face and voice together", "video": "a face alone", "audio": "a voice alone"}[kind]
                self._notify(f"the neutral reference was made without {what}: such answers are as without it")
            yield replace(emotion, probabilities=self.reference.probabilities(emotion.probabilities, kind))


class NeutralMeter:
    """A `ClipPredictor` that notes what a predictor says of clips of one neutral person; see `reference`.

    Of a clip with face and voice it also asks what it would say of either alone.
    """

    def __init__(self, predictor: Predictor) -> None:
        """UsageError where the model has no class neutral."""
        if NEUTRAL not in predictor.labels:
            what = f"a neutral reference for a model of the classes {', '.join(predictor.labels)}"
            raise UsageError(what, f"a class {NEUTRAL}", "without one nothing says where a neutral person belongs")
        self.labels, self.image_size = predictor.labels, predictor.image_size
        self.max_batch = 1
        self._predictor = predictor
        self._sums = {kind: np.zeros(len(self.labels)) for kind in MODALITIES}
        self.clips = dict.fromkeys(MODALITIES, 0)

    def predict_clips(self, clips: Sequence[Clip]) -> list[Emotion]:
        """One Emotion per clip, as the predictor gives it.

        Raises:
            SourceError: two faces at the same time.
        """
        if len({(clip.end_s, clip.track_id) for clip in clips}) > len({clip.end_s for clip in clips}):
            hint = "let one person alone be seen"
            raise SourceError("two faces at the same time", "one: a neutral reference is of one person", hint)
        emotions = []
        for clip in clips:
            frames, mel = (None if part is None else part[None] for part in (clip.frames, clip.mel))
            emotions += self._predictor.emotions([clip], self.note(frames, mel))
        return emotions

    def note(self, frames: np.ndarray | None, mel: np.ndarray | None) -> np.ndarray:
        """Note inputs as of `Predictor.predict`, with what is there of each modality alone, and answer them: (N, C)."""
        whole: list[np.ndarray] = []
        for kind, inputs in (("both", (frames, mel)), ("video", (frames, None)), ("audio", (None, mel))):
            if (kind == "both" and (frames is None or mel is None)) or all(part is None for part in inputs):
                continue
            whole.append(self._predictor.predict(*inputs))
            self._sums[kind] += centred(whole[-1]).sum(axis=0)
            self.clips[kind] += len(whole[-1])
        return whole[0]

    def reference(self, **about: str | float) -> NeutralReference:
        """Of all clips so far.

        Raises:
            SourceError: of no kind are there FEWEST_CLIPS clips.
        """
        enough = {kind: count for kind, count in self.clips.items() if count >= FEWEST_CLIPS}
        if not enough:
            seen = max(self.clips.values())
            what = f"{seen} clip{'' if seen == 1 else 's'} with a face or a voice" if seen else "neither face nor voice"
            expected = f"at least {FEWEST_CLIPS} clips, one per half second"
            raise SourceError(what, expected, "be seen or speak for longer, with --seconds")
        bundle = self._predictor.bundle
        neutral = {kind: self._sums[kind] / count for kind, count in enough.items()}
        return NeutralReference(identity(bundle), self.labels, neutral, enough, {"bundle": bundle.name, **about})


def centred(probabilities: np.ndarray) -> np.ndarray:
    """Logarithms of probabilities (N, C), float64, less their mean over the classes."""
    logarithms = _logarithm(probabilities)
    return logarithms - logarithms.mean(axis=1, keepdims=True)


def moved(probabilities: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Probabilities float32 (C,) or (N, C) with `shift` (C,) added to their logarithms; rows sum to 1."""
    odds = _logarithm(probabilities) + shift
    odds = np.exp(odds - odds.max(axis=-1, keepdims=True))
    return (odds / odds.sum(axis=-1, keepdims=True)).astype(np.float32)


def _logarithm(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities.astype(np.float64), LEAST_PROBABILITY))
