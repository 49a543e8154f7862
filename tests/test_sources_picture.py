"""A part of a decoded picture is the same RGB as in the whole, to the last bit, however the picture is stored."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest

from mma_edge.sources.picture import DecodedPicture, Orientation, scaled

WIDTH, HEIGHT = 1000, 700
ORIENTATIONS = [Orientation(swapped, x, y) for swapped in (False, True) for x in (False, True) for y in (False, True)]


def decoded(fmt: str, width: int = WIDTH, height: int = HEIGHT) -> av.VideoFrame:
    """Noise, the hardest picture for whoever mixes neighbours."""
    frame = av.VideoFrame(width, height, fmt)
    for plane in frame.planes:
        noise = np.random.default_rng(0).integers(0, 256, plane.buffer_size, dtype=np.uint8)
        plane.update(noise.tobytes())
    frame.colorspace, frame.color_range = 1, 1
    return frame


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_part_is_that_of_the_whole_picture(orientation: Orientation) -> None:
    frame, rng = decoded("yuv420p"), np.random.default_rng(1)
    whole = orientation.upright(frame.to_ndarray(format="rgb24"))
    height, width = whole.shape[:2]
    for _ in range(40):
        x0, y0 = int(rng.integers(0, width)), int(rng.integers(0, height))
        x1, y1 = (int(start + rng.integers(0, 250)) for start in (x0, y0))
        picture = DecodedPicture(frame, orientation)
        assert picture.shape == whole.shape
        np.testing.assert_array_equal(picture[y0:y1, x0:x1], whole[y0:y1, x0:x1])
        np.testing.assert_array_equal(picture[y0 + 3 : y1 + 5, x0:x1], whole[y0 + 3 : y1 + 5, x0:x1])
    np.testing.assert_array_equal(np.asarray(picture), whole)


@pytest.mark.parametrize("fmt", ["yuv420p", "nv12", "yuv422p", "yuv444p", "yuv420p10le", "gray", "rgb24"])
def test_any_pixel_format_gives_the_same_rgb_in_parts(fmt: str) -> None:
    frame = decoded(fmt)
    whole = frame.to_ndarray(format="rgb24")
    for x, y in ((0, 0), (333, 221), (WIDTH - 200, HEIGHT - 150)):
        part = DecodedPicture(frame, Orientation())[y : y + 150, x : x + 200]
        np.testing.assert_array_equal(part, whole[y : y + 150, x : x + 200])


def test_odd_sides_give_the_same_rgb_in_parts() -> None:
    frame = decoded("yuv420p", 999, 701)
    whole = frame.to_ndarray(format="rgb24")
    np.testing.assert_array_equal(DecodedPicture(frame, Orientation())[601:701, 899:999], whole[601:, 899:])


def test_a_look_at_a_face_converts_little_more_than_the_face() -> None:
    picture = DecodedPicture(decoded("yuv420p"), Orientation())
    face = picture[200:300, 400:500]
    assert face.base.nbytes < 0.1 * 3 * WIDTH * HEIGHT
    assert picture[190:290, 405:500].base is face.base, "the next look is beside it and costs nothing"


@pytest.mark.parametrize("orientation", [Orientation(), Orientation(swapped=True), Orientation(mirror_x=True)])
def test_a_small_copy_is_the_whole_picture_upright_and_takes_nothing_from_the_large_one(
    orientation: Orientation,
) -> None:
    across, down = np.meshgrid(np.arange(1280), np.arange(720))
    image = np.stack([across % 256, down % 256, (across + down) // 8 % 256], axis=2).astype(np.uint8)
    smooth = cv2.GaussianBlur(image, (0, 0), 20)
    frame = av.VideoFrame.from_ndarray(smooth, format="rgb24").reformat(format="yuv420p")
    picture = DecodedPicture(frame, orientation)
    small = scaled(picture, 640)
    assert small.shape == ((640, 360, 3) if orientation.swapped else (360, 640, 3))
    assert picture._rgb.size == 0
    expected = cv2.resize(np.asarray(picture), small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - expected).mean() < 2
    assert scaled(expected, 640) is expected
