"""Promises of `mma-bench faces`: found, missed and false faces are counted, whole files are timed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rich")
import mma_edge
from mma_benchmarks.cli import main
from mma_benchmarks.faces import people
from mma_benchmarks.faces.measure import SAME_FACE_IOU, Tally, count
from mma_benchmarks.faces.page import people_tables
from mma_benchmarks.faces.people import crowd_times, followed
from mma_benchmarks.faces.scenes import REST_FRAMES, Head, passing, played
from mma_benchmarks.faces.schema import Crossings, Faces, FacesSettings, People
from mma_benchmarks.latency.measure import STAGES
from mma_edge.faces.detect import MTCNNDetector, overlap
from mma_edge.faces.track import FaceTracker
from mma_edge.types import Face, Frame

SAMPLE = Path(mma_edge.__file__).parent / "assets" / "sample" / "sample.mp4"

FACES = np.array([[0, 0, 100, 100], [200, 0, 300, 100], [400, 0, 500, 100]], float)


def test_missed_and_false_faces_are_counted() -> None:
    tally = Tally()
    firm = np.array([True, True, False])
    shown = [Face(1, (5, 5, 105, 105), 0.9), Face(2, (400, 0, 500, 100), 0.9), Face(3, (600, 0, 700, 100), 0.9)]
    count(shown, FACES, firm, tally)
    assert (tally.compared, tally.expected, tally.missed, tally.false) == (1, 2, 1, 1)
    assert tally.overlaps == [pytest.approx(95 * 95 / (2 * 100 * 100 - 95 * 95))]
    assert tally.overlaps[0] > SAME_FACE_IOU


def test_pictures_without_faces_count_as_well() -> None:
    tally = Tally()
    count([], np.zeros((0, 4)), np.zeros(0, bool), tally)
    count([Face(1, (0, 0, 10, 10), 0.9)], np.zeros((0, 4)), np.zeros(0, bool), tally)
    count([], FACES, np.ones(3, bool), tally)
    assert (tally.compared, tally.expected, tally.missed, tally.false) == (3, 3, 3, 1)


def test_the_sample_has_one_face_that_is_never_missed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["faces", "--every", "25", "--repeat", "1", "--output", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*_faces_*.json")
    (row,) = json.loads(path.read_text())["results"]["sources"]
    assert (row["clips"], row["pictures"], row["reported"]) == (1, 195, 195)
    assert (row["compared"], row["expected"], row["missed"], row["false"]) == (8, 8, 0, 0)
    assert row["mean_overlap"] > 0.8 and row["find_ms"] < row["reference_ms"]
    assert row["real_time_factor"] == pytest.approx(row["media_s"] / row["wall_s"])
    assert set(row["stages_ms"]) == set(STAGES)
    assert "missed" in capsys.readouterr().out.split("From end to end")[0]
    assert main(["report", str(path), "--output", str(tmp_path / "page")]) == 0


@pytest.fixture(scope="module")
def pair() -> list[Head]:
    """The sample's face and the same one in other colours."""
    detector = MTCNNDetector()
    head = Head.of(SAMPLE, detector)
    few = Head(head.images[:5], head.mask, head.face)
    return [few, Head((few.images[..., ::-1] * 0.7).astype(np.uint8), few.mask, few.face)]


def test_a_scene_says_where_each_face_is_and_which_one_is_hidden(pair: list[Head]) -> None:
    scene = list(played(pair, iter([[(400, 300), (800, 300)], [(590, 300), (610, 300)]]), front=1))
    assert len(scene) == 2 + 2 * REST_FRAMES
    frame, (left, right) = scene[0]
    assert frame.image.shape == (720, 1280, 3)
    assert (left[0] + left[2]) / 2 == pytest.approx(400, abs=1) and (right[1] + right[3]) / 2 == pytest.approx(
        300, abs=1
    )
    assert [box is None for box in scene[-1][1]] == [True, False]
    (found,) = [face for face in MTCNNDetector().detect(frame.image) if face.box[0] < 640]
    assert float(overlap(np.array(left), np.array([found.box]))[0]) > 0.5


def test_people_who_pass_each_other_are_counted(pair: list[Head]) -> None:
    visible, missed, hidden, switches = followed(FaceTracker(MTCNNDetector()), played(pair, passing(400), front=1))
    assert visible > 70 and hidden >= 2
    assert (missed, switches) == (0, 0)


def test_a_change_of_number_is_a_switch_and_a_face_elsewhere_is_missed() -> None:
    class Told:
        answers = iter([[(1, 0), (2, 300)], [(2, 0), (1, 300)], [(3, 100)], [(2, 0)]])

        def update(self, frame: Frame) -> list[Face]:
            return [Face(number, (x, 0, x + 100, 100), 0.9) for number, x in next(self.answers)]

    frame, a, b = Frame(np.zeros((9, 9, 3), np.uint8), 0.0, 0.0), (0, 0, 100, 100), (300, 0, 400, 100)
    truth = [(a, b), (a, b), (a, None), (a, None)]
    assert followed(Told(), [(frame, [*boxes]) for boxes in truth]) == (6, 1, 2, 2)


def test_eight_faces_are_all_found_and_timed(pair: list[Head], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "CROWD_S", 0.6)
    found = crowd_times(pair * 4, mma_edge.load(backend="cpu"))
    assert found.faces == 8 and found.reported > 7.5 and found.answers == 8
    assert set(found.stages_ms) == {"detect", "crop", "engine"} and found.cores > 0
    result = Faces(FacesSettings(1, 1, 0.9, 0.4), [], People(2, [Crossings("passing", 2, 9, 1, 3, 0)], found))
    assert [len(table.rows) for table in people_tables(result.people)] == [1, 1]


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (["--every", "0"], 2, "at least 1"),
        (["--repeat", "0"], 2, "at least 1"),
        (["--people", "anna.mp4"], 2, "two or more people"),
        (["--source", "nowhere.mp4"], 3, "does not exist"),
        (["--source", "."], 3, "has no pictures"),
    ],
)
def test_bad_input_is_one_line(
    argv: list[str],
    code: int,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["faces", *argv, "--output", "results"]) == code
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1
