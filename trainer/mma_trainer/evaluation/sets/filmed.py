"""Real labelled audio-visual clips, cut by the runtime's own pipeline as `mma-edge run FILE --whole` cuts them."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mma_edge.audio.ring import VoiceGate
from mma_edge.clip import Crop, WholeClips, input_shapes
from mma_edge.pipeline import collect_from
from mma_edge.types import AudioChunk
from mma_trainer.data.preparation.sound import Sound
from mma_trainer.data.public.clips import CLIP_CORPORA, load_clips
from mma_trainer.evaluation.sets.clips import EvalSet, Inputs, RawClip


class _Watched(WholeClips):
    """`WholeClips` that also counts the pictures of each face and keeps the sound as a wave."""

    def __init__(self, gate: VoiceGate | None) -> None:
        super().__init__(gate)
        self.pictures: Counter[int] = Counter()
        self.sound = Sound()

    def add_crops(self, crops: Iterable[Crop], time_s: float) -> None:
        crops = list(crops)
        self.pictures.update(crop.track_id for crop in crops)
        super().add_crops(crops, time_s)

    def add_audio(self, chunk: AudioChunk) -> None:
        super().add_audio(chunk)
        self.sound.add(chunk)


def watch(path: Path, image_size: int) -> tuple[Inputs, RawClip]:
    """What the model gets of a file, zeros for what is absent, and the same with the sound as a wave.

    Of several faces the one that is seen in the most pictures, as `mma-train prepare` takes it. SourceError where the
    file cannot be read, or has neither a face nor sound.
    """
    cuts: list[_Watched] = []

    def watched(gate: VoiceGate | None) -> _Watched:
        cuts.append(_Watched(gate))
        return cuts[0]

    found = collect_from(path, image_size, watched)
    (cut,) = cuts
    clip = max(found, key=lambda clip: (cut.pictures[clip.track_id], -(clip.track_id or 0)))
    images = None if clip.frames is None else tuple(clip.frames)
    shapes = input_shapes(image_size)
    frames = np.zeros(shapes["frames"], np.uint8) if clip.frames is None else clip.frames
    mel = np.zeros(shapes["mel"], np.float32) if clip.mel is None else clip.mel
    wave = cut.sound.wave() if cut.sound.samples else None
    return (frames, mel), RawClip(images, wave, cut.sound.rate_hz)


def filmed_set(name: str, data: Path, image_size: int) -> EvalSet:
    """A corpus of `data.public.clips`; a clip is decoded when it is first asked for, and kept."""
    clips = load_clips(data, name)
    watched = functools.cache(lambda index: watch(clips[index].path, image_size))
    return EvalSet(
        name,
        f"{CLIP_CORPORA[name].title}: {len(clips)} real audio-visual clips through detector, tracker and crop, the "
        "whole clip at once; one without a face stays in, as sound alone",
        np.array([clip.label for clip in clips]),
        load=lambda index: watched(index)[0],
        raw=lambda index: watched(index)[1],
        image_size=image_size,
        groups=np.array([clip.actor for clip in clips]),
    )
