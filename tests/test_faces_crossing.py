"""Faces keep their numbers when they pass each other, and when one hides the other for half a second."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
from test_faces_track import STEP_S, Stage, numbers

from mma_edge.faces.detect import overlap
from mma_edge.faces.match import best_pairs, looks_of, nearness
from mma_edge.faces.track import FaceTracker
from mma_edge.types import Box, Face, Frame

RED, BLUE = (200, 90, 80), (70, 90, 180)
Centres = Iterator[tuple[int, int]]
"""Of the face behind and the face in front, in pixels from the left, for each frame."""


def passing(speed: int) -> Centres:
    """Both cross the picture, each to the other's side: 400 pixels at pixels per frame."""
    return ((120 + x, 520 - x) for x in range(0, 401, speed))


def turning_back() -> Centres:
    """The one behind goes where nobody sees it and comes back, on the side that it came from."""
    there = [120 + x for x in range(0, 201, 6)]
    return ((x, 320) for x in [*there, *reversed(there)])


class Painted:
    """Two painted faces of 80 x 100 pixels; a detector sees one while the other covers less than half of it."""

    def __init__(self, behind: tuple[int, int, int], front: tuple[int, int, int]) -> None:
        self.colours, self.stage = (behind, front), Stage()
        self.tracker, self.time_s = FaceTracker(self.stage), 0.0

    def show(self, *centres: int) -> list[int | None]:
        """One frame; the number of each face, None where it is not reported."""
        image = np.full((300, 640, 3), 127, np.uint8)
        boxes: list[Box] = [(x - 40.0, 100.0, x + 40.0, 200.0) for x in centres]
        for box, colour in zip(boxes, self.colours, strict=True):
            x0, y0, x1, y1 = map(int, box)
            image[y0:y1, x0:x1] = colour
        hidden = abs(centres[0] - centres[1]) < 40
        self.stage.faces = dict.fromkeys(boxes[1:] if hidden else boxes, 1.0)
        faces = self.tracker.update(Frame(image, self.time_s, 0.0))
        self.time_s += STEP_S
        behind, front = (number_at(faces, box) for box in boxes)
        return [None if hidden else behind, front]


def number_at(faces: list[Face], box: Box) -> int | None:
    """The number of the face that is mostly in this place."""
    near = [(float(overlap(np.array(box), np.array([face.box]))[0]), face.track_id) for face in faces]
    best = max(near, default=(0.0, None))
    return best[1] if best[0] > 0.5 else None


@pytest.mark.parametrize("colours", [(RED, BLUE), (RED, RED)], ids=["different", "alike"])
@pytest.mark.parametrize("speed", [3, 6, 12])
def test_two_that_pass_each_other_keep_their_numbers(colours: tuple, speed: int) -> None:
    film = Painted(*colours)
    seen = [film.show(*centres) for centres in passing(speed)]
    assert seen[0] == seen[-1] == [1, 2]
    hidden = sum(behind is None for behind, _ in seen)
    assert hidden >= 36 // speed, "the one behind must have been out of sight"
    assert {behind for behind, _ in seen} == {1, None} and {front for _, front in seen} <= {2, None}


def test_one_that_turns_back_behind_another_keeps_its_number() -> None:
    film = Painted(RED, BLUE)
    seen = [film.show(*centres) for centres in turning_back()]
    assert sum(behind is None for behind, _ in seen) * STEP_S >= 0.5
    assert {behind for behind, _ in seen} == {1, None} and {front for _, front in seen} == {2}


def test_somebody_else_who_comes_out_is_a_new_face() -> None:
    film = Painted(RED, BLUE)
    for centres in turning_back():
        behind, front = film.show(*centres)
        if behind is None:
            film.colours = ((60, 160, 60), BLUE)
    for _ in range(10):
        behind, front = film.show(120, 320)
    assert (behind, front) == (3, 2)


