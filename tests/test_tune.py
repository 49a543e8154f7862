"""mma-train tune: from a folder of videos to a bundle, judged on people left out; anything wrong is said at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, failure_line, make_model
from square_videos import BLUE, RED, Squares, make_video

import mma_edge
from mma_edge.bundle import read_bundle
from mma_edge.errors import CheckpointError, DataError, DependencyError, OutputError, UsageError
from mma_trainer import __main__ as entry
from mma_trainer.commands import tune as cli
from mma_trainer.data.entries import load_clip
from mma_trainer.data.preparation import cut
from mma_trainer.model.inputs import ContractModel
from mma_trainer.report.tuning import made_worse
from mma_trainer.tuning import unseen as unseen_room
from mma_trainer.tuning.clips import read_clips
from mma_trainer.tuning.features import VIEWS, Features, read_features
from mma_trainer.tuning.head import RECIPE, Head, answers, train_head
from mma_trainer.tuning.unseen import MIN_TEMPERATURE, Unseen, answers_as, figures_of, temperatures
from mma_trainer.weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint

TERMS = {"license": {"name": "research only", "text": "No sale.\n"}}
COLOURS = {"happy": RED, "bored": BLUE}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("start") / "start.pt"
    save_checkpoint(path, Checkpoint(TINY, make_model(TINY).state_dict(), TERMS))
    return path


def film(root: Path, people: str = "ada ben cy", sound_s: float = 0.3) -> Path:
    """Two clips of each person in each class: a red face is happy, a blue one bored."""
    for label, colour in COLOURS.items():
        for person in people.split():
            for number in range(2):
                face = [[(colour, 20 + 9 * number, 30, 30)]] * 4
                make_video(root / label / person / f"{person}-{number}.mkv", face, sound_s)
    return root


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cut, "_detector", Squares)
    return film(tmp_path / "videos")


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The models that would have been exported: tracing takes seconds."""
    models: list[Path] = []
    monkeypatch.setattr(cli, "_export", lambda args, model: models.append(model) or 0)
    return models


def tune(source: Path, output: Path, *options: object) -> int:
    words = ("tune", source, "--output", output, "--run", output.parent / "run", "--workers", 1, *options)
    return entry.train([str(word) for word in words])


