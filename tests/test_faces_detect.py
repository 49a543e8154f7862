"""The detector finds faces, says where, and finds them again cheaply."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import run_python

from mma_edge.errors import BundleError, DependencyError, UsageError
from mma_edge.faces import detect
from mma_edge.faces.detect import ASSETS, MTCNNDetector, overlap, suppress

pytest.importorskip("onnxruntime")
SHARED = Path(__file__).parents[2] / "shared"
ASTRONAUT_BOX = (175, 68, 272, 200)
"""Face of skimage's portrait (512 x 512), forehead to chin and cheek to cheek, read off by eye."""


@pytest.fixture(scope="module")
def detector() -> MTCNNDetector:
    return MTCNNDetector()


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    data = pytest.importorskip("skimage.data", reason="scikit-image holds the portrait")
    return data.astronaut()


run = detect._run


def iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return float(overlap(np.asarray(a, float), np.asarray([b], float))[0])


def test_finds_the_one_face_of_a_portrait(detector: MTCNNDetector, astronaut: np.ndarray) -> None:
    (face,) = detector.detect(astronaut)
    assert iou(face.box, ASTRONAUT_BOX) > 0.7
    assert face.score > 0.99


def test_boxes_are_in_pixels_of_the_image_given(detector: MTCNNDetector, astronaut: np.ndarray) -> None:
    large = astronaut.repeat(3, axis=0).repeat(3, axis=1)
    (face,) = detector.detect(large)
    assert iou(tuple(value / 3 for value in face.box), ASTRONAUT_BOX) > 0.7


def test_finds_a_face_of_a_twentieth_of_the_frame(detector: MTCNNDetector, astronaut: np.ndarray) -> None:
    frame = np.full((1080, 1920, 3), 90, np.uint8)
    frame[400:912, 700:1212] = astronaut
    (face,) = detector.detect(frame)
    assert iou(face.box, tuple(np.add(ASTRONAUT_BOX, (700, 400, 700, 400)))) > 0.6


def test_finds_nothing_in_noise_or_plain_colour(detector: MTCNNDetector) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (360, 640, 3), dtype=np.uint8)
    assert detector.detect(noise) == []
    assert detector.detect(np.zeros((360, 640, 3), np.uint8)) == []
    assert detector.detect(np.zeros((5, 3, 3), np.uint8)) == []


def test_known_places_hide_no_face_and_spare_most_candidates(
    detector: MTCNNDetector, astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = np.concatenate([astronaut, astronaut[:, ::-1]], axis=1)
    alone = detector.detect(pair)
    assert len(alone) == 2
    tried: list[int] = []
    reject = detector._reject
    monkeypatch.setattr(detector, "_reject", lambda image, boxes: tried.append(len(boxes)) or reject(image, boxes))
    detector.detect(pair)
    moved = [tuple(value + 6 for value in face.box) for face in alone]
    # One face is known and the other new; both are known; none is where a face was.
    for known in (moved[:1], moved, [(900.0, 400.0, 1000.0, 500.0)]):
        found = detector.detect(pair, known)
        assert len(found) == 2
        for face in alone:
            assert max(iou(face.box, other.box) for other in found) > 0.8
    everything, one_known, both_known, _, all_again = tried
    assert both_known < one_known < everything
    assert all_again == everything


def test_a_larger_smallest_face_skips_the_largest_pictures_only(
    detector: MTCNNDetector, astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, ...]] = []
    monkeypatch.setattr(detect, "_run", lambda session, images: sizes.append(images.shape[1:3]) or run(session, images))
    (face,) = detector.detect(astronaut)
    every = [size for size in sizes if size not in ((24, 24), (48, 48))]
    sizes.clear()
    (again,) = detector.detect(astronaut, least_px=60)
    fewer = [size for size in sizes if size not in ((24, 24), (48, 48))]
    assert iou(again.box, face.box) > 0.9
    assert fewer == every[len(every) - len(fewer) :] and len(fewer) < len(every)
    # 60 px of 512 are 56 px of 480; the first picture that is kept still holds faces of that size as 12 px or more.
    assert fewer[0][0] >= 12 / 56 * 480