def test_a_face_behind_a_pillar_is_met_where_it_comes_out() -> None:
    """12 pixels per frame for 0.6 s: more than a face width from where it was seen last."""
    stage = Stage()
    tracker, image, seen = FaceTracker(stage), np.full((300, 800, 3), 127, np.uint8), []
    for frame in range(50):
        x = 12.0 * frame
        stage.faces = {} if 20 <= frame < 35 else {(x, 100.0, x + 80.0, 200.0): 1.0}
        seen.append(numbers(tracker.update(Frame(image, frame * STEP_S, 0.0))))
    assert seen[19] == seen[-1] == [1] and not any(seen[21:35])


def test_the_best_pairs_are_the_best_of_all() -> None:
    rng = np.random.default_rng(0)
    for rows, columns in itertools.product(range(4), range(4)):
        values = rng.uniform(-1, 1, (rows, columns)).round(1)  # with ties
        pairs = best_pairs(values)
        assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
        wide = np.concatenate([values.clip(0), np.zeros((rows, rows))], axis=1)
        every = (sum(wide[range(rows), order]) for order in itertools.permutations(range(columns + rows), rows))
        assert sum(values[pair] for pair in pairs) == pytest.approx(max(every))
        assert all(values[pair] > 0 for pair in pairs)


def test_nearness_falls_with_the_distance_and_knows_another_size() -> None:
    box = np.array([100.0, 100.0, 200.0, 200.0])
    assert nearness(box, box) == 1.0
    assert nearness(box, box + np.array([50, 0, 50, 0])) == pytest.approx(0.5)
    assert nearness(box, box + 100) == 0.0 < nearness(box, box + 100, reach=2.0)
    assert nearness(box, box + np.array([0, 0, 120, 120])) == 0.0


def test_looks_are_the_colours_of_a_face_and_none_outside(portrait: np.ndarray) -> None:
    box = (60.0, 60.0, 200.0, 240.0)
    own = looks_of(portrait, box)
    mirrored = looks_of(np.ascontiguousarray(portrait[:, ::-1]), (100.0, 60.0, 240.0, 240.0))
    other = looks_of(tinted(portrait), box)
    assert own.shape == (48,) and np.linalg.norm(own) == pytest.approx(1)
    assert np.linalg.norm(own - mirrored) < 0.1 < 0.3 < np.linalg.norm(own - other)
    assert looks_of(portrait, (400.0, 0.0, 500.0, 100.0)) is None


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return np.ascontiguousarray(pytest.importorskip("skimage.data").astronaut()[:300, 80:380])


def tinted(image: np.ndarray) -> np.ndarray:
    """Another person, as far as colours go: red and blue exchanged, and darker."""
    return (image[..., ::-1] * 0.7).astype(np.uint8)


def heads(portrait: np.ndarray, change: Callable) -> tuple[np.ndarray, np.ndarray]:
    """A head, uint8 (h, w, 3), and its mask; an oval cut from the portrait."""
    head = change(cv2.resize(portrait[10:260, 50:250], (160, 200), interpolation=cv2.INTER_AREA))
    y, x = np.ogrid[-1:1:200j, -1:1:160j]
    return head, x**2 + y**2 < 1


def test_real_faces_that_pass_each_other_keep_their_numbers(portrait: np.ndarray) -> None:
    pytest.importorskip("onnxruntime")
    from mma_edge.faces.detect import MTCNNDetector

    tracker, seen = FaceTracker(MTCNNDetector()), []
    people = heads(portrait, lambda head: head[:, ::-1]), heads(portrait, tinted)
    for frame, centres in enumerate(passing(8)):
        image = np.full((240, 640, 3), 110, np.uint8)
        for (head, mask), x in zip(people, centres, strict=True):
            image[20:220, x - 80 : x + 80][mask] = head[mask]
        faces = tracker.update(Frame(image, frame * STEP_S, 0.0))
        behind, front = (number_at(faces, (x - 45, 40, x + 45, 170)) for x in centres)
        seen.append([None if abs(centres[0] - centres[1]) < 80 else behind, front])
    first, last = seen[0], seen[-1]
    assert sorted(first) == [1, 2] and last == first
    assert {behind for behind, _ in seen} == {first[0], None} and {front for _, front in seen} <= {first[1], None}
