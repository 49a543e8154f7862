"""Smoothed answers are averages over time, each face's own, and say so; their delay is the time constant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import failure_line

from mma_edge.cli import main
from mma_edge.errors import UsageError
from mma_edge.pipeline import StreamOptions
from mma_edge.pipeline.smoothing import Smoother
from mma_edge.types import Emotion

LABELS = ("happy", "sad")


def answer(end_s: float, happy: float, track: int | None = 1) -> Emotion:
    return Emotion(end_s - 4, end_s, track, None, ("video",), LABELS, np.array([happy, 1 - happy], np.float32), 30.0)


def happiness(emotions: list[Emotion], time_constant_s: float) -> list[float]:
    return [float(emotion.probabilities[0]) for emotion in Smoother(time_constant_s)(emotions)]


@pytest.mark.parametrize("hop_s", [0.1, 0.5, 1.0])
def test_63_percent_of_a_change_are_shown_after_the_time_constant_whatever_the_hop(hop_s: float) -> None:
    times = np.arange(0, 4 + hop_s / 2, hop_s)
    shown = happiness([answer(float(t), float(t > 0)) for t in times], 2.0)
    assert shown[0] == 0.0
    assert shown[round(2 / hop_s)] == pytest.approx(1 - np.exp(-1), abs=1e-5)
    assert shown == pytest.approx(1 - np.exp(-times / 2), abs=1e-5)


def test_an_answer_that_is_missing_changes_no_weight_of_the_others() -> None:
    assert happiness([answer(0, 0), answer(2, 1)], 1.0)[-1] == pytest.approx(1 - np.exp(-2))


def test_faces_are_not_mixed_and_the_answers_say_what_was_done() -> None:
    given = [answer(1, 1.0, 1), answer(1, 0.0, 2), answer(1, 0.5, None), answer(1.5, 1.0, 1), answer(1.5, 0.0, 2)]
    smoothed = list(Smoother(3.0)(given))
    for before, after in zip(given, smoothed, strict=True):
        assert after.smoothed_s == 3.0 and after.probabilities.dtype == np.float32
        np.testing.assert_array_equal(after.probabilities, before.probabilities)
        assert (after.end_s, after.track_id, after.age_ms) == (before.end_s, before.track_id, before.age_ms)


def test_probabilities_still_sum_to_one() -> None:
    rng = np.random.default_rng(0)
    for emotion in Smoother(1.5)(answer(0.5 * k, float(rng.random())) for k in range(50)):
        assert emotion.probabilities.sum() == pytest.approx(1)


@pytest.mark.parametrize("second_s", [11.0, 0.5], ids=["after a long absence", "where time runs backwards"])
def test_a_face_begins_anew(second_s: float) -> None:
    assert happiness([answer(1, 0), answer(second_s, 1)], 1.0) == [0.0, 1.0]


def test_nothing_is_kept_of_faces_that_are_gone() -> None:
    smoother = Smoother(1.0)
    for number in range(100):
        list(smoother([answer(float(number), 1.0, number)]))
    assert len(smoother._last) < 10


@pytest.mark.parametrize("value", [0, -1, 61, float("nan"), "two"])
def test_a_senseless_time_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match=r"--smooth .*above 0 and up to 60"):
        StreamOptions(smooth_s=value)


@pytest.mark.parametrize(("argv", "words"), [(["--smooth", "0"], "above 0"), (["--smooth", "2", "--whole"], "one of")])
def test_bad_options_are_one_line(argv: list[str], words: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["run", "sample", *argv]) == 2
    assert words in failure_line(capsys)


def test_a_run_smooths_its_records_and_names_their_class_after_it(tmp_path: Path) -> None:
    import json

    records = {}
    for name, argv in (("plain", []), ("smooth", ["--smooth", "2", "--abstain-below", "0.7"])):
        path = tmp_path / f"{name}.jsonl"
        assert main(["run", "sample", "--backend", "cpu", "--hop", "1", "--quiet", "--output", str(path), *argv]) == 0
        records[name] = [json.loads(line) for line in path.read_text().splitlines()]
    plain, smooth = ([record["probabilities"]["happy"] for record in records[name]] for name in records)
    expected = plain[:1]
    for value in plain[1:-1]:
        expected.append(expected[-1] + (1 - np.exp(-1 / 2)) * (value - expected[-1]))
    assert smooth[: len(expected)] == pytest.approx(expected, abs=1e-5) and smooth != plain
    assert all(record["smoothed_s"] == 2.0 for record in records["smooth"])
    for record in records["smooth"]:
        best = max(record["probabilities"], key=record["probabilities"].get)
        assert record["label"] == (best if record["probabilities"][best] >= 0.7 else "uncertain")
