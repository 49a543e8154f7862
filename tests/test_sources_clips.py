"""`FileSource` on real recordings: phone rotation, late sound, odd frame rates. Every frame is delivered."""

from __future__ import annotations

from pathlib import Path

import pytest

from mma_edge.sources.file import FileSource
from mma_edge.types import Frame

CLIPS = Path(__file__).parents[2] / "shared" / "data" / "clips"


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the shared clips are not on this machine")
@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("phone_rotated90_flag.mp4", (960, 540, 3), 150),
        ("face_leaves.mov", (540, 960, 3), 169),
        ("ravdess_disgust_actor01.mp4", (480, 640, 3), 120),
        ("single_face_silent.mp4", (360, 640, 3), 72),
    ],
)
def test_real_clips(name: str, shape: tuple[int, int, int], count: int) -> None:
    shapes = set()
    with FileSource(CLIPS / name) as source:
        for event in source.events():
            if isinstance(event, Frame):
                shapes.add(event.image.shape)
    assert shapes == {shape} and source.stats.frames == count and source.stats.damaged_packets == 0
    assert source.has_audio
