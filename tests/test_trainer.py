"""Training follows the paper's recipe, names what is wrong with the data, and resumes as if nothing had happened."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SEVEN, TINY, make_model, one_line
from rich.console import Console

from mma_edge.errors import DataError, UsageError
from mma_trainer.architectures import ARCHITECTURES, Architecture
from mma_trainer.commands import data_options as cli_data
from mma_trainer.commands import train as cli
from mma_trainer.data.batch import WHOLE, Batch, Shard
from mma_trainer.data.public.background import load_noise, load_rooms
from mma_trainer.data.public.faces import load_faces
from mma_trainer.data.public.voices import load_voices
from mma_trainer.data.tasks.faces import FaceTask
from mma_trainer.data.tasks.pairs import PseudoPairTask
from mma_trainer.data.tasks.voices import Surroundings, VoiceTask
from mma_trainer.evaluation.metrics import confusion_matrix, metrics_of
from mma_trainer.training.log import FIELDS, RunLog
from mma_trainer.training.loop import Run
from mma_trainer.training.pretrain import EncoderClassifier
from mma_trainer.training.recipe import Recipe, build_optimizer, build_scheduler
from mma_trainer.weights.checkpoint import Checkpoint, load_checkpoint, read_checkpoint, save_checkpoint


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Iterator[Callable[..., tuple[int, str]]]:
    """mma-train in this process, "nano" made tiny; returns the exit code and what stderr said."""
    monkeypatch.setitem(ARCHITECTURES, "nano", Architecture("nano", vars(SEVEN)))
    monkeypatch.setattr(cli_data, "PSEUDO_CLIPS_PER_EPOCH", 8)

    def command(*argv: object) -> tuple[int, str]:
        code = cli.main([str(word) for word in ("--model", "nano", "--device", "cpu", "--batch-size", 4, *argv)])
        return code, capsys.readouterr().err

    return command


@pytest.fixture(scope="module")
def initial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("initial") / "initial.pt"
    save_checkpoint(path, Checkpoint(SEVEN, make_model(SEVEN).state_dict()))
    return path


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Make the next run stop after its first epoch, as Ctrl-C does."""

    def arm() -> None:
        report = RunLog.epoch

        def stop(log: RunLog, row: dict, wall_s: float) -> None:
            monkeypatch.setattr(RunLog, "epoch", report)
            raise KeyboardInterrupt

        monkeypatch.setattr(RunLog, "epoch", stop)

    return arm


def rows(folder: Path) -> list[dict]:
    """log.csv without the columns that tell the time."""
    with (folder / "log.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in FIELDS[-2:]} for row in csv.DictReader(file)]


def assert_same_run(a: Path, b: Path) -> None:
    assert rows(a) == rows(b) and len(rows(a)) == 3
    for name in ("last.pt", "model.pt"):
        ours, theirs = read_checkpoint(a / name), read_checkpoint(b / name)
        for key, tensor in ours.state_dict.items():
            assert torch.equal(tensor, theirs.state_dict[key]), (name, key)
    moments = [read_checkpoint(folder / "last.pt").training["optimizer"]["state"] for folder in (a, b)]
    assert moments[0].keys() == moments[1].keys() and moments[0]
    for key, state in moments[0].items():
        assert all(torch.equal(state[part], moments[1][key][part]) for part in state)


def test_the_recipe_is_the_papers() -> None:
    recipe = Recipe()
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.weight_decay, recipe.seed) == (25, 8, 1e-4, 1e-2, 1)
    assert (recipe.warmup_epochs, recipe.label_smoothing, recipe.clip_grad, recipe.modality_dropout) == (0, 0, 0, 0)
    assert (recipe.precision, recipe.schedule, recipe.ema_decay) == ("fp32", "epoch", 0)
    assert cli_data.RECIPES["lists"] == recipe
    args = cli.build_parser().parse_args([])
    assert (args.dataset, args.model) == ("lists", "vit-b")