def test_videos_become_a_bundle_that_says_what_it_gives_on_people_left_out(
    videos: Path, start: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    assert tune(videos, tmp_path / "bundles" / "mine", "--init", start) == 0
    said = capfd.readouterr().out
    assert "3 people: ada, ben, cy" in said and "on people it has not seen" in said and "person by person" in said
    assert f"mma-edge run sample --bundle {tmp_path / 'bundles' / 'mine'}" in said
    bundle = read_bundle(tmp_path / "bundles" / "mine")
    assert (bundle.name, bundle.labels) == ("mine", ("happy", "bored"))
    assert bundle.manifest["license"]["name"] == "research only"
    assert "No sale." in (bundle.folder / "LICENSE").read_text()
    assert bundle.manifest["missing_modality"] == {"trained": True}
    provenance = bundle.manifest["provenance"]
    assert provenance["new_classes"] == ["bored"]
    assert provenance["tuned_on"]["clips per class"] == {"happy": 6, "bored": 6}
    assert provenance["unseen"]["who"] == "strangers" and provenance["unseen"]["folds"] == 3
    assert bundle.temperatures == provenance["calibration"]["temperature"]
    shown = {row["input"]: row for row in provenance["unseen"]["inputs"]}
    assert shown["video"]["uar_before"] == 0.5 and shown["audio"]["num_clips"] == 12  # it knows one of the two classes
    assert [row["person"] for row in provenance["unseen"]["people"]] == ["ada", "ben", "cy"]
    assert json.loads((tmp_path / "bundles" / "run" / "metrics.json").read_text())["who"] == "strangers"
    assert "Tuned model" in (tmp_path / "bundles" / "run" / "report.html").read_text()
    recognizer = mma_edge.load(bundle.folder, "cpu")
    probabilities = recognizer.predict(np.full((1, 16, 16, 16, 3), 90, np.uint8), None)
    assert recognizer.labels == bundle.labels and probabilities.sum() == pytest.approx(1)


def test_nothing_but_what_follows_the_encoders_is_changed(
    videos: Path, start: Path, tmp_path: Path, handed_over: list[Path]
) -> None:
    assert tune(videos, tmp_path / "mine", "--init", start, "--labels", "bored,happy,angry") == 0
    before, after = read_checkpoint(start), read_checkpoint(handed_over[0])
    assert after.config == before.config.replace(labels=("bored", "happy", "angry"))
    for key, tensor in after.state_dict.items():
        trained = key.split(".")[0] in ("joint", "temporal", "classifier")
        same = tensor.shape == before.state_dict[key].shape and torch.equal(tensor, before.state_dict[key])
        assert same != trained or "unused" in key, key
    capped = after.provenance["calibration"]["temperature"]
    assert set(capped) == {"both", "video", "audio"} and min(capped.values()) >= MIN_TEMPERATURE


def test_silent_clips_and_one_person_are_tuned_on_and_said(
    videos: Path, start: Path, tmp_path: Path, handed_over: list[Path], capsys: pytest.CaptureFixture
) -> None:
    assert tune(film(tmp_path / "mute", "ada", sound_s=0), tmp_path / "mine", "--init", start) == 0
    said = capsys.readouterr().out
    assert "nothing will be known about other people" in said and "on other clips of the same person" in said
    assert "face alone" in said and "voice alone" not in said and "face and voice" not in said
    assert read_checkpoint(handed_over[0]).provenance["tuned_on"]["silent clips"] == 4


def test_two_people_in_a_csv_are_enough_though_one_of_them_is_in_one_class_only(
    videos: Path, start: Path, tmp_path: Path, handed_over: list[Path], capsys: pytest.CaptureFixture
) -> None:
    rows = [f"{path.relative_to(videos)},{path.parts[-3]},{path.parts[-2]}" for path in sorted(videos.rglob("*.mkv"))]
    kept = [row for row in rows if "cy" not in row and not row.endswith("bored,ben")]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,person", *kept]))
    assert tune(tmp_path / "clips.csv", tmp_path / "mine", "--init", start, "--videos", videos) == 0
    said = capsys.readouterr().out
    assert "2 people: ada, ben" in said and "has no clip of bored" in said and "warning" not in said
    shown = {row["person"]: row for row in read_checkpoint(handed_over[0]).provenance["unseen"]["people"]}
    assert (shown["ada"]["num_clips"], shown["ben"]["num_clips"]) == (4, 2)


def test_clips_of_unknown_people_are_not_sold_as_people_not_seen(
    videos: Path, start: Path, tmp_path: Path, handed_over: list[Path], capsys: pytest.CaptureFixture
) -> None:
    flat = tmp_path / "flat"
    for path in sorted(videos.rglob("*.mkv")):
        (flat / path.parts[-3]).mkdir(parents=True, exist_ok=True)
        path.rename(flat / path.parts[-3] / path.name)
    (flat / "happy" / "broken.mp4").write_bytes(b"no film")
    assert tune(flat, tmp_path / "mine", "--init", start) == 0
    said = capsys.readouterr().out
    assert "warning: who is in the videos is not known" in said and "not seen" not in said
    assert "unreadable video: happy__broken" in said and "12 clips of 13 videos" in said
    assert tune(flat, tmp_path / "mine", "--init", start, "--person", "^([a-z]+)-") == DataError.exit_code
    assert "broken.mp4" in capsys.readouterr().err
    (flat / "happy" / "broken.mp4").rename(flat / "happy" / "dee-9.mp4")
    assert tune(flat, tmp_path / "mine", "--init", start, "--person", "^([a-z]+)-", "--folds", 2) == 0
    # The only clip of one person cannot be read: nobody stops for that.
    assert "on people it has not seen" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "options", "code", "said"),
    [
        ("none", (), 9, "does not exist; expected a folder with one folder of videos per class, or a CSV"),
        ("empty", (), 9, "has no folders"),
        ("one", (), 9, "videos of one class (happy); expected at least two classes"),
        ("", ("--labels", "happy,bored,tense"), 9, "no videos of tense, which the model to start from does not know"),
        ("", ("--labels", "calm,tense"), 9, "has no folder calm, tense"),
        ("", ("--folds", 1), 2, "--folds 1; expected at least 2"),
        ("", ("--folds", 4), 2, "--folds 4 with clips of 3 people; expected at most 3"),
        ("", ("--person", "("), 2, "is not a regular expression"),
        ("", ("--init", "none.pt"), CheckpointError.exit_code, "none.pt does not exist"),
        ("", ("--device", "cuda:99"), 2, "device cuda:99 cannot be used"),
        ("", ("--videos", "."), 2, "--videos with a folder of videos"),
        ("bundle", (), OutputError.exit_code, "holds a bundle already"),
        ("thesis", ("--overwrite",), OutputError.exit_code, "is not a bundle"),
        ("run", (), CheckpointError.exit_code, "holds another run's model.pt"),
    ],
)
def test_what_cannot_work_is_one_line_before_any_work(
    videos: Path, start: Path, tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture,
    handed_over: list[Path], change: str, options: tuple, code: int, said: str,
) -> None:  # fmt: skip
    source, output = videos, tmp_path / "mine"
    if change in ("none", "empty"):
        source = tmp_path / change
        (tmp_path / "empty").mkdir()
    elif change == "one":
        source = film(tmp_path / "one", "ada")
        (source / "bored").rename(tmp_path / "elsewhere")
    elif change == "bundle":
        output = tiny_bundle
        options = (*options, "--run", tmp_path / "run")
    elif change == "thesis":
        output.mkdir()
        (output / "thesis.txt").write_text("work of years")
    elif change == "run":
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "model.pt").write_bytes(b"of another run")
    assert tune(source, output, "--init", start, *options) == code
    assert said in failure_line(capsys)
    assert handed_over == [] and not (tmp_path / "run" / "prepared").exists()


