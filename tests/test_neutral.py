"""A person at rest is noted, and later answers are relative to that: by a formula, of one model, of one person."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import failure_line

import mma_edge
from mma_benchmarks.accuracy.neutral import relative
from mma_edge.cli import main
from mma_edge.errors import DataError, SourceError, UsageError
from mma_edge.live import measure_neutral
from mma_edge.pipeline.neutral import MARGINS, SHARES, NeutralMeter, NeutralReference, Referred, centred, identity
from mma_edge.predictor import softmax
from mma_edge.types import Clip, Emotion
from mma_trainer.evaluation.predict import Answers

LABELS = ("happy", "sad", "neutral")
AT_REST = np.array([1.0, 0.5, -1.5])


def reference(*kinds: str) -> NeutralReference:
    return NeutralReference("abc", LABELS, dict.fromkeys(kinds, AT_REST), dict.fromkeys(kinds, 5), {"bundle": "toy"})


def answer(modalities: tuple[str, ...], probabilities: np.ndarray) -> Emotion:
    return Emotion(0.0, 4.0, 1, None, modalities, LABELS, probabilities, 30.0)


class Stub:
    """Says of a face alone, a voice alone and both what the test wants; counts calls."""

    labels, image_size, max_batch = LABELS, 8, None

    def __init__(self) -> None:
        self.asked: list[str] = []

    def predict(self, frames: np.ndarray | None = None, mel: np.ndarray | None = None) -> np.ndarray:
        kind = "both" if frames is not None and mel is not None else "audio" if frames is None else "video"
        self.asked.append(kind)
        rows = {"both": [0.5, 0.3, 0.2], "video": [0.6, 0.2, 0.2], "audio": [0.1, 0.8, 0.1]}
        return np.tile(np.array(rows[kind], np.float32), (len(mel if frames is None else frames), 1))

    def emotions(self, clips: list[Clip], probabilities: np.ndarray) -> list[Emotion]:
        return [answer(("video",), row) for row in probabilities]


def clip(end_s: float, track: int | None = 1, face: bool = True, voice: bool = True) -> Clip:
    frames = np.zeros((16, 8, 8, 3), np.uint8) if face else None
    mel = np.zeros((512, 128), np.float32) if voice else None
    return Clip(end_s - 4, end_s, track, None, frames, mel, 0.0)


@pytest.mark.parametrize("kind", ["both", "video", "audio"])
def test_a_share_of_what_a_neutral_person_looks_like_is_taken_out(kind: str) -> None:
    given = softmax(np.array([[2.0, 0.1, 0.0], [0.0, 3.0, 0.5]], np.float32))
    moved = reference(kind).probabilities(given, kind)
    wanted = np.log(given) - SHARES[kind] * AT_REST + np.array([0, 0, MARGINS[kind]])
    np.testing.assert_allclose(moved, softmax(wanted), atol=1e-6)
    assert moved.dtype == np.float32 and moved.sum(axis=1) == pytest.approx([1, 1])
    # Twice in a row gives the same: the reference itself is not moved.
    np.testing.assert_array_equal(reference(kind).probabilities(given, kind), moved)


def test_a_kind_that_it_does_not_have_stays_as_it_is_and_is_said_once() -> None:
    said: list[str] = []
    referred = Referred(reference("video"), said.append)
    rows = [np.array([0.5, 0.3, 0.2], np.float32)] * 3
    given = [answer(("video",), rows[0]), answer(("video", "audio"), rows[1]), answer(("video", "audio"), rows[2])]
    face, *both = referred(given)
    assert face.probabilities[0] < 0.5 and all(row.probabilities is rows[0] for row in both)
    assert said == ["the neutral reference was made without face and voice together: such answers are as without it"]


def test_the_meter_asks_what_either_alone_would_look_like() -> None:
    stub = Stub()
    meter = NeutralMeter(stub)
    for number in range(4):
        (shown,) = meter.predict_clips([clip(float(number))])
        assert shown.probabilities[0] == pytest.approx(0.5)  # the view shows what both together say
    meter.predict_clips([clip(4.0, None, face=False)])
    assert stub.asked == ["both", "video", "audio"] * 4 + ["audio"]
    assert meter.clips == {"both": 4, "video": 4, "audio": 5}


def test_one_person_and_enough_of_them_is_needed() -> None:
    meter = NeutralMeter(Stub())
    with pytest.raises(SourceError, match=r"two faces at the same time.*one person"):
        meter.predict_clips([clip(1.0, 1), clip(1.0, 2)])
    meter.predict_clips([clip(1.0, 1), clip(1.5, 2)])  # the same person, found again
    meter._predictor.bundle = mma_edge.load(None, "cpu", "fp32").bundle
    with pytest.raises(SourceError, match=r"2 clips with a face or a voice.*at least 3"):
        meter.reference()
    meter.predict_clips([clip(2.0, 2, voice=False)])
    found = meter.reference(source="me")
    assert found.clips == {"video": 3} and set(found.neutral) == {"video"}  # too few of the others
    np.testing.assert_allclose(found.neutral["video"], centred(np.array([[0.6, 0.2, 0.2]]))[0], atol=1e-6)


def test_a_model_without_a_neutral_class_has_no_reference() -> None:
    stub = Stub()
    stub.labels = ("calm", "angry", "sad")
    with pytest.raises(UsageError, match=r"calm, angry, sad.*a class neutral"):
        NeutralMeter(stub)


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "ada.json"
    reference("both", "audio").write(path)
    found = NeutralReference.read(path)
    assert (found.model, found.labels, found.clips) == ("abc", LABELS, {"both": 5, "audio": 5})
    assert found.about == {"bundle": "toy"}
    np.testing.assert_array_equal(found.neutral["both"], AT_REST)


def spoil(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def spoiled(path: Path) -> None:
        reference("both").write(path)
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return spoiled


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "directory"),
        (lambda path: path.write_text("happy"), "cannot be used"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), "cannot be used"),
        (lambda path: path.write_text("[" * 100_000), "cannot be used"),
        (lambda path: path.write_text('{"format": "other"}'), "it is none"),
        (spoil(lambda content: content.update(version=2)), "version 2, not 1"),
        (spoil(lambda content: content.pop("clips")), "clips"),
        (spoil(lambda content: content.update(labels=["happy", "sad", "angry"])), "odd"),
        (spoil(lambda content: content.update(neutral={})), "odd"),
        (spoil(lambda content: content.update(neutral={"smell": [0, 0, 0]})), "odd"),
        (spoil(lambda content: content.update(neutral={"both": [0, 0]})), "do not fit"),
        (spoil(lambda content: content.update(neutral={"both": [0, 0, float("nan")]})), "do not fit"),
        (spoil(lambda content: content.update(neutral=[1, 2])), "cannot be used"),
        (spoil(lambda content: content.update(labels=None)), "cannot be used"),
    ],
)
def test_a_file_that_is_none_is_one_line(
    make: Callable[[Path], object], words: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "ada.json"
    make(path)
    assert main(["run", "sample", "--neutral", str(path)]) == 2
    line = failure_line(capsys)
    assert words in line and "mma-edge neutral" in line


def test_another_model_is_refused(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "ada.json"
    reference("both").write(path)
    assert main(["run", "sample", "--backend", "cpu", "--neutral", str(path), "--bundle", str(tiny_bundle)]) == 2
    assert "another model (toy)" in failure_line(capsys)
    with pytest.raises(UsageError, match="another model"):
        list(mma_edge.load(None, "cpu", "fp32").stream("sample", neutral=path))


def test_other_precisions_of_a_model_share_its_references(edit_manifest: Callable) -> None:
    recognizer = mma_edge.load(None, "cpu", "fp32")
    other = edit_manifest(lambda manifest: manifest["precisions"].clear())
    from mma_edge.bundle import Bundle

    before = json.loads((other / "manifest.json").read_text())
    assert identity(Bundle(other, before)) == identity(Bundle(other, {**before, "precisions": {"int8": {}}}))
    assert identity(Bundle(other, before)) != identity(recognizer.bundle)
    assert identity(Bundle(other, {**before, "temperature": 3.0})) != identity(Bundle(other, before))


def test_a_film_of_the_sample_gives_a_reference_and_a_run_uses_it(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path, plain, moved = tmp_path / "ada.json", tmp_path / "plain.jsonl", tmp_path / "moved.jsonl"
    cpu = ("--backend", "cpu", "--precision", "fp32")
    assert main(["neutral", "sample", "--output", str(path), *cpu]) == 0
    assert "clips with the face" in capsys.readouterr().out.replace("\n", " ")
    assert main(["neutral", "sample", "--output", str(path), *cpu]) == 7  # it is there already
    assert "--overwrite" in failure_line(capsys)
    assert main(["run", "sample", "--quiet", "--output", str(plain), *cpu]) == 0
    assert main(["run", "sample", "--quiet", "--output", str(moved), "--neutral", str(path), *cpu]) == 0
    found = NeutralReference.read(path)
    assert found.about["source"] == "sample" and found.about["seconds"] == pytest.approx(7.8, abs=0.5)
    pairs = zip(mma_edge.records(plain), mma_edge.records(moved), strict=True)
    for before, after in pairs:
        kind = "both" if "+" in before["modalities"] else before["modalities"]
        given = np.array([before[f"p_{label}"] for label in found.labels], np.float32)
        wanted = found.probabilities(given, kind)
        np.testing.assert_allclose([after[f"p_{label}"] for label in found.labels], wanted, atol=2e-5)
        assert after["label"] == found.labels[int(wanted.argmax())]  # named after it is moved
    recognizer = mma_edge.load(None, "cpu", "fp32")
    first = next(iter(recognizer.stream("sample", neutral=recognizer.neutral("sample", seconds=4))))
    assert first.probabilities.sum() == pytest.approx(1)


def test_only_the_seconds_that_were_asked_for_are_watched() -> None:
    recognizer = mma_edge.load(None, "cpu", "fp32")
    assert measure_neutral(recognizer, "sample", 3.0).clips["video"] == 6


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["sample", "--output", "ada.txt"], 2, "ends in .json"),
        (["sample", "--output", "no/ada.json"], 7, "there is no folder no"),
        (["sample", "--output", "ada.json", "--seconds", "1"], 2, "3 to 600"),
        (["sample", "--output", "ada.json", "--seconds", "nan"], 2, "3 to 600"),
        (["nowhere.mp4", "--output", "ada.json"], 3, "nowhere.mp4"),
        (["sample", "--no-audio", "--output", "ada.json", "--size", "big"], 2, "width and height"),
    ],
)
def test_bad_input_is_one_line(
    argv: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["neutral", *argv]) == code
    assert words in failure_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_two_people_in_a_film_are_refused(shared_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    film = shared_dir / "data" / "clips" / "two_faces.mp4"
    if not film.is_file():
        pytest.skip(f"{film} is not there")
    assert main(["neutral", str(film), "--backend", "cpu", "--output", str(tmp_path / "ada.json")]) == 3
    assert "two faces at the same time" in failure_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_annotate_does_not_take_it_with_records(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "ada.json"
    reference("both").write(path)
    assert main(["annotate", "sample", "--records", "talk.jsonl", "--neutral", str(path)]) == 2
    assert "--neutral with --records" in failure_line(capsys)


def test_the_bench_leaves_the_known_clips_out_and_moves_the_others() -> None:
    labels = np.array([2, 2, 2, 0, 1, 2, 2, 2, 0, 1])
    people = np.array(["ada"] * 5 + ["bob"] * 5)
    # Ada looks happy to the model whatever she feels, Bob is as he should be.
    logits = np.tile([0.0, 0.0, 1.0], (10, 1))
    logits[[3, 8], 0], logits[[4, 9], 1] = 1.8, (1.3, 1.8)
    logits[:5, 0] += 1.5
    given = Answers(labels, softmax(logits.astype(np.float32)), np.ones(10, int), 0.1)
    before, after = relative(given, people, LABELS, 2)
    assert before[0] == "without 2 neutral clips of each person" and after[0].startswith("relative to 2")
    assert before[1].labels.tolist() == after[1].labels.tolist() == [2, 0, 1, 2, 0, 1]
    right = [part.probabilities.argmax(axis=1) == part.labels for _, part in (before, after)]
    assert [part.tolist() for part in right] == [[False, True, False, *[True] * 3], [False, *[True] * 5]]
    with pytest.raises(DataError, match=r"ada has 3 neutral clips.*at least 4"):
        relative(given, people, LABELS, 4)


def test_a_session_keeps_the_reference_that_its_answers_are_relative_to(tmp_path: Path) -> None:
    path, folder, cpu = tmp_path / "ada.json", tmp_path / "monday", ("--backend", "cpu", "--precision", "fp32")
    recognizer = mma_edge.load(None, "cpu", "fp32")
    found = NeutralReference(
        identity(recognizer.bundle), recognizer.labels, {"both": np.arange(7) - 3.0}, {"both": 3}, {"source": "me"}
    )
    found.write(path)
    argv = ["run", "sample", "--quiet", "--no-video", "--session", str(folder), "--neutral", str(path)]
    assert main([*argv, *cpu]) == 0
    kept = json.loads((folder / "manifest.json").read_text())["options"]["neutral"]
    assert kept == json.loads(path.read_text()) and kept["neutral"]["both"][0] == -3.0