def test_the_learning_rate_is_a_cosine_to_zero_stepped_per_epoch() -> None:
    optimizer = build_optimizer(torch.nn.Linear(1, 1), Recipe())
    scheduler = build_scheduler(optimizer, Recipe())
    for epoch in range(26):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(
            1e-4 * (1 + math.cos(math.pi * epoch / 25)) / 2, abs=1e-12
        )
        optimizer.step()
        scheduler.step()


def test_frozen_parameters_hold_no_optimiser_state_and_do_not_move() -> None:
    model = make_model(TINY).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, Recipe(lr=0.1))
    model(torch.rand(2, 16, 3, 16, 16), torch.randn(2, 1, 512, 128)).square().sum().backward()
    optimizer.step()
    trainable = {id(p) for p in model.parameters() if p.requires_grad}
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == trainable
    assert {id(p) for p in optimizer.state} <= trainable and len(optimizer.state) > 10
    for name, p in model.named_parameters():
        assert p.requires_grad or torch.equal(p, before[name]), name
    assert not torch.equal(model.classifier.weight, before["classifier.weight"])


@pytest.mark.parametrize(
    "change",
    [{"epochs": 0}, {"lr": 0.0}, {"lr": math.nan}, {"batch_size": 0}, {"warmup_epochs": 25}, {"modality_dropout": 0.6}],
)
def test_a_recipe_out_of_range_is_refused(change: dict) -> None:
    with pytest.raises(UsageError, match="out of range"):
        Recipe(**change)


def test_uar_is_the_mean_recall_and_war_the_accuracy() -> None:
    labels, predictions = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 2])
    logits = np.full((6, 4), 0.0)
    logits[np.arange(6), predictions] = math.log(3)  # probabilities 1/2 for the prediction, 1/6 for the others
    metrics = metrics_of(labels, logits)
    assert metrics.confusion.tolist() == [[3, 1, 0, 0], [0, 1, 1, 0], [0] * 4, [0] * 4]
    # Classes 2 and 3 have no clips: they have no recall and do not enter the mean.
    assert metrics.recall[:2].tolist() == [0.75, 0.5] and np.isnan(metrics.recall[2:]).all()
    assert metrics.uar == pytest.approx(0.625) and metrics.war == pytest.approx(4 / 6)
    assert metrics.loss == pytest.approx((4 * math.log(2) + 2 * math.log(6)) / 6)
    assert metrics.num_clips == 6
    assert confusion_matrix(np.array([2]), np.array([0]), 3)[2, 0] == 1


def test_the_default_models_three_steps_run_end_to_end(train: Callable, public: Path, tmp_path: Path) -> None:
    common = ("--data", public, "--epochs", 1, "--warmup-epochs", 0)
    for dataset in ("faces", "voices"):
        assert train("--dataset", dataset, *common, "--run", tmp_path / dataset) == (0, "")
    faces, voices = tmp_path / "faces" / "last.pt", tmp_path / "voices" / "last.pt"
    encoders = ("--image-encoder", faces, "--audio-encoder", voices, voices)  # the mean of one and itself
    assert train("--dataset", "pseudo", *common, *encoders, "--run", tmp_path / "both", "--half") == (0, "")
    for folder in ("faces", "voices", "both"):
        for name in ("last.pt", "log.csv", "curves.png", "confusion.png"):
            assert (tmp_path / folder / name).stat().st_size > 0, (folder, name)
        (row,) = rows(tmp_path / folder)
        assert float(row["train_loss"]) > 0 and 0 <= float(row["val_uar"]) <= 1
    model = load_checkpoint(tmp_path / "both" / "model.pt")
    assert model.config == SEVEN.replace(stem_norm="none")
    # The encoders are those of the first two steps, frozen since (half the digits were kept).
    pretrained = read_checkpoint(tmp_path / "voices" / "last.pt").state_dict["encoder.blocks.1.mlp.0.weight"]
    torch.testing.assert_close(model.audio_encoder.blocks[1].mlp[0].weight.detach(), pretrained.half().float())
    provenance = read_checkpoint(tmp_path / "both" / "model.pt").provenance
    assert provenance["recipe"]["modality_dropout"] == 0.25 and provenance["val"]["clips"] == 4


