"""--init starts from a whole model: with other classes or at another face size if asked, and never as another model
than was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, make_model, one_line
from torch import nn

from mma_edge.errors import CheckpointError, UsageError
from mma_trainer.architectures import ARCHITECTURES, Architecture
from mma_trainer.commands import model_options as cli_model
from mma_trainer.commands import train as cli
from mma_trainer.model import MMADFERConfig
from mma_trainer.training.pretrain import EncoderClassifier
from mma_trainer.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mma_trainer.weights.start import ASSETS, DEFAULT_CHECKPOINT, DEFAULT_TERMS, read_start

FILE = TINY.replace(fusion="add", image_size=32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "model.pt"
    save_checkpoint(path, Checkpoint(FILE, make_model(FILE).state_dict(), {"dataset": "here"}))
    return path


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "nano", Architecture("nano", vars(TINY)))


def start(*argv: object) -> tuple[nn.Module, MMADFERConfig, dict]:
    args = cli.build_parser().parse_args([str(word) for word in argv])
    return cli_model.make_model(args, cli_model.make_config(args))


def test_without_other_options_the_files_own_model_is_taken(trained: Path) -> None:
    model, config, origin = start("--init", trained)
    assert config == model.model.config == FILE and origin == {"init": {"dataset": "here"}}
    # What is asked for and already so is no contradiction.
    assert start("--init", trained, "--set", "fusion=add", "--image-size", 32, "--labels", "happy,sad,angry")[1] == FILE


def test_another_face_size_resizes_the_patches_positions_and_keeps_all_else(trained: Path) -> None:
    model, config, _ = start("--init", trained, "--image-size", 16, "--set", "drop_path=0.3")
    assert config == FILE.replace(image_size=16, drop_path=0.3) == model.model.config
    before, after = load_checkpoint(trained).state_dict(), model.model.state_dict()
    key = "image_encoder.pos_embed"
    assert all(torch.equal(after[name], before[name]) for name in before if name != key)
    old, new = before[key], after[key]
    assert new.shape[1] == 1 + 4 + 6
    assert torch.equal(new[:, 0], old[:, 0]) and torch.equal(new[:, 5:], old[:, 17:])
    picture = old[:, 1:17].transpose(1, 2).reshape(1, 32, 4, 4)
    expected = F.interpolate(picture, (2, 2), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
    torch.testing.assert_close(new[:, 1:5], expected, rtol=0, atol=0)
    logits = model.eval()(torch.zeros(1, 16, 16, 16, 3, dtype=torch.uint8), torch.zeros(1, 512, 128))
    assert torch.isfinite(logits).all()


def test_any_set_and_order_of_classes_keeps_all_but_the_classifier_and_its_rows_of_the_same_name(trained: Path) -> None:
    model, config, origin = start("--init", trained, "--labels", "bored,Anger,happy,tense")
    assert config.labels == ("bored", "Anger", "happy", "tense") and model.model.config == config
    assert origin == {"init": {"dataset": "here"}, "new_classes": ["bored", "tense"]}
    before, after = load_checkpoint(trained).state_dict(), model.model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before if not key.startswith("classifier."))
    for key in ("classifier.weight", "classifier.bias"):
        assert torch.equal(after[key][[1, 2]], before[key][[2, 0]])  # happy, sad, angry in the file
        assert len(after[key]) == 4 and after[key].isfinite().all()


def test_a_run_that_was_not_finished_starts_a_model_of_other_classes_too(tmp_path: Path) -> None:
    state = {f"model.{key}": value for key, value in make_model(TINY).state_dict().items()}
    save_checkpoint(tmp_path / "last.pt", Checkpoint(TINY, state))
    model, _, _ = start("--init", tmp_path / "last.pt", "--labels", "angry,new", "--image-size", 32)
    assert torch.equal(model.model.classifier.weight[0], state["model.classifier.weight"][2])


def test_a_released_model_is_of_its_named_architecture_without_batch_norms(tmp_path: Path) -> None:
    released = TINY.replace(stem_norm="none")
    save_checkpoint(tmp_path / "model.pt", Checkpoint(released, make_model(released).state_dict()))
    assert start("--model", "nano", "--init", tmp_path / "model.pt")[1] == released


def test_the_default_model_is_named_and_hands_its_terms_down(tmp_path: Path) -> None:
    model, config, origin = start("--init", "default", "--labels", "sad,happy,bored")
    default = read_start(DEFAULT_CHECKPOINT)
    assert config == default.config.replace(labels=("sad", "happy", "bored"))
    assert torch.equal(model.model.classifier.weight[:2], default.state_dict["classifier.weight"][[1, 0]])
    assert origin["license"]["name"] == DEFAULT_TERMS
    assert (ASSETS / "LICENSE").read_text() in origin["license"]["text"]
    assert "license" not in origin["init"] and origin["init"]["recipe"]
    # The same file by its path is the same model, and so is a model tuned from one that was tuned from it.
    assert start("--init", DEFAULT_CHECKPOINT)[2]["license"] == origin["license"]
    save_checkpoint(tmp_path / "mine.pt", Checkpoint(config, model.model.state_dict(), origin))
    assert start("--init", tmp_path / "mine.pt", "--labels", "calm,sad")[2]["license"] == origin["license"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--set", "fusion=mult"], "fusion is add in the file, mult here"),
        (["--set", "bottleneck_width=64", "--set", "temporal=mean"], "bottleneck_width is 8 in the file, 64 here"),
        (["--model", "vit-b"], "width is 32 in the file, 768 here"),
        (["--model", "nano"], "fusion is add in the file, bottleneck here"),
        (["--set", "depth=3"], "depth is 2 in the file, 3 here"),  # no valid model together with the file's rest
        (["--image-encoder", "x.pt"], "--init together with encoders"),
        (["--dataset", "faces"], "expected nothing, or --image-encoder to go on from"),
    ],
)
def test_what_is_asked_for_beside_the_file_is_not_ignored(trained: Path, argv: list, said: str) -> None:
    with pytest.raises(UsageError) as error:
        start("--init", trained, *argv)
    assert said in one_line(error.value)


def test_the_named_model_must_be_the_files_but_for_what_fine_tuning_may_change(tmp_path: Path) -> None:
    config = TINY.replace(image_size=32, labels=("a", "b"), drop_path=0.0)
    save_checkpoint(tmp_path / "model.pt", Checkpoint(config, make_model(config).state_dict()))
    # Neither was asked for: --model names the architecture.
    assert start("--init", tmp_path / "model.pt", "--model", "nano")[1] == config
    with pytest.raises(CheckpointError, match="image_size 33"):
        start("--init", tmp_path / "model.pt", "--image-size", 33)


def test_a_runs_last_state_starts_a_model_and_a_single_encoder_is_told_from_one(tmp_path: Path) -> None:
    model = make_model(TINY)
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    save_checkpoint(tmp_path / "last.pt", Checkpoint(TINY, state))
    started, _, _ = start("--init", tmp_path / "last.pt", "--image-size", 32)
    assert torch.equal(started.model.classifier.weight, model.classifier.weight)
    assert started.model.image_encoder.pos_embed.shape[1] == 1 + 16 + 6
    save_checkpoint(tmp_path / "face.pt", Checkpoint(TINY, EncoderClassifier(TINY, "image").state_dict()))
    with pytest.raises(CheckpointError, match=r"single pre-trained encoder.*--image-encoder"):
        start("--init", tmp_path / "face.pt")
