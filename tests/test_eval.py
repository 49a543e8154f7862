"""mma-eval: the same clips give the same figures on a checkpoint and on its bundle, and absent data is said."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SEVEN, export, failure_line, make_model, one_line
from whole_lists import clips_of

from mma_edge.errors import DataError
from mma_trainer.commands.evaluate import main
from mma_trainer.data.entries import load_clips
from mma_trainer.evaluation.predict import answers_of, bundle_predictor
from mma_trainer.evaluation.robustness import spoiled
from mma_trainer.evaluation.sets.clips import EvalSet
from mma_trainer.evaluation.sets.lists import open_list
from mma_trainer.evaluation.sets.public import faces_set, open_set, pseudo_set, voices_set
from mma_trainer.labels import DFEW_LABELS
from mma_trainer.model.inputs import ContractModel
from mma_trainer.weights.checkpoint import Checkpoint, save_checkpoint
from mma_trainer.weights.predictor import checkpoint_predictor


def varied(index: int) -> tuple[np.ndarray, np.ndarray]:
    """frames and log-mel of a clip whose brightness and loudness are its own."""
    rng = np.random.default_rng(index)
    frames = rng.integers(0, 1 + 255 * rng.random(), (16, 16, 16, 3), dtype=np.uint8)
    return frames, (rng.standard_normal((512, 128)) * 8 * rng.random() - 16 * rng.random()).astype(np.float32)


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Checkpoint and bundle of one tiny model with DFEW's classes."""
    folder = tmp_path_factory.mktemp("seven")
    model = make_model(SEVEN, seed=3)
    # A random model gives all clips nearly the same answer; this one tells them apart.
    with torch.no_grad():
        frames, mel = (torch.from_numpy(np.stack(part)) for part in zip(*map(varied, range(12)), strict=True))
        model.classifier.bias -= ContractModel(model)(frames, mel).mean(dim=0)
        model.classifier.weight *= 10
        model.classifier.bias *= 10
    checkpoint = Checkpoint(SEVEN, model.state_dict())
    save_checkpoint(folder / "model.pt", checkpoint)
    export(checkpoint, folder / "bundle")
    return folder / "model.pt", folder / "bundle"


def test_checkpoint_and_bundle_agree_on_every_set(seven: tuple[Path, Path], public: Path) -> None:
    predict, labels, size, _ = checkpoint_predictor(seven[0])
    predict_bundle, bundle_labels, bundle_size, _ = bundle_predictor(seven[1])
    assert (labels, size) == (bundle_labels, bundle_size) == (DFEW_LABELS, 16)
    for name, available in (("faces", 1), ("voices", 2), ("pseudo", 0)):
        clips = open_set(name, public, size)
        a, b = answers_of(predict, clips, 7), answers_of(predict_bundle, clips, 7, batch=3)
        assert len(a.probabilities) == len(clips.labels) > 0
        np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-4)
        assert set(a.available) == set(b.available) == {available}
        np.testing.assert_array_equal(a.metrics.confusion, b.metrics.confusion)
        assert (a.metrics.uar, a.metrics.war) == (b.metrics.uar, b.metrics.war)
        assert a.metrics.loss == pytest.approx(b.metrics.loss, abs=1e-4)
        assert answers_of(predict, clips, 7).metrics.loss == a.metrics.loss


def test_they_agree_on_clips_that_are_answered_differently(seven: tuple[Path, Path]) -> None:
    def load(index: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        frames, mel = varied(index)
        return (None if index % 3 == 1 else frames), (None if index % 3 == 2 else mel)

    clips = EvalSet("varied", "", np.arange(30) % 7, load)
    a, b = (
        answers_of(model.predict, clips, 7) for model in (checkpoint_predictor(seven[0]), bundle_predictor(seven[1]))
    )
    assert len(set(a.probabilities.argmax(axis=1))) > 1 and np.ptp(a.probabilities, axis=0).max() > 0.1
    np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-4)
    np.testing.assert_array_equal(a.metrics.confusion, b.metrics.confusion)
    # In a batch where others have it, a missing modality is zeros, and still known as missing.
    assert a.available.tolist() == b.available.tolist() == [0, 2, 1] * 10


