"""Crops and resizes are those that the published weights were trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mma_edge.errors import UsageError
from mma_edge.faces import centre_crop, crop_face, resize
from mma_edge.faces.crop import square_box

SHARED = Path(__file__).parents[2] / "shared"
GOLDEN = SHARED / "reference" / "golden_resize.npz"


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_shorter_side_grows_to_the_longer_about_the_centre() -> None:
    assert square_box((100, 50, 140, 130), 640, 480) == (80, 50, 160, 130)
    assert square_box((50, 100, 130, 140), 640, 480) == (50, 80, 130, 160)


def test_corners_are_rounded_and_an_odd_difference_leaves_one_pixel() -> None:
    assert square_box((99.6, 50.4, 140.2, 130.7), 640, 480) == (80, 50, 160, 131)


def test_first_corner_is_cut_before_squaring_and_the_rest_after() -> None:
    # x0 = -30 becomes 0, so the box counts as 40 x 80 and grows by 20 on both sides, cut at 0 again.
    assert square_box((-30, 100, 40, 180), 640, 480) == (0, 100, 60, 180)
    assert square_box((600, 100, 680, 180), 640, 480) == (600, 100, 640, 180)


def test_a_box_outside_the_frame_is_refused_with_its_numbers() -> None:
    with pytest.raises(UsageError, match="640 x 480"):
        square_box((700, 100, 780, 180), 640, 480)
    with pytest.raises(UsageError):
        square_box((-100, 100, -20, 180), 640, 480)


def test_crop_is_the_squared_region() -> None:
    image = picture(480, 640)
    assert np.array_equal(crop_face(image, (100, 50, 140, 130)), image[50:130, 80:160])


def test_frame_without_a_face_gives_the_central_square_of_half_the_shorter_side() -> None:
    image = picture(480, 640)
    assert np.array_equal(centre_crop(image), image[120:360, 200:440])
    assert centre_crop(picture(101, 57)).shape == (28, 28, 3)


def test_resize_meets_the_golden_pictures() -> None:
    if not GOLDEN.exists():
        pytest.skip("no shared/reference beside the repository")
    golden = np.load(GOLDEN)
    outputs = [key for key in golden if key.startswith("out_")]
    assert outputs
    for key in outputs:
        source, size = key.removeprefix("out_").split("_to")
        ours = resize(golden[f"in_{source}"], int(size))
        assert np.abs(ours.astype(int) - golden[key]).max() <= 1, key


def test_resize_averages_when_shrinking() -> None:
    # One-pixel columns, every fifth of which is a sample point: sampling alone would keep the contrast.
    stripes = np.zeros((320, 320, 3), np.uint8)
    stripes[:, ::2] = 254
    assert np.abs(resize(stripes, 64).astype(int) - 127).max() <= 20


def test_resize_takes_any_strides_and_returns_its_own_memory() -> None:
    image = picture(100, 80)
    mirrored = image[10:90, 70:5:-1]
    result = resize(mirrored, 65)
    assert result.flags["C_CONTIGUOUS"] and result.flags["WRITEABLE"]
    assert np.array_equal(result, resize(mirrored.copy(), 65))
    same = resize(image[:64, :64], 64)
    assert np.array_equal(same, image[:64, :64]) and not np.shares_memory(same, image)


@pytest.mark.parametrize(
    "wrong",
    [picture(0, 10), picture(10, 0), picture(8, 8)[:, :, 0], picture(8, 8).astype(np.float32), [[1]]],
    ids=["no rows", "no columns", "two dimensions", "float", "list"],
)
def test_wrong_pictures_are_refused(wrong: object) -> None:
    with pytest.raises(UsageError):
        resize(wrong, 16)
