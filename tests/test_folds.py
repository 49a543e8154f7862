"""--fold all trains every fold once, goes on where it stopped, and adds the folds up to what the paper's table asks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE_HZ, SEVEN, make_frames, make_model, one_line, tone
from rich.console import Console

from mma_edge.errors import CheckpointError, DataError, UsageError
from mma_trainer.commands.data_options import make_task, num_folds
from mma_trainer.commands.folds import FoldResult, run_folds
from mma_trainer.commands.train import build_parser
from mma_trainer.evaluation.metrics import Metrics, confusion_matrix
from mma_trainer.model.inputs import ContractModel
from mma_trainer.report.folds import spread
from mma_trainer.report.run import write_run_report
from mma_trainer.training.loop import Run
from mma_trainer.training.recipe import Recipe
from mma_trainer.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mma_trainer.weights.predictor import checkpoint_predictor


@pytest.fixture
def arguments(tmp_path: Path) -> argparse.Namespace:
    return argparse.Namespace(
        dataset="dfew", fold="all", data=None, frames_root=None, audio_root=None, run=tmp_path / "runs", resume=False,
        device="cpu", workers=0, lr=None, epochs=2, skip_bad=False,
    )  # fmt: skip


def fold_metrics(fold: int) -> Metrics:
    """Two clips per class; as many of class 0 are taken for class 1 as the fold's number allows."""
    counts = 2 * np.eye(7, dtype=int)
    counts[0, :2] = (2 - min(fold, 2), min(fold, 2))
    return Metrics(counts, 0.5)


@pytest.fixture
def trained() -> list[tuple[int, Path, bool]]:
    return []


@pytest.fixture
def train_fold(trained: list) -> Callable:
    """Stands in for mma-train on one fold."""

    def train(args: argparse.Namespace, console: Console) -> Metrics:
        trained.append((args.fold, args.run, args.resume))
        save_checkpoint(args.run / "model.pt", Checkpoint(SEVEN, {}))
        return fold_metrics(args.fold)

    return train


def perfect(args: argparse.Namespace, model: Path) -> Metrics:
    assert model == args.run / "model.pt"
    return Metrics(2 * np.eye(7, dtype=int))  # without a loss


def quiet() -> Console:
    return Console(quiet=True)


