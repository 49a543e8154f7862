"""Faces keep their numbers while they are there, and are not reported when they are not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from mma_edge.errors import UsageError
from mma_edge.faces.detect import Detection, overlap
from mma_edge.faces.track import FaceTracker
from mma_edge.types import Box, Face, Frame

CLIPS = Path(__file__).parents[2] / "shared" / "data" / "clips"
STEP_S = 1 / 25
A, B = (100.0, 100.0, 200.0, 220.0), (400.0, 100.0, 500.0, 220.0)


class Stage:
    """A detector that knows where the faces are: `faces` maps box to `confirm` value."""

    def __init__(self) -> None:
        self.faces: dict[Box, float] = {}
        self.refinable = True
        self.detections = 0
        self.looks = 0
        self.least_px: list[float] = []

    def detect(self, image: np.ndarray, known: Sequence[Box] = (), least_px: float = 0.0) -> list[Detection]:
        self.detections += 1
        self.least_px.append(least_px)
        return [Detection(box, 0.99) for box in self.faces]

    def refine(self, image: np.ndarray, boxes: Sequence[Box]) -> list[Detection | None]:
        self.looks += bool(boxes)
        answers: list[Detection | None] = []
        for box in boxes:
            best = max(self.faces, key=lambda face: iou(face, box), default=None)
            found = self.refinable and best is not None and iou(best, box) > 0.2
            answers.append(Detection(best, 0.99) if found else None)
        return answers

    def confirm(self, image: np.ndarray, boxes: Sequence[Box]) -> list[float]:
        return [self.faces.get(box, 0.0) for box in boxes]


def iou(a: Box, b: Box) -> float:
    return float(overlap(np.asarray(a), np.asarray([b]))[0])


def moved(box: Box, dx: float) -> Box:
    return (box[0] + dx, box[1], box[2] + dx, box[3])


class Film:
    """Feeds a tracker frame by frame, 25 per second unless told."""

    def __init__(self, step_s: float = STEP_S, **settings: float) -> None:
        self.step_s = step_s
        self.stage = Stage()
        self.tracker = FaceTracker(self.stage, **settings)
        self.image = np.zeros((480, 640, 3), np.uint8)
        self.time_s = 0.0

    def play(self, seconds: float, *faces: Box, firm: float = 1.0) -> list[list[Face]]:
        """Show these faces for a while; what the tracker said of each frame."""
        self.stage.faces = dict.fromkeys(faces, firm)
        answers = []
        for _ in range(round(seconds / self.step_s)):
            answers.append(self.tracker.update(Frame(self.image, self.time_s, 0.0)))
            self.time_s += self.step_s
        return answers


def numbers(faces: list[Face]) -> list[int]:
    return [face.track_id for face in faces]


def test_clear_faces_are_numbered_from_one_at_once_and_keep_their_numbers() -> None:
    answers = Film().play(4.0, A, B)
    assert all(numbers(faces) == [1, 2] for faces in answers)
    assert all(faces[0].box == A and faces[1].box == B for faces in answers)


def test_full_detections_are_rare_while_all_is_calm() -> None:
    film = Film()
    film.play(4.0, A)
    assert film.stage.detections == pytest.approx(8, abs=1)


def test_small_new_faces_are_looked_for_every_two_seconds_while_all_is_calm_and_always_otherwise() -> None:
    film = Film()
    film.play(4.4, A)
    assert film.stage.least_px == [0.0, 60.0, 60.0, 60.0, 0.0, 60.0, 60.0, 60.0, 0.0], "half of the 120 px of A"
    film.stage.least_px.clear()
    film.play(0.6)
    assert film.stage.least_px and not any(film.stage.least_px), "the face that is missing may be far away now"


def test_full_detections_are_bounded_while_there_is_no_face() -> None:
    film = Film()
    assert film.play(4.0) == [[]] * 100
    assert film.stage.detections == pytest.approx(20, abs=1)


def test_a_doubtful_face_is_numbered_at_its_second_detection() -> None:
    answers = Film().play(1.0, A, firm=0.93)
    assert answers[0] == [] and numbers(answers[6]) == [1]


def test_what_cannot_be_confirmed_is_never_reported() -> None:
    assert not any(Film().play(4.0, A, firm=0.88))


@pytest.mark.parametrize("frames", range(25, 31))
def test_a_face_that_is_gone_is_reported_in_one_more_frame_at_most(frames: int) -> None:
    film = Film()
    film.play(frames * STEP_S, A, B)
    assert all(numbers(faces) == [2] for faces in film.play(2.0, B)[1:])


def test_resting_faces_are_looked_at_in_every_second_frame_and_moving_ones_in_all() -> None:
    film = Film()
    film.play(0.5, A)
    before = film.stage.looks + film.stage.detections
    film.play(2.0, A)
    assert film.stage.looks + film.stage.detections - before == pytest.approx(25, abs=2)
    film.stage.looks = film.stage.detections = 0
    for step in range(1, 51):
        film.play(STEP_S, moved(A, 10.0 * step))
    assert film.stage.looks + film.stage.detections >= 48


def test_slow_cameras_are_looked_at_in_every_frame() -> None:
    film = Film(step_s=1 / 15)
    film.play(4.0, A)
    assert film.stage.looks + film.stage.detections == 60


def test_a_face_back_in_its_place_within_the_missing_time_keeps_its_number() -> None:
    film = Film()
    film.play(1.0, A)
    assert not any(film.play(0.6))
    assert all(numbers(faces) == [1] for faces in film.play(0.5, moved(A, 20)))


def test_a_face_back_after_the_missing_time_is_a_new_one() -> None:
    film = Film()
    film.play(1.0, A)
    film.play(1.2)
    assert numbers(film.play(0.5, A)[-1]) == [2]


def test_a_face_elsewhere_is_a_new_one_even_within_the_missing_time() -> None:
    film = Film()
    film.play(1.0, A)
    film.play(0.2)
    assert numbers(film.play(0.5, B)[-1]) == [2]


def test_a_face_found_by_detection_alone_keeps_its_number() -> None:
    film = Film()
    film.play(1.0, A)
    film.stage.refinable = False
    seen = [faces for faces in film.play(2.0, moved(A, 60)) if faces]
    assert seen and all(numbers(faces) == [1] for faces in seen)


def test_a_moving_face_is_followed_without_lag() -> None:
    film = Film()
    film.play(0.5, A)
    for step in range(1, 40):
        place = moved(A, 10.0 * step)
        (faces,) = film.play(STEP_S, place)
        assert numbers(faces) == [1]
        assert abs(faces[0].box[0] - place[0]) <= 5


def test_a_resting_face_gets_a_steady_box() -> None:
    film = Film()
    film.play(0.5, A)
    jumps = np.random.default_rng(0).choice([-2.0, 2.0], 200)  # of the detector's box
    shown = [film.play(STEP_S, moved(A, jump))[0][0].box[0] for jump in jumps]
    assert np.std(shown) < 0.6 * np.std(jumps)


def test_two_tracks_never_share_one_face() -> None:
    film = Film()
    film.play(1.0, A, moved(A, 105))
    # The right one leaves; its last place still overlaps the left one after that has leaned over.
    answers = film.play(1.0, moved(A, 45))
    assert all(len(faces) == 1 for faces in answers)
    assert len({faces[0].track_id for faces in answers}) == 1


def test_numbers_go_on_upward_after_cuts_and_reset() -> None:
    film = Film()
    film.play(0.5, A)
    film.time_s += 6.0
    assert numbers(film.play(0.2, A)[-1]) == [2]
    film.time_s = 0.0
    assert numbers(film.play(0.2, A)[-1]) == [3]
    film.image = np.zeros((720, 1280, 3), np.uint8)
    assert numbers(film.play(0.2, A)[-1]) == [4]
    film.tracker.reset()
    assert numbers(film.play(0.2, A)[-1]) == [5]


def test_senseless_intervals_are_refused() -> None:
    with pytest.raises(UsageError):
        FaceTracker(Stage(), detect_interval_s=0.0)


def frames(name: str, every: int, until_s: float) -> Iterator[Frame]:
    av = pytest.importorskip("av")
    if not (CLIPS / name).exists():
        pytest.skip("no shared/data/clips beside the repository")
    with av.open(str(CLIPS / name)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in islice(container.decode(video=0), 0, None, every):
            if frame.time > until_s:
                return
            yield Frame(frame.to_ndarray(format="rgb24"), frame.time, 0.0)


@pytest.fixture(scope="module")
def real():
    pytest.importorskip("onnxruntime")
    from mma_edge.faces.detect import MTCNNDetector

    return MTCNNDetector()


def test_two_people_are_two_numbers_throughout(real) -> None:
    tracker = FaceTracker(real)
    for frame in frames("two_faces.mp4", every=3, until_s=4.0):
        faces = tracker.update(frame)
        assert numbers(faces) == [1, 2]
        # The two sit right and left of the middle, and never change places.
        assert faces[0].box[0] > 540 > faces[1].box[2]


def test_one_speaker_is_one_number_whatever_the_hands_do(real) -> None:
    tracker = FaceTracker(real)
    for frame in frames("speaker1_portrait_10s.mp4", every=4, until_s=6.0):
        assert numbers(tracker.update(frame)) == [1]


def test_reports_stop_when_the_face_leaves(real) -> None:
    tracker = FaceTracker(real)
    seen = [(frame.time_s, numbers(tracker.update(frame))) for frame in frames("face_leaves.mov", 2, 5.0)]
    assert all(ids == [1] for time_s, ids in seen if time_s < 2.3)
    assert all(ids == [] for time_s, ids in seen if time_s > 2.45)


def test_a_title_card_has_no_face(real) -> None:
    tracker = FaceTracker(real)
    assert not any(tracker.update(frame) for frame in frames("no_face.mp4", every=3, until_s=9.0))


def test_a_face_sliding_out_of_the_picture_stops_and_comes_back(real) -> None:
    portrait = pytest.importorskip("skimage.data").astronaut()
    tracker = FaceTracker(real)
    # The camera pans away until the face (x 175 to 272) is out on the left, and back a second later.
    starts = [*range(0, 330, 12), *[330] * 30, *range(330, 0, -12)]
    seen = []
    for i, start in enumerate(starts):
        view = np.full((480, 512, 3), 127, np.uint8)
        view[:, : 512 - start] = portrait[:480, start:]
        seen.append(numbers(tracker.update(Frame(view, i / 25, 0.0))))
    assert seen[0] == [1] and all(seen[:12])
    out = [ids for ids, start in zip(seen, starts, strict=True) if start >= 276]
    assert not any(out)
    assert len(seen[-1]) == 1
