"""Folds of DFEW, MAFW and prepared data are found by the names their makers gave them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import soundfile
from conftest import RATE_HZ, SEVEN, TINY, make_frames, one_line, tone
from whole_lists import clips_of

from mma_edge.errors import DataError, MMAEdgeError, UsageError
from mma_trainer.commands import data_options as cli_data
from mma_trainer.commands import train as cli
from mma_trainer.data.lists import scan_list
from mma_trainer.data.protocols import find_fold
from mma_trainer.labels import DFEW_LABELS, MAFW_LABELS
from mma_trainer.training.recipe import Recipe


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def dfew_frames(root: Path, folder: str = "clip_224x224", wavs: str = "raw_wav") -> None:
    for clip in (1, 12):
        make_frames(root / folder / f"{clip:05d}", [1, 2, 3])
        (root / wavs).mkdir(exist_ok=True, parents=True)
        soundfile.write(root / wavs / f"{clip}.wav", tone(0.1, 440), RATE_HZ)


@pytest.mark.parametrize("place", ["", "annotation/", "../annotation/"])
@pytest.mark.parametrize("frames", ["clip_224x224", "Clip/clip_224x224", "Clip/clip_224x224/clip_224x224"])
def test_dfew_is_found_as_the_authors_keep_it(tmp_path: Path, place: str, frames: str) -> None:
    root = tmp_path / "DFEW"
    dfew_frames(root, frames)
    for split, clip in (("train", "00001"), ("test", "00012")):
        line = f"/scratch/of/the/authors/dfew/clip_224x224/{clip} 3 6\n"
        put(root / f"{place}DFEW_set_4_{split}.txt", line)
    fold = find_fold("dfew", 4, root)
    assert fold.labels == DFEW_LABELS
    (entry,) = clips_of(fold.val_list, fold.frames_root, fold.audio_root, 7)
    assert (entry.name, entry.label, len(entry.files)) == ("00012", 6, 3)
    assert entry.wav == root / "raw_wav" / "12.wav"


def test_the_split_that_dfew_comes_with_counts_classes_from_1_and_frames_not_at_all(tmp_path: Path) -> None:
    dfew_frames(tmp_path, "Clip/clip_224x224")
    for split, row in (("train", "1,7"), ("test", "12,1")):
        put(tmp_path / "EmoLabel_DataSplit" / f"{split}(single-labeled)" / "set_2.csv", f"video_name,label\n{row}\n")
    fold = find_fold("dfew", 2, tmp_path)
    found = [
        scan_list(path, fold.frames_root, fold.audio_root, fold.labels) for path in (fold.train_list, fold.val_list)
    ]
    assert [problems for _, problems in found] == [[], []]
    ((train,), (test,)) = (entries for entries, _ in found)
    assert (train.name, train.label, len(train.files)) == ("00001", DFEW_LABELS.index("fear"), 3)
    assert (test.name, test.label) == ("00012", DFEW_LABELS.index("happy"))


def test_mafw_is_found_by_the_authors_lists_and_by_its_own(tmp_path: Path) -> None:
    for clip in ("00025", "00028"):
        make_frames(tmp_path / "clips_faces" / clip, [0, 1, 2], name="{}.jpg")
    (tmp_path / "clips_wav").mkdir()
    soundfile.write(tmp_path / "clips_wav" / "00025.wav", tone(0.1, 440), RATE_HZ)
    own = tmp_path / "Train & Test Set" / "single" / "no_caption" / "set_3"
    put(own / "train.txt", "00025.mp4 anger\n")
    put(own / "test.txt", "00028.mp4 disappointment\n")
    fold = find_fold("mafw", 3, tmp_path)
    (entries, problems), (tests, _) = (
        scan_list(path, fold.frames_root, fold.audio_root, fold.labels) for path in (fold.train_list, fold.val_list)
    )
    assert problems == [] and entries[0].label == MAFW_LABELS.index("angry") and entries[0].wav is not None
    assert tests[0].label == 10 and tests[0].wav is None
    put(own / "test.txt", "00028.mp4 bored\n")
    assert "'bored', none of happy" in str(scan_list(fold.val_list, fold.frames_root, None, fold.labels)[1][0])
    for split in ("train", "test"):
        put(tmp_path / "annotation" / f"MAFW_set_3_{split}_faces.txt", "/scratch/mfaw/clips_faces/00025 2 10\n")
    fold = find_fold("mafw", 3, tmp_path)
    assert fold.train_list.name == "MAFW_set_3_train_faces.txt" and len(fold.labels) == 11
    (entry,) = clips_of(fold.train_list, fold.frames_root, fold.audio_root, 11)
    assert len(entry.files) == 2  # as many as the list says


def test_the_folder_is_the_option_then_the_environment_then_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DFEW_ROOT", raising=False)
    for name in ("given", "environment", "data/DFEW"):
        dfew_frames(tmp_path / name)
        for split in ("train", "test"):
            put(tmp_path / name / f"DFEW_set_1_{split}.txt", "00001 3 0\n")
    assert find_fold("dfew", 1, None).frames_root.resolve() == tmp_path / "data" / "DFEW" / "clip_224x224"
    monkeypatch.setenv("DFEW_ROOT", str(tmp_path / "environment"))
    assert find_fold("dfew", 1, None).frames_root.parent == tmp_path / "environment"
    assert find_fold("dfew", 1, tmp_path / "given").frames_root.parent == tmp_path / "given"
    elsewhere = find_fold("dfew", 1, tmp_path / "given", tmp_path / "data", tmp_path / "environment")
    assert (elsewhere.frames_root, elsewhere.audio_root) == (tmp_path / "data", tmp_path / "environment")


def refusal(*arguments: object) -> str:
    with pytest.raises(MMAEdgeError) as error:
        find_fold(*arguments)
    return one_line(error.value)


def test_what_is_not_there_is_named_with_every_place_that_was_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MAFW_ROOT", raising=False)
    said = refusal("mafw", 1, None)
    assert "data/MAFW, data/mafw, MAFW, mafw" in said and "MAFW_ROOT" in said
    root = tmp_path / "m"
    assert "is not a folder" in refusal("mafw", 1, root)
    root.mkdir()
    said = refusal("mafw", 2, root)
    assert "no train list of fold 2" in said and "MAFW_set_2_train_faces.txt" in said and "annotation" in said
    put(root / "annotation" / "MAFW_set_2_train_faces.txt", "00001 1 0")
    assert "no test list of fold 2" in refusal("mafw", 2, root)
    put(root / "annotation" / "MAFW_set_2_test_faces.txt", "00002 1 0")
    said = refusal("mafw", 2, root)
    assert "m/clips_faces" in said and "--frames-root" in said
    (root / "clips_faces").mkdir()
    said = refusal("mafw", 2, root)
    assert "m/clips_wav" in said and "--audio-root none" in said
    assert find_fold("mafw", 2, root, None, Path("none")).frames_root == root / "clips_faces"


@pytest.mark.parametrize(
    ("dataset", "fold", "range_"), [("dfew", 6, "1 to 5"), ("mafw", 0, "1 to 5"), ("prepared", 3, "1 to 2")]
)
def test_a_fold_that_does_not_exist_is_one_line(tmp_path: Path, dataset: str, fold: int, range_: str) -> None:
    put(tmp_path / "dataset.json", json.dumps({"schema": 1, "labels": ["a", "b"], "folds": 2}))
    with pytest.raises(UsageError, match=f"fold {fold} of .*; expected {range_}"):
        find_fold(dataset, fold, tmp_path)


@pytest.mark.parametrize("text", ["{}", "[]", "no json", '{"schema": 2, "labels": ["a"], "folds": 1}'])
def test_a_damaged_description_of_prepared_data_is_refused(tmp_path: Path, text: str) -> None:
    put(tmp_path / "dataset.json", text)
    with pytest.raises(DataError, match=r"dataset\.json cannot be used"):
        find_fold("prepared", 1, tmp_path)


def parse(*arguments: object) -> argparse.Namespace:
    return cli.build_parser().parse_args(list(map(str, arguments)))


def test_a_user_types_the_data_set_and_the_fold_and_has_the_papers_recipe() -> None:
    args = parse("--dataset", "dfew", "--fold", 3)
    assert (args.fold, args.data, args.model) == (3, None, "vit-b")
    assert parse("--dataset", "mafw").fold == 1 and parse("--fold", "all").fold == "all"
    assert cli_data.RECIPES["dfew"] == cli_data.RECIPES["mafw"] == cli_data.RECIPES["prepared"] == Recipe()


@pytest.mark.parametrize("text", ["0", "-1", "first", "1.5", ""])
def test_a_fold_is_a_number_or_all(text: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        parse(f"--fold={text}")
    assert "is not a fold" in capsys.readouterr().err


def test_labels_follow_the_data_set_unless_the_user_gives_them(tmp_path: Path) -> None:
    put(tmp_path / "dataset.json", json.dumps({"schema": 1, "labels": ["calm", "wild"], "folds": 1}))
    for options, labels in (
        (("--dataset", "dfew"), ",".join(DFEW_LABELS)),
        (("--dataset", "mafw"), ",".join(MAFW_LABELS)),
        (("--dataset", "prepared", "--data", tmp_path), "calm,wild"),
        (("--dataset", "lists"), None),
        (("--dataset", "mafw", "--labels", "a,b"), "a,b"),
    ):
        args = parse(*options)
        cli_data.set_labels(args)
        assert args.labels == labels


def test_a_model_of_other_classes_is_refused_before_any_clip_is_looked_at(tmp_path: Path) -> None:
    dfew_frames(tmp_path)
    for split in ("train", "test"):
        put(tmp_path / f"DFEW_set_1_{split}.txt", "00001 3 0\n")
    with pytest.raises(UsageError, match="a model of the 3 classes happy, sad, angry for --dataset dfew"):
        cli_data.make_task(parse("--dataset", "dfew", "--data", tmp_path), TINY, Recipe())
    for options, message in (
        (("--dataset", "prepared"), "no --data"),
        (("--dataset", "dfew", "--fold", "all"), "one fold is needed"),
        (("--dataset", "dfew", "--train-list", "x"), "--dataset lists"),
        (("--dataset", "lists"), "no lists"),
    ):
        with pytest.raises(UsageError, match=message):
            cli_data.make_task(parse(*options), SEVEN, Recipe())
