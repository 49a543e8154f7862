"""Promises of the sample clip: it is there, small, licensed, and has one moving face and a voice."""

from __future__ import annotations

import numpy as np

from mma_edge.sources import open_source, sample_path
from mma_edge.types import Frame


def test_the_sample_is_small_and_has_its_licence_beside_it() -> None:
    path = sample_path()
    assert path.stat().st_size < 400_000
    licence = (path.parent / "LICENSE").read_text()
    assert "public domain" in licence and "CC0" in licence and "espeak-ng" in licence


def test_the_sample_plays_with_picture_and_sound() -> None:
    said: list[str] = []
    with open_source("sample", said.append) as source:
        events = list(source.events())
    frames = [e for e in events if isinstance(e, Frame)]
    voice = np.concatenate([e.samples for e in events if not isinstance(e, Frame)], axis=1)
    assert said == [] and source.has_video and source.has_audio
    assert 6.0 < source.duration_s < 9.0 and len(frames) == round(source.duration_s * 25)
    assert {frame.image.shape for frame in frames} == {(480, 480, 3)}
    assert np.abs(frames[60].image.astype(int) - frames[30].image).mean() > 2  # the face moves
    assert voice.shape[0] == 1 and np.abs(voice).max() > 0.2