def test_every_fold_is_trained_in_its_own_folder_and_summed_up(
    arguments: argparse.Namespace, train_fold: Callable, trained: list, capsys: pytest.CaptureFixture
) -> None:
    assert run_folds(arguments, Console(width=200), train_fold, perfect) == 0
    run = arguments.run
    assert trained == [(fold, run / f"fold{fold}", False) for fold in range(1, 6)]
    assert (arguments.fold, arguments.run) == ("all", run)  # the caller's own are not touched
    summary = json.loads((run / "summary.json").read_text())
    one, two = summary["one_clip"], summary["mean_of_two_clips"]
    # Class 0: recall 1/2 in fold 1, 0 in the others; all else is right.
    assert [fold["uar"] for fold in one["folds"]] == pytest.approx([6.5 / 7] + 4 * [6 / 7])
    assert one["uar_mean"] == pytest.approx((6.5 + 4 * 6) / 35)
    assert one["uar_deviation"] == pytest.approx(np.std([6.5 / 7] + 4 * [6 / 7], ddof=1))
    assert one["war_mean"] == pytest.approx(np.mean([13 / 14] + 4 * [12 / 14]))
    assert one["recall_mean"][:2] == pytest.approx([0.1, 1.0])
    assert np.array(one["confusion_sum"]).sum() == 70 and one["confusion_sum"][0][:2] == [1, 9]
    assert (two["uar_mean"], two["uar_deviation"]) == (1.0, 0.0)
    published = summary["published_percent"]
    best = max((row for row in published if row["uar"] is not None), key=lambda row: row["uar"])
    assert {"method": "MMA-DFER", "resolution": 224, "uar": 67.01, "war": 77.51}.items() <= best.items()
    assert len(published) == 30 and sum(row["uar"] is None for row in published) == 2  # T-ESFL: on MAFW only
    page = (run / "summary.md").read_text()
    for line in (
        "| Wav2Vec2.0 | audio | - | 36.15 | 43.05 |",
        "| T-ESFL | video, audio | 224 | - | - |",
        "| HiCMAE | video, audio | 160 | 63.76 | 75.01 |",
        "| MMA-DFER | video, audio | 160 | 66.61 | 77.15 |",
        "| MMA-DFER, mean of two clips | video, audio | 224 | 66.85 | 77.43 |",
        "| this run, mean of two clips, mean of 5 folds |  |  | 100.00 | 100.00 |",
    ):
        assert line in page, line
    out = capsys.readouterr().out
    for text in (out, (run / "summary.md").read_text(), (run / "summary.html").read_text()):
        for figure in ("67.01", "77.51", "87.14", "100.00", "fold 5"):
            assert figure in text, figure
    html = (run / "summary.html").read_text()
    assert "http" not in html and "<script" not in html
    assert (run / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_stopped_goes_on_with_the_folds_that_are_not_finished(
    arguments: argparse.Namespace, train_fold: Callable, trained: list
) -> None:
    def stop_in_fold_3(args: argparse.Namespace, console: Console) -> Metrics:
        if args.fold == 3:
            args.run.mkdir(parents=True)
            (args.run / "last.pt").touch()
            raise KeyboardInterrupt
        return train_fold(args, console)

    with pytest.raises(KeyboardInterrupt):
        run_folds(arguments, quiet(), stop_in_fold_3, perfect)
    assert [fold for fold, *_ in trained] == [1, 2] and not (arguments.run / "summary.json").exists()
    with pytest.raises(CheckpointError) as error:  # not without being asked
        run_folds(arguments, quiet(), train_fold, perfect)
    assert "--resume" in one_line(error.value)
    trained.clear()
    arguments.resume = True
    assert run_folds(arguments, quiet(), train_fold, perfect) == 0
    assert [(fold, resume) for fold, _, resume in trained] == [(3, True), (4, False), (5, False)]
    trained.clear()
    (arguments.run / "summary.json").unlink()
    never = pytest.fail  # neither trained nor measured again
    assert run_folds(arguments, quiet(), train_fold, lambda *words: never("measured twice")) == 0
    assert trained == [] and (arguments.run / "summary.json").exists()


def test_folds_of_other_options_are_not_mixed(arguments: argparse.Namespace, train_fold: Callable) -> None:
    run_folds(arguments, quiet(), train_fold, perfect)
    arguments.resume, arguments.workers = True, 8
    run_folds(arguments, quiet(), train_fold, perfect)  # how fast is nobody's business
    arguments.lr = 0.1
    with pytest.raises(CheckpointError) as error:
        run_folds(arguments, quiet(), train_fold, perfect)
    assert "another lr" in one_line(error.value)


def test_only_the_first_process_writes(
    arguments: argparse.Namespace, train_fold: Callable, trained: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run_folds(arguments, quiet(), train_fold, perfect) == 0
    assert len(trained) == 5
    assert not list(arguments.run.rglob("fold.json")) and not list(arguments.run.glob("summary.*"))


def test_a_damaged_result_is_named(arguments: argparse.Namespace, train_fold: Callable) -> None:
    run_folds(arguments, quiet(), train_fold, perfect)
    path = arguments.run / "fold2" / "fold.json"
    for content in ("{", json.dumps({**json.loads(path.read_text()), "labels": ["a"]}), "[]"):
        path.write_text(content)
        with pytest.raises(DataError) as error:
            FoldResult.read(path)
        assert str(path) in one_line(error.value)


def test_data_without_folds_are_refused(arguments: argparse.Namespace) -> None:
    assert num_folds(arguments) == 5
    for dataset in ("faces", "lists", "prepared"):
        arguments.dataset = dataset
        with pytest.raises(UsageError, match="fold"):
            run_folds(arguments, quiet(), lambda *words: pytest.fail("trained"))


def test_the_spread_leaves_folds_without_a_value_out() -> None:
    assert spread([0.4, float("nan"), 0.6]) == pytest.approx((0.5, np.std([0.4, 0.6], ddof=1)))
    assert np.isnan(spread([0.4])[1]) and np.isnan(spread([float("nan")])[0])


@pytest.fixture
def five_folds(tmp_path: Path) -> Path:
    """DFEW in small: nine clips of 40 frames, two of them heard, and five folds over them."""
    root = tmp_path / "DFEW"
    for clip in range(1, 10):
        make_frames(root / "clip_224x224" / f"{clip:05d}", list(range(1, 41)))
    (root / "raw_wav").mkdir()
    for clip in (1, 9):
        soundfile.write(root / "raw_wav" / f"{clip}.wav", tone(1.0, 100 * clip), RATE_HZ)
    (root / "annotation").mkdir()
    lines = [f"clip_224x224/{clip:05d} 40 {clip % 7}" for clip in range(1, 10)]
    for fold in range(1, 6):
        for split, chosen in (("train", lines[:7]), ("test", lines[7:])):
            (root / "annotation" / f"DFEW_set_{fold}_{split}.txt").write_text("\n".join(chosen))
    return root


def test_two_clips_are_measured_on_the_folds_own_test_list(
    arguments: argparse.Namespace, five_folds: Path, tmp_path: Path
) -> None:
    """The mean of the probabilities of two clips of each video, computed here a second time by hand."""
    from whole_lists import clips_of

    from mma_trainer.data.entries import load_clips

    model = make_model(SEVEN, 3)
    arguments.data, arguments.skip_bad = five_folds, True

    def train(args: argparse.Namespace, console: Console) -> Metrics:
        save_checkpoint(args.run / "model.pt", Checkpoint(SEVEN, model.state_dict()))
        return fold_metrics(args.fold)

    assert run_folds(arguments, quiet(), train) == 0
    found = FoldResult.read(arguments.run / "fold4" / "fold.json")
    predict = checkpoint_predictor(arguments.run / "fold4" / "model.pt").predict
    entries = clips_of(five_folds / "annotation/DFEW_set_4_test.txt", five_folds, five_folds / "raw_wav", 7)
    assert [entry.wav is None for entry in entries] == [True, False]
    answers = []
    for index in range(2):
        frames, mel = load_clips(entries[index], 16, 2)
        assert len(frames) == 2 and (frames[0] != frames[1]).any()
        answers.append(predict(frames, mel).mean(axis=0))
    expected = confusion_matrix(np.array([1, 2]), np.argmax(answers, axis=1), 7)
    np.testing.assert_array_equal(found.two_clips.confusion, expected)
    assert found.two_clips.loss == pytest.approx(-np.log([answers[0][1], answers[1][2]]).mean(), rel=1e-4)
    assert load_checkpoint(arguments.run / "fold4" / "model.pt").config == SEVEN


def test_real_training_stopped_in_a_fold_goes_on_to_the_same_summary(five_folds: Path, tmp_path: Path) -> None:
    """With the trainer's own loop: an interruption in fold 2 leaves no trace in what comes out."""

    def train(args: argparse.Namespace, console: Console) -> Metrics:
        recipe = Recipe(epochs=2, batch_size=4, lr=0.01)
        task = make_task(args, SEVEN, recipe)
        network = ContractModel(make_model(SEVEN, args.fold))
        run = Run(network, SEVEN, recipe, task, args.run, {"dataset": "dfew"}, console, torch.device("cpu"))
        metrics = run.fit(args.resume)
        save_checkpoint(args.run / "model.pt", Checkpoint(SEVEN, network.model.state_dict()))
        write_run_report(args.run, metrics, SEVEN.to_dict(), run.provenance)
        return metrics

    def stopped(args: argparse.Namespace, console: Console) -> Metrics:
        if args.fold == 2:
            one_epoch = Recipe(epochs=2, batch_size=4, lr=0.01)
            network = ContractModel(make_model(SEVEN, args.fold))
            task = make_task(args, SEVEN, one_epoch)
            batches = task.train_batches

            def interrupted(epoch: int, *more: object) -> object:
                if epoch == 1:
                    raise KeyboardInterrupt
                return batches(epoch, *more)

            task.train_batches = interrupted
            Run(network, SEVEN, one_epoch, task, args.run, {}, console, torch.device("cpu")).fit(False)
        return train(args, console)

    words = [
        "--dataset",
        "dfew",
        "--data",
        five_folds,
        "--fold",
        "all",
        "--skip-bad",
        "--workers",
        0,
        "--device",
        "cpu",
    ]
    summaries = []
    for name, trainer in (("whole", train), ("parts", stopped)):
        argv = [str(word) for word in (*words, "--run", tmp_path / name)]
        if trainer is stopped:
            with pytest.raises(KeyboardInterrupt):
                run_folds(build_parser().parse_args(argv), quiet(), stopped)
            assert (tmp_path / name / "fold2" / "last.pt").exists()
            assert not (tmp_path / name / "fold3").exists()
            argv.append("--resume")
        assert run_folds(build_parser().parse_args(argv), quiet(), train) == 0
        summaries.append(json.loads((tmp_path / name / "summary.json").read_text()))
        assert "cross-entropy" in (tmp_path / name / "fold5" / "report.html").read_text()
    whole, parts = summaries
    assert whole["one_clip"] == parts["one_clip"] and whole["mean_of_two_clips"] == parts["mean_of_two_clips"]
    assert sum(fold["num_clips"] for fold in whole["mean_of_two_clips"]["folds"]) == 10