def test_refine_follows_a_shifted_face(detector: MTCNNDetector, astronaut: np.ndarray) -> None:
    (face,) = detector.detect(astronaut)
    shifted = tuple(value + 10 for value in face.box)
    (again,) = detector.refine(astronaut, [shifted])
    assert again is not None and again.score > 0.9
    assert iou(again.box, face.box) > iou(shifted, face.box)


def test_refine_stays_in_place_when_repeated(detector: MTCNNDetector, astronaut: np.ndarray) -> None:
    (face,) = detector.detect(astronaut)
    box = face.box
    for _ in range(50):
        (again,) = detector.refine(astronaut, [box])
        assert again is not None
        box = again.box
    assert iou(box, face.box) > 0.8


def test_refine_answers_in_order_and_none_without_a_face(detector: MTCNNDetector, astronaut: np.ndarray) -> None:
    outside, corner = (900.0, 900.0, 1000.0, 1000.0), (420.0, 0.0, 500.0, 90.0)
    first, second, third = detector.refine(astronaut, [outside, ASTRONAUT_BOX, corner])
    assert first is None and second is not None and third is None
    assert detector.refine(astronaut, []) == []


def test_confirm_tells_a_face_from_what_is_none(detector: MTCNNDetector, astronaut: np.ndarray) -> None:
    face, corner, outside = detector.confirm(astronaut, [ASTRONAUT_BOX, (420, 0, 500, 90), (900, 900, 1000, 1000)])
    assert face > 0.95 and corner < 0.5 and outside == 0.0


@pytest.mark.parametrize(("side", "most"), [(40, 0.0), (191, 0.0), (384, 0.03), (193, 0.3), (446, 0.3), (447, 0.3)])
def test_shrinking_in_halves_moves_a_picture_by_a_small_part_of_a_pixel(
    astronaut: np.ndarray, side: int, most: float
) -> None:
    image = astronaut[20 : 20 + side, 30 : 30 + side]
    plain = cv2.resize(image, (48, 48), interpolation=cv2.INTER_AREA).astype(int)
    one_pixel = np.abs(plain[:, 1:] - plain[:, :-1]).mean()
    assert np.abs(detect.shrunk(image, 48, 48) - plain).mean() <= most * one_pixel


def test_suppression_keeps_the_best_of_each_place() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30], [2, 2, 6, 6]], float)
    scores = np.array([0.8, 0.9, 0.7, 0.6])
    assert suppress(boxes, scores, 0.5).tolist() == [1, 2, 3]
    assert suppress(boxes, scores, 0.5, of_smaller=True).tolist() == [1, 2]


@pytest.mark.parametrize("shape", [(480, 640), (480, 640, 4), (0, 640, 3)])
def test_wrong_images_are_refused(detector: MTCNNDetector, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"RGB"):
        detector.detect(np.zeros(shape, np.uint8))
    with pytest.raises(UsageError):
        detector.refine(np.zeros((480, 640, 3), np.float32), [ASTRONAUT_BOX])


def test_missing_or_changed_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"SOURCE\.json"):
        MTCNNDetector(assets=tmp_path)
    folder = tmp_path / "mtcnn"
    shutil.copytree(ASSETS, folder)
    data = bytearray((folder / "rnet.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "rnet.onnx").write_bytes(data)
    with pytest.raises(BundleError, match=r"rnet\.onnx.*SHA-256"):
        MTCNNDetector(assets=folder)


def test_without_onnxruntime_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DependencyError, match=r"mma-edge\[cpu\]"):
        MTCNNDetector()


def test_importing_the_room_loads_neither_opencv_nor_onnxruntime() -> None:
    unloaded = "assert not {'cv2', 'onnxruntime'} & set(sys.modules)"
    program = f"import sys, mma_edge.faces; {unloaded}; import mma_edge.faces.track"
    assert run_python("-c", program).returncode == 0


def test_the_networks_carry_their_licence() -> None:
    text = (ASSETS / "LICENSE").read_text()
    assert "Timothy Esler" in text and "David Sandberg" in text