def test_bf16_changes_the_arithmetic_a_little_and_the_stored_weights_stay_fp32(
    train: Callable, public: Path, initial: Path, tmp_path: Path
) -> None:
    common = ("--dataset", "pseudo", "--data", public, "--epochs", 1, "--init", initial)
    losses = {}
    for precision in ("fp32", "bf16"):
        assert train(*common, "--precision", precision, "--run", tmp_path / precision) == (0, "")
        losses[precision] = float(rows(tmp_path / precision)[0]["train_loss"])
        stored = torch.load(tmp_path / precision / "model.pt", weights_only=True)["state_dict"]
        assert {value.dtype for value in stored.values() if value.is_floating_point()} == {torch.float32}
    assert losses["bf16"] != losses["fp32"]  # it was not ignored
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)


@pytest.mark.parametrize("dataset", ["pseudo", "lists"])
def test_an_interrupted_run_resumes_to_the_same_bits(
    train: Callable,
    interrupt: Callable,
    monkeypatch: pytest.MonkeyPatch,
    initial: Path,
    public: Path,
    dfew: Path,
    dataset: str,
) -> None:
    data = {
        "pseudo": ("--data", public),
        "lists": ("--train-list", dfew / "train.txt", "--val-list", dfew / "val.txt", "--frames-root", dfew),
    }[dataset]
    options = ("--dataset", dataset, *data, "--init", initial, "--epochs", 3, "--workers", 0, "--lr", 0.01)
    # Pictures take longer than these epochs; another test looks at them.
    monkeypatch.setattr("mma_trainer.training.loop.plot_curves", lambda rows, path: None)
    monkeypatch.setattr(cli, "plot_confusion", lambda metrics, labels, path: None)
    whole, stopped = dfew / "whole", dfew / "stopped"
    assert train(*options, "--run", whole) == (0, "")
    interrupt()
    assert train(*options, "--run", stopped) == (130, "interrupted\n")
    assert len(rows(stopped)) == 1 and not (stopped / "model.pt").exists()
    # A run in the folder is not overwritten, nor gone on with under other options.
    code, said = train(*options, "--run", stopped)
    assert code == 8 and "add --resume" in said and said.count("\n") == 1
    code, said = train(*options, "--run", stopped, "--resume", "--seed", 2)
    assert code == 8 and "another config or recipe: seed is 1 in the file, 2 here" in said
    assert len(rows(stopped)) == 1
    assert train(*options, "--run", stopped, "--resume") == (0, "")
    assert_same_run(whole, stopped)
    # And the second epoch did something.
    assert rows(whole)[0]["train_loss"] != rows(whole)[1]["train_loss"]


def test_what_is_random_in_an_epoch_depends_on_seed_and_epoch_alone(public: Path) -> None:
    faces, voices = load_faces(public, "train"), load_voices(public, "train", ("ravdess",))
    surroundings = Surroundings(load_noise(public, "train"), load_rooms(public))
    for make in (
        lambda seed: FaceTask(faces, faces, 16, 4, seed, balance=0.75),
        lambda seed: VoiceTask(voices, voices, surroundings, 4, seed, short_epochs=1),
        lambda seed: PseudoPairTask((faces, voices), (faces, voices), surroundings, 16, 4, seed, 8, 0.25),
    ):
        first, again, later, other = (
            next(make(seed).train_batches(epoch))[0] for seed, epoch in ((1, 0), (1, 0), (1, 1), (2, 0))
        )
        for part in range(len(first)):
            assert torch.equal(first[part], again[part])
            assert not torch.equal(first[part], later[part]) and not torch.equal(first[part], other[part])


def test_resuming_a_run_that_is_not_there_is_refused(train: Callable, public: Path, tmp_path: Path) -> None:
    code, said = train("--dataset", "faces", "--data", public, "--run", tmp_path / "none", "--resume")
    assert code == 8 and "does not exist" in said