def test_the_command_prints_figures_and_draws_the_matrix(
    seven: tuple[Path, Path], public: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([str(seven[1]), "--data", str(public), "--set", "faces", "voices", "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"UAR 0\.\d{4}  WAR 0\.\d{4}", out)) == 2
    assert {path.name for path in tmp_path.iterdir()} == {
        "report.html",
        "metrics.json",
        "confusion_faces.png",
        "confusion_voices.png",
    }
    assert main([str(seven[0]), "--data", str(public), "--set", "faces", "--limit", "5"]) == 0
    assert "on 5 clips" in capsys.readouterr().out


def test_an_annotation_list_is_evaluated_with_every_clip_once(
    seven: tuple[Path, Path], dfew: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = [str(seven[0]), "--val-list", str(dfew / "test.txt"), "--frames-root", str(dfew)]
    assert main(arguments) == 0
    assert "3 clips, 2 of them without a wav" in capsys.readouterr().out


def test_two_clips_of_a_video_are_two_answers_and_their_mean(
    seven: tuple[Path, Path], dfew: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    lists = ["--val-list", str(dfew / "test.txt"), "--frames-root", str(dfew), "--skip-bad"]
    found = {}
    for clips in (1, 2):
        assert main([str(seven[0]), *lists, "--clips", str(clips), "--output", str(tmp_path / str(clips))]) == 0
        (found[clips],) = json.loads((tmp_path / str(clips) / "metrics.json").read_text())["sets"]
        assert found[clips]["clips_per_item"] == clips and found[clips]["num_clips"] == 3
    assert "mean of 2 clips each" in capsys.readouterr().out
    entries = clips_of(dfew / "test.txt", dfew, None, 7)
    predict = checkpoint_predictor(seven[0]).predict
    for clips, entry in found.items():
        answers = [predict(*load_clips(entries[index], 16, clips)).mean(axis=0) for index in range(3)]
        right = [answer[entry_.label] for answer, entry_ in zip(answers, entries, strict=True)]
        assert entry["loss"] == pytest.approx(-np.log(right).mean(), rel=1e-4)
    assert found[1]["loss"] != found[2]["loss"]


def test_a_list_is_spoiled_frame_by_frame(seven: tuple[Path, Path], dfew: Path, tmp_path: Path) -> None:
    lists = ["--val-list", str(dfew / "test.txt"), "--frames-root", str(dfew), "--skip-bad"]
    assert main([str(seven[1]), *lists, "--robustness", "--output", str(tmp_path)]) == 0
    (entry,) = json.loads((tmp_path / "metrics.json").read_text())["sets"]
    conditions = {row["condition"] for row in entry["robustness"]}
    assert {"clean", "75% of frames dropped", "audio -200 ms", "white noise, SNR 0 dB"} <= conditions
    clips = open_list(dfew / "test.txt", dfew, None, DFEW_LABELS, 16, skip_bad=True)
    frames, mel = clips.load(2)
    spoilt = {condition.name: subset for condition, subset in spoiled(clips)}
    assert len({frame.tobytes() for frame in frames}) == 16  # 20 frames, each another grey
    assert len({frame.tobytes() for frame in spoilt["75% of frames dropped"].load(2)[0]}) == 4
    np.testing.assert_array_equal(spoilt["75% of frames dropped"].load(2)[1], mel)
    assert spoilt["white noise, SNR 0 dB"].load(0)[1] is None  # clip 10 has no wav


def test_sets_lack_exactly_the_modality_they_lack(public: Path) -> None:
    frames, mel = faces_set(public, 48).load(0)
    assert mel is None and frames.shape == (16, 48, 48, 3)
    frames, mel = voices_set(public).load(0)
    assert frames is None and mel.shape == (512, 128)
    both = pseudo_set(public, 48)
    assert both.without("video").load(0)[0] is None and both.without("audio").load(0)[1] is None
    assert both.load(0)[0] is not None and both.load(0)[1] is not None


def test_the_runtime_shows_a_still_as_it_is(public: Path) -> None:
    frames, _ = faces_set(public, 48).load(3)
    with np.load(public / "ferplus_val.npz") as file:
        for frame in frames:
            for channel in range(3):
                np.testing.assert_array_equal(frame[:, :, channel], file["images"][3])


def test_a_class_that_the_model_lacks_is_refused() -> None:
    clips = EvalSet("made-up", "", np.array([0, 9]), lambda index: (None, np.zeros((512, 128), np.float32)))
    with pytest.raises(DataError) as caught:
        answers_of(lambda frames, mel: np.zeros((len(mel), 7)), clips, 7)
    assert "class 9" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        ([], 2, "nothing to evaluate on"),
        (["--set", "faces"], 2, "--data"),
        (["no/model.pt", "--data", "{public}", "--set", "faces"], 2, "no/model.pt"),
        (["--data", "no/where", "--set", "faces"], 9, "ferplus_val.npz"),
        (["--data", "{public}", "--set", "faces", "--limit", "0"], 2, "--limit"),
        (["--val-list", "no/list.txt"], 9, "no/list.txt"),
        (["--val-list", "no/list.txt", "--clips", "2", "--robustness"], 2, "--clips 1"),
        (["--data", "{public}", "--set", "faces", "--clips", "2"], 2, "--val-list alone"),
        (["--data", "{public}", "--set", "faces", "--abstain-at", "90"], 2, "from 0 to 1"),
        (["--data", "{public}", "--set", "faces", "--precision", "int4"], 6, "no precision int4"),
    ],
)
def test_bad_input_is_one_line_and_its_exit_code(
    arguments: list[str],
    exit_code: int,
    says: str,
    seven: tuple[Path, Path],
    public: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    filled = [text.format(public=public) for text in arguments]
    model = [] if any("no/model" in text for text in filled) else [str(seven[1])]
    assert main([*model, *filled]) == exit_code
    assert says in failure_line(capsys)


def test_a_picture_that_cannot_be_written_is_said(
    seven: tuple[Path, Path], public: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    arguments = ["--data", str(public), "--set", "faces", "--limit", "2", "--output", str(tmp_path / "file")]
    assert main([str(seven[1]), *arguments]) == 7
    assert one_line(Exception(capsys.readouterr().err.strip())).startswith("error: cannot write")
