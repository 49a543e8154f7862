"""mma-eval: the same clips give the same figures on a checkpoint and on its bundle, and absent data is said."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, make_model, one_line

from mma_edge.errors import DataError
from mma_export.write import UNSTATED, write_bundle
from mma_trainer.checkpoint import Checkpoint, save_checkpoint
from mma_trainer.data.evalsets import EvalSet, faces_set, open_set, pseudo_set, voices_set
from mma_trainer.eval_cli import main
from mma_trainer.evaluate import bundle_predictor, checkpoint_predictor, evaluate
from mma_trainer.labels import DFEW_LABELS

SEVEN = TINY.replace(labels=DFEW_LABELS)


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Checkpoint and bundle of one tiny model with DFEW's classes."""
    folder = tmp_path_factory.mktemp("seven")
    checkpoint = Checkpoint(SEVEN, make_model(SEVEN, seed=3).state_dict())
    save_checkpoint(folder / "model.pt", checkpoint)
    write_bundle(checkpoint, Path("x"), "seven", folder / "bundle", "fp32", UNSTATED, report=lambda text: None)
    return folder / "model.pt", folder / "bundle"


def test_checkpoint_and_bundle_agree_on_every_set(seven: tuple[Path, Path], public: Path) -> None:
    predict, labels, size = checkpoint_predictor(seven[0])
    predict_bundle, bundle_labels, bundle_size = bundle_predictor(seven[1])
    assert (labels, size) == (bundle_labels, bundle_size) == (DFEW_LABELS, 16)
    for name in ("faces", "voices", "pseudo"):
        clips = open_set(name, public, size)
        a, b = evaluate(predict, clips, 7), evaluate(predict_bundle, clips, 7)
        assert a.num_clips == len(clips.labels) > 0
        np.testing.assert_array_equal(a.confusion, b.confusion)
        assert a.loss == pytest.approx(b.loss, abs=1e-4)


def test_the_command_prints_figures_and_draws_the_matrix(
    seven: tuple[Path, Path], public: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([str(seven[1]), "--data", str(public), "--set", "faces", "voices", "--output", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert len(re.findall(r"UAR 0\.\d{4}  WAR 0\.\d{4}", out)) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"confusion_faces.png", "confusion_voices.png"}
    assert main([str(seven[0]), "--data", str(public), "--set", "faces", "--limit", "5"]) == 0
    assert "on 5 clips" in capsys.readouterr().out


def test_an_annotation_list_is_evaluated_with_every_clip_once(
    seven: tuple[Path, Path], dfew: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = [str(seven[0]), "--val-list", str(dfew / "test.txt"), "--frames-root", str(dfew)]
    assert main(arguments) == 0
    assert "3 clips, 2 of them without a wav" in capsys.readouterr().out


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
    with np.load(public / "fer2013_val.npz") as file:
        for frame in frames:
            for channel in range(3):
                np.testing.assert_array_equal(frame[:, :, channel], file["images"][3])


def test_a_class_that_the_model_lacks_is_refused() -> None:
    clips = EvalSet("made-up", "", np.array([0, 9]), lambda index: (None, np.zeros((512, 128), np.float32)))
    with pytest.raises(DataError) as caught:
        evaluate(lambda frames, mel: np.zeros((len(mel), 7)), clips, 7)
    assert "class 9" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        ([], 2, "nothing to evaluate on"),
        (["--set", "faces"], 2, "--data"),
        (["no/model.pt", "--data", "{public}", "--set", "faces"], 2, "no/model.pt"),
        (["--data", "no/where", "--set", "faces"], 9, "fer2013_val.npz"),
        (["--data", "{public}", "--set", "faces", "--limit", "0"], 2, "--limit"),
        (["--val-list", "no/list.txt"], 9, "no/list.txt"),
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
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and "Traceback" not in error


def test_a_picture_that_cannot_be_written_is_said(
    seven: tuple[Path, Path], public: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    arguments = ["--data", str(public), "--set", "faces", "--limit", "2", "--output", str(tmp_path / "file")]
    assert main([str(seven[1]), *arguments]) == 7
    assert one_line(Exception(capsys.readouterr().err.strip())).startswith("error: cannot write")
