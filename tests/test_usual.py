"""What is usual for a person is learnt while running, and part of it taken out: by a formula, for each face alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import failure_line

import mma_edge
from mma_benchmarks.accuracy.neutral import relative_to_usual
from mma_edge.cli import main
from mma_edge.dashboard.state import about
from mma_edge.errors import UsageError
from mma_edge.pipeline import StreamOptions
from mma_edge.pipeline.neutral import centred
from mma_edge.pipeline.usual import (
    HALF_KNOWN_S,
    HANDED_ON_S,
    MARGIN,
    MOST_FACES,
    REMEMBERED_S,
    SHARES,
    Mean,
    Usual,
    relative_in_turn,
)
from mma_edge.types import Emotion
from mma_trainer.evaluation.predict import Answers

LABELS = ("happy", "sad", "neutral")


def softmax(logits: object) -> np.ndarray:
    """Probabilities float32 of logits (C,) or (N, C)."""
    odds = np.exp(np.asarray(logits, np.float64))
    return (odds / odds.sum(axis=-1, keepdims=True)).astype(np.float32)


SAD_FACE = softmax([0.2, 1.5, 0.1])


def answer(end_s: float, probabilities: np.ndarray = SAD_FACE, track: int | None = 1, length_s: float = 4.0) -> Emotion:
    modalities = ("audio",) if track is None else ("video",)
    return Emotion(end_s - length_s, end_s, track, None, modalities, LABELS, probabilities, 30.0)


def after(probabilities: np.ndarray, mean: np.ndarray, seconds: float) -> np.ndarray:
    """The formula, once more."""
    known = seconds / (seconds + HALF_KNOWN_S)
    return softmax(np.log(probabilities) - known * (SHARES["video"] * mean - MARGIN * np.array([0, 0, 1])))


def test_the_first_answer_is_as_it_is_and_later_ones_are_relative_to_those_before_them() -> None:
    rng = np.random.default_rng(0)
    given = softmax(rng.normal(size=(5, 3)))
    ends = [4.0, 4.5, 5.0, 9.0, 30.0]  # the new seconds in them: 4, 0.5, 0.5, 4, 4
    moved = list(Usual(LABELS)(map(answer, ends, given)))
    np.testing.assert_allclose(moved[0].probabilities, given[0], atol=1e-6)
    new = np.array([4, 0.5, 0.5, 4, 4])
    logs = centred(given)
    for n in range(1, 5):
        mean = np.average(logs[:n], axis=0, weights=new[:n])
        np.testing.assert_allclose(moved[n].probabilities, after(given[n], mean, new[:n].sum()), atol=1e-6)
    assert moved[-1].probabilities.dtype == np.float32


def test_a_face_that_always_looks_sad_is_called_neutral_in_the_end_and_one_that_changes_is_not() -> None:
    labels = [emotion.label for emotion in Usual(LABELS)(answer(4 + 0.5 * n) for n in range(700))]
    assert labels[0] == "sad" and labels[-1] == "neutral"
    smile = softmax([2.5, 0.5, 0.1])
    faces = [SAD_FACE if n % 4 else smile for n in range(400)]
    labels = [emotion.label for emotion in Usual(LABELS)(answer(4.0 * n, face) for n, face in enumerate(faces))]
    assert set(labels[200::4]) == {"happy"}


def test_every_face_and_the_voice_alone_have_a_mean_of_their_own() -> None:
    happy = softmax([3.0, 0.0, 0.0])
    both = [answer(4.0 * n, face, track) for n in range(1, 60) for track, face in ((1, SAD_FACE), (2, happy))]
    alone = [emotion for emotion in both if emotion.track_id == 1]
    together = [emotion for emotion in Usual(LABELS)(both) if emotion.track_id == 1]
    for one, other in zip(Usual(LABELS)(alone), together, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)
    usual = Usual(LABELS)
    list(usual(alone))
    (voice,) = usual([answer(300.0, happy, None)])
    np.testing.assert_allclose(voice.probabilities, happy, atol=1e-6)  # no voice was heard before


def test_a_face_found_again_begins_with_what_its_source_is_like() -> None:
    usual = Usual(LABELS)
    list(usual(answer(4.0 * n) for n in range(1, 50)))
    (again,) = usual([answer(400.0, track=2)])
    wanted = after(SAD_FACE, centred(SAD_FACE[None])[0], HANDED_ON_S)
    np.testing.assert_allclose(again.probabilities, wanted, atol=1e-6)


def test_a_mean_forgets() -> None:
    mean = Mean(np.zeros(3))
    for value in (1.0, -1.0):
        for _ in range(int(REMEMBERED_S)):
            mean.add(np.full(3, value), 1.0)
    assert mean.seconds == REMEMBERED_S
    assert mean.value[0] == pytest.approx(-1 + 2 / np.e, abs=0.01)
    mean.add(np.full(3, 5.0), 2 * REMEMBERED_S)
    assert mean.value[0] == 5.0


def test_thousands_of_faces_are_not_kept() -> None:
    usual = Usual(LABELS)
    passers = [answer(float(n), track=n) for n in range(3 * MOST_FACES)]
    regular = [answer(n + 0.5, track=10**6) for n in range(3 * MOST_FACES)]
    list(usual(each for pair in zip(passers, regular, strict=True) for each in pair))
    assert len(usual._faces) == MOST_FACES
    assert usual._faces["video", 10**6].mean.seconds > 100  # seen all the time, so it stayed


def test_times_that_begin_anew_add_nothing_and_do_not_stop_it() -> None:
    usual = Usual(LABELS)
    list(usual([answer(100.0), answer(4.0), answer(5.0)]))
    assert usual._faces["video", 1].mean.seconds == pytest.approx(5.0)


def test_a_model_without_a_neutral_class_is_refused() -> None:
    with pytest.raises(UsageError, match=r"calm, angry.*a class neutral"):
        Usual(("calm", "angry"))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--neutral", "auto", "--whole"], "--neutral auto with --whole"),
        (["--neutral", "Auto"], "a file of mma-edge neutral, or auto"),
    ],
)
def test_bad_input_is_one_line(argv: list[str], words: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["run", "sample", "--backend", "cpu", *argv]) == 2
    assert words in failure_line(capsys)


def test_a_stream_option_is_a_reference_or_auto() -> None:
    with pytest.raises(UsageError, match=r"'ada.json'.*'auto'"):
        StreamOptions(neutral="ada.json")


def test_a_run_says_so_and_its_session_too(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    cpu = ("--backend", "cpu", "--precision", "fp32")
    plain, moved, folder = tmp_path / "plain.jsonl", tmp_path / "moved.jsonl", tmp_path / "monday"
    assert main(["run", "sample", "--quiet", "--output", str(plain), *cpu]) == 0
    session = ("--no-video", "--session", str(folder))
    assert main(["run", "sample", "--quiet", "--output", str(moved), *session, "--neutral", "auto", *cpu]) == 0
    assert json.loads((folder / "manifest.json").read_text())["options"]["neutral"] == "auto"
    before, after = (list(mma_edge.records(path)) for path in (plain, moved))
    names = [name for name in before[0] if name.startswith("p_")]
    apart = [max(abs(a[name] - b[name]) for name in names) for a, b in zip(before, after, strict=True)]
    assert apart[0] < 2e-5 and apart[-1] > 0.01
    recognizer = mma_edge.load(None, "cpu", "fp32")
    streamed = list(recognizer.stream("sample", neutral="auto"))
    np.testing.assert_allclose(streamed[-1].probabilities, [after[-1][name] for name in names], atol=2e-5)
    told = about(recognizer, StreamOptions(neutral="auto"), camera=False)
    assert told["neutral"] == "relative to what is usual for each person"


def test_the_bench_takes_the_leaning_of_each_person_out() -> None:
    rng = np.random.default_rng(1)
    labels = np.tile([0, 1, 2], 40)
    people = np.repeat(["ada", "bob"], 60)
    logits = 1.5 * np.eye(3)[labels] + 0.3 * rng.normal(size=(120, 3))
    logits += np.where(people[:, None] == "ada", [2.0, 0, 0], [0, 2.0, 0])
    given = Answers(labels, softmax(logits), np.ones(120, int), 0.1)
    said, answers = relative_to_usual(given, people, LABELS)
    right = [float((each.probabilities.argmax(axis=1) == labels).mean()) for each in (given, answers)]
    assert said == "relative to what is usual for each"
    assert right[0] < 0.75 and right[1] > right[0] + 0.1
    np.testing.assert_array_equal(answers.labels, labels)
    first = relative_in_turn(given.probabilities, people, "video", 2)
    np.testing.assert_array_equal(first, answers.probabilities)