class Poisoned:
    """Two good batches, then NaN in the second epoch."""

    num_batches = 2

    def train_batches(self, epoch: int, shard: Shard = WHOLE) -> Iterator:
        generator = torch.Generator().manual_seed(epoch)
        for batch in range(2):
            images = torch.rand(4, 3, 16, 16, generator=generator)
            yield Batch((images * math.nan if (epoch, batch) == (1, 1) else images,), torch.tensor([0, 1, 2, 0]))

    def val_batches(self, shard: Shard = WHOLE) -> Iterator:
        yield Batch((torch.zeros(3, 3, 16, 16),), torch.tensor([0, 1, 2]))


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_whole_epoch(tmp_path: Path) -> None:
    model = EncoderClassifier(TINY, "image")
    run = Run(model, TINY, Recipe(epochs=3), Poisoned(), tmp_path, {}, Console(quiet=True), torch.device("cpu"))
    with pytest.raises(DataError) as error:
        run.fit(resume=False)
    text = one_line(error.value)
    assert "nan in epoch 2, batch 2" in text and "--lr" in text
    kept = read_checkpoint(tmp_path / "last.pt")
    assert len(kept.training["rows"]) == 1
    assert all(torch.isfinite(tensor).all() for tensor in kept.state_dict.values())


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["--dataset", "faces"], 2, "--data DIR"),
        (["--dataset", "faces", "--data", "{tmp}"], 9, "ferplus_train.npz does not exist"),
        (["--dataset", "voices", "--data", "{tmp}"], 9, "no voices"),
        (["--dataset", "faces", "--data", "{public}", "--batch-size", "29"], 9, "smaller than a batch"),
        (["--dataset", "pseudo", "--data", "{public}"], 2, "--image-encoder"),
        (["--dataset", "lists", "--teachers", "{init}", "--init", "{init}"], 2, "--teachers with --dataset lists"),
        (["--dataset", "pseudo", "--data", "{public}", "--teachers", "{init}", "--init", "{init}"], 2, "--teachers"),
        (["--init", "{init}"], 2, "--train-list"),
        (["--init", "{tmp}/none.pt"], 8, "does not exist"),
        (["--dataset", "faces", "--data", "{public}", "--device", "abacus"], 2, "device abacus"),
        (["--dataset", "faces", "--data", "{public}", "--epochs", "0"], 2, "epochs 0"),
        (["--dataset", "faces", "--data", "{public}", "--image-size", "17"], 8, "image_size 17"),
    ],
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(
    train: Callable, public: Path, initial: Path, tmp_path: Path, argv: list[str], code: int, said: str
) -> None:
    words = (word.format(tmp=tmp_path, public=public, init=initial) for word in argv)
    got, err = train(*words, "--run", tmp_path / "run")
    assert got == code
    assert err.startswith("error: ") and err.count("\n") == 1 and said in err


def test_damaged_public_files_are_named(train: Callable, public: Path, tmp_path: Path) -> None:
    data = shutil.copytree(public, tmp_path / "data")
    voice = data / "ravdess_speech" / "Actor_01" / "03-01-03-01-01-01-01.flac"
    voice.write_bytes(b"fLaC")
    (data / "ferplus_train.npz").write_bytes((public / "ferplus_train.npz").read_bytes()[:1000])
    for dataset, name in (("voices", voice.name), ("faces", "ferplus_train.npz")):
        code, err = train("--dataset", dataset, "--data", data, "--run", tmp_path / "run")
        assert code == 9 and name in err and err.count("\n") == 1


def test_a_class_without_a_voice_is_named_before_pairing(
    train: Callable, initial: Path, public: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(public, tmp_path / "data")
    for path in (data / "ravdess_speech").glob("Actor_17/03-01-08-*"):  # surprise
        path.unlink()
    code, err = train("--dataset", "pseudo", "--data", data, "--init", initial, "--run", tmp_path / "run")
    assert code == 9 and "no voice of the classes [4]" in err
