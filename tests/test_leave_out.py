"""mma-train leave-out: each corpus is tested by a model that never heard it, nor did its temperature."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mma_trainer.__main__ import train as main
from mma_trainer.commands.leave_out import LeftOut, figures_of
from mma_trainer.evaluation.calibration import cooled, expected_calibration_error, fit_temperature

SMALL = ("--set", "width=16", "--set", "num_heads=2", "--epochs", 1, "--batch-size", 4, "--precision", "fp32")


@pytest.fixture
def leave_out(capsys: pytest.CaptureFixture) -> Callable:
    def run(*options: object) -> tuple[int, str, str]:
        code = main(["leave-out", *map(str, options)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_a_model_is_trained_without_each_corpus_and_no_run_is_done_twice(
    leave_out: Callable, public: Path, tmp_path: Path
) -> None:
    command = ("--data", public, "--run", tmp_path, "--corpora", "nemo", "emovo", *SMALL)
    code, said, _ = leave_out(*command)
    assert code == 0 and "Polish" in said and "Italian" in said
    kept = {name: LeftOut.read(tmp_path / name / "left_out.json") for name in ("nemo", "emovo")}
    assert sorted(kept["nemo"].labels.tolist()) == [0, 1, 2, 3, 4, 6] and kept["emovo"].logits.shape == (7, 7)
    assert (tmp_path / "leave_out.md").read_text().count("|") > 10
    logs = {name: (tmp_path / name / "log.csv").stat().st_mtime_ns for name in kept}
    assert leave_out(*command)[0] == 0
    assert logs == {name: (tmp_path / name / "log.csv").stat().st_mtime_ns for name in kept}
    code, _, error = leave_out(*command, "--seed", 2)
    assert code == 8 and "another seed" in error and error.count("\n") == 1


def test_a_temperature_never_meets_the_corpus_that_it_is_judged_on() -> None:
    rng = np.random.default_rng(0)
    results = []
    for name, scale in (("nemo", 1.0), ("emovo", 4.0), ("ased", 9.0)):
        labels = rng.integers(0, 4, 400)
        logits = rng.normal(size=(400, 7)) + 1.5 * np.eye(7)[labels]
        results.append(LeftOut(name, labels, scale * logits, np.full(400, "ada")))
    rows = figures_of(results)
    others = [np.concatenate([getattr(r, key) for r in results[1:]]) for key in ("logits", "labels")]
    temperature = fit_temperature(*others)
    assert rows[0]["temperature"] == pytest.approx(temperature) and rows[0]["classes"] == 4
    expected = expected_calibration_error(cooled(results[0].logits, temperature), results[0].labels)
    assert rows[0]["ece"] == pytest.approx(expected)
    assert figures_of(results[:1])[0]["ece"] is None


def test_classes_that_the_corpus_lacks_are_told_apart_from_mistakes_among_its_own() -> None:
    logits = np.zeros((4, 7))
    logits[[0, 1, 2, 3], [1, 1, 4, 1]] = 1.0
    logits[1, 5] = 2.0  # a class without clips: taken for it, and right among the two
    (row,) = figures_of([LeftOut("emotiontts", np.array([1, 1, 4, 4]), logits, np.full(4, "ada"))])
    assert row["uar"] == pytest.approx((1 / 2 + 1 / 2) / 2) and row["uar_among"] == pytest.approx((2 / 2 + 1 / 2) / 2)
    assert row["classes"] == 2


def test_what_is_usual_for_a_speaker_is_taken_out() -> None:
    rng = np.random.default_rng(0)
    labels, speakers = np.tile([0, 1, 2, 3], 100), np.repeat(["ada", "bob"], 200)
    logits = rng.normal(size=(400, 7)) + 1.5 * np.eye(7)[labels]
    logits[:, 4:] -= 9
    even = figures_of([LeftOut("emotiontts", labels, logits, speakers)])[0]
    logits[:200, 1] += 2  # Ada sounds sad whatever she says
    logits[200:, 0] += 2  # Bob sounds happy
    leaning = figures_of([LeftOut("emotiontts", labels, logits, speakers)])[0]
    assert leaning["uar"] < even["uar"] - 0.15 and leaning["uar_usual"] > leaning["uar"] + 0.1
    unknown = np.arange(400).astype(str)  # nobody is heard twice
    stranger = figures_of([LeftOut("emotiontts", labels, logits, unknown)])[0]
    assert stranger["uar_usual"] == pytest.approx(leaning["uar"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--corpora", "klingon"), "klingon"),
        (("--corpora", "ravdess"), "ravdess"),
        (("--corpora", "nemo/01"), "nemo/01"),
        (("--dataset", "faces"), "--dataset voices"),
    ],
)
def test_what_cannot_be_left_out_is_one_line(leave_out: Callable, public: Path, options: tuple, expected: str) -> None:
    code, _, error = leave_out("--data", public, *options)
    assert code == 2 and expected in error and error.count("\n") == 1