def test_a_missing_exporter_is_said_before_the_videos_are_cut(
    videos: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(cli, "NEEDED", ("no_such_package",))
    assert tune(videos, tmp_path / "mine", "--init", start) == DependencyError.exit_code
    assert 'pip install "mma-edge[export]"' in failure_line(capsys) and not (tmp_path / "run").exists()


def test_an_interruption_leaves_no_bundle_and_the_next_try_cuts_nothing_again(
    videos: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
    handed_over: list[Path],
) -> None:  # fmt: skip
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cli, "read_features", interrupted)
        assert tune(videos, tmp_path / "mine", "--init", start) == 130
    assert "repeat the command to go on" in capsys.readouterr().out and not (tmp_path / "mine").exists()
    monkeypatch.setattr(cut, "_cut", interrupted)
    assert tune(videos, tmp_path / "mine", "--init", start) == 0
    assert "12 of 12 videos are done already" in capsys.readouterr().out and len(handed_over) == 1


def test_an_export_that_fails_says_so_and_leaves_the_tuned_model(
    videos: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(cli, "make_folder", lambda folder: None)
    (tmp_path / "run").mkdir()
    (tmp_path / "file").write_text("")
    assert tune(videos, tmp_path / "file" / "mine", "--init", start, "--run", tmp_path / "run") == OutputError.exit_code
    said = capfd.readouterr()
    assert said.err.count("error: ") == 1 and "cannot write" in said.err
    assert f"mma-export --checkpoint {tmp_path / 'run' / 'model.pt'}" in said.out
    assert read_checkpoint(tmp_path / "run" / "model.pt").config.labels == ("happy", "bored")


def test_features_and_head_together_are_the_model(
    videos: Path, start: Path, tmp_path: Path, handed_over: list[Path]
) -> None:
    assert tune(videos, tmp_path / "mine", "--init", start) == 0
    clips = read_clips(tmp_path / "run" / "prepared", print)
    model = make_model(TINY)
    features = read_features(model, clips.entries[:3], 1, torch.device("cpu"))
    found = answers(Head(model), features)
    whole = ContractModel(model).eval()
    for index, clip in enumerate(clips.entries[:3]):
        frames, mel = (torch.from_numpy(part)[None] for part in load_clip(clip, TINY.image_size, None))
        given = {"both": (frames, mel), "video": (frames, 0 * mel), "audio": (0 * frames, mel)}
        for name, inputs in given.items():
            with torch.inference_mode():
                np.testing.assert_allclose(found[name][index], whole(*inputs)[0], atol=1e-5)
    assert features.views["both"].shape[:2] == (3, VIEWS)
    assert not torch.equal(features.views["video"][0, 0], features.views["video"][0, 1])


def made_up(count: int, rng: np.random.Generator) -> Features:
    """Features whose first value tells two classes apart, in the face only."""
    labels = torch.arange(count) % 2
    plain = {
        name: torch.from_numpy(rng.normal(size=(count, 16, 32)).astype(np.float32))
        for name in ("both", "video", "audio")
    }
    for name in ("both", "video"):
        plain[name][:, :, 0] = 3.0 * (2 * labels - 1)[:, None]
    views = {name: tokens[:, None].expand(-1, VIEWS, -1, -1) for name, tokens in plain.items()}
    return Features(plain, views, labels, np.ones(count, bool))


def test_a_head_learns_what_a_few_clips_show_and_the_same_every_time(rng: np.random.Generator) -> None:
    features, start = made_up(24, rng), Head(make_model(TINY.replace(labels=("a", "b"))))
    before = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    heads = [train_head(start, features, range(16), RECIPE) for _ in range(2)]
    assert all(torch.equal(tensor, before[name]) for name, tensor in start.state_dict().items())
    first, second = (answers(head, features) for head in heads)
    np.testing.assert_array_equal(first["both"], second["both"])
    assert (first["video"][16:].argmax(axis=1) == features.labels[16:].numpy()).all()
    train_head(start, features, [0, 1], RECIPE)  # fewer than a batch


def test_no_clip_is_answered_by_a_model_that_was_trained_on_it(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = made_up(12, rng)
    trained: list[list[int]] = []

    class Clips:
        entries, people = [None] * 12, tuple("aabbccddeeff")
        folds = tuple(
            ([i for i in range(10) if i % 5 != fold], [i for i in range(10) if i % 5 == fold]) for fold in range(5)
        )

    monkeypatch.setattr(unseen_room, "train_head", lambda start, features, chosen, recipe: trained.append(chosen))
    marked = {name: np.zeros((12, 2), np.float32) for name in ("both", "video", "audio")}

    def answered(head: object, features: Features) -> dict[str, np.ndarray]:
        return {name: np.full((12, 2), len(trained), np.float32) for name in marked}

    monkeypatch.setattr(unseen_room, "answers", answered)
    unseen = unseen_room.cross_validate(Clips(), features, None, RECIPE, marked)
    for index in range(10):
        assert index not in trained[int(unseen.after["both"][index, 0]) - 1]
    assert unseen.tested.tolist() == [True] * 10 + [False] * 2  # no fold has the last two
    assert figures_of(unseen, ("a", "b"))["tested_clips"] == 10


def test_what_the_start_does_not_know_it_does_not_answer_and_few_clips_make_nobody_sure() -> None:
    old = {"both": np.array([[1.0, 5.0, 2.0]], np.float32)}
    new = answers_as(("happy", "sad", "angry"), ("tense", "anger", "happy"), old)["both"]
    assert new.tolist() == [[-np.inf, 2.0, 1.0]]
    labels = np.arange(8) % 2
    right = {name: 9.0 * np.eye(2, dtype=np.float32)[labels] for name in ("both", "video", "audio")}
    unseen = Unseen(labels, tuple("aabbccdd"), np.ones(8, bool), np.ones(8, bool), right, right)
    assert {fit.temperature for fit in temperatures(unseen).values()} == {MIN_TEMPERATURE}


def test_an_input_that_tuning_did_harm_to_is_warned_of() -> None:
    rows = [("both", 0.1 + 0.2, 0.3), ("video", 0.5, 0.3), ("audio", None, 0.3)]  # the first differs in its last bit
    shown = {"inputs": [{"input": name, "uar_before": before, "uar": after} for name, before, after in rows]}
    (line,) = made_worse(shown)
    assert line.startswith("warning: tuning made face alone worse (50.0 % UAR before, 30.0 % now)")


def test_a_command_without_videos_shows_how_it_is_used(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as leaving:
        entry.train(["tune"])
    assert leaving.value.code == UsageError.exit_code
    assert "needs VIDEOS, --output" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        entry.train(["tune", "--help"])
    assert "mma-edge run camera --bundle bundles/mine" in capsys.readouterr().out
