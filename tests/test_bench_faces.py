"""Promises of `mma-bench faces`: found, missed and false faces are counted, whole files are timed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rich")
from mma_benchmarks.cli import main
from mma_benchmarks.faces.measure import SAME_FACE_IOU, Tally, count
from mma_benchmarks.latency.measure import STAGES
from mma_edge.types import Face

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


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (["--every", "0"], 2, "at least 1"),
        (["--repeat", "0"], 2, "at least 1"),
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
