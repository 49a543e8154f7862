"""Layouts of raw videos that mma-train prepare understands: class folders, a CSV, the lists of the data sets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import one_line
from square_videos import ONE_RED, Squares, failures, listed, make_video, run
from whole_lists import clips_of

from mma_edge.errors import DataError
from mma_trainer.commands import prepare as prepare_cli
from mma_trainer.data.preparation import cut as prepare
from mma_trainer.data.preparation.layouts import Layout, Video, clip_name, csv_table, split_folds
from mma_trainer.data.protocols import find_fold


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of two videos."""
    monkeypatch.setattr(prepare, "_detector", Squares)
    for label in ("calm", "wild"):
        for number in range(2):
            make_video(tmp_path / "videos" / label / f"{number}.mkv", ONE_RED)
    return tmp_path / "videos"


def test_a_csv_gives_labels_and_folds(videos: Path, tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    rows = ["path,label,fold", "calm/0.mkv,calm,0", "calm/1.mkv,calm,1", "wild/0.mkv,wild,0", "wild/1.mkv,wild,1"]
    table.write_text("\n".join([*rows, "wild/none.mkv,wild,0", "wild/0.mkv,wild,1"]))
    out = tmp_path / "out"
    assert run("--csv", table, "--videos", videos, "--output", out) == 0
    assert listed(out, 1, "test") == {"calm__0", "wild__0"} and listed(out, 2, "test") == {"calm__1", "wild__1"}
    assert failures(out)["wild__none"] == ("no such video", "yes")
    assert failures(out)["wild__0"] == ("entry that cannot be used", "yes")  # two videos of one name
    assert json.loads((out / "dataset.json").read_text())["folds"] == 2
    table.write_text("label,path,fold\n1,calm/0.mkv,train\n0,wild/0.mkv,test\n0,wild/1.mkv,train\n7,wild/1.mkv,train\n")
    assert run("--csv", table, "--videos", videos, "--output", out, "--labels", "wild,calm") == 0
    assert listed(out, 1, "train") == {"calm__0", "wild__1"} and listed(out, 1, "test") == {"wild__0"}
    assert "label '7' is not one of wild, calm" in (out / "failures.csv").read_text()


def test_raw_videos_of_mafw_follow_the_authors_lists(videos: Path, tmp_path: Path) -> None:
    for name in ("00001.mkv", "2.mkv", "00003.mkv"):
        make_video(tmp_path / "clips" / name, ONE_RED)
    (tmp_path / "annotation").mkdir()
    for fold in range(1, 6):
        for split, lines in (("train", ["00001 46 3", "00002 50 8"]), ("test", ["00003 20 10", "00004 20 0"])):
            text = "".join(f"/scratch/of/the/authors/clips_faces/{line}\n" for line in lines)
            (tmp_path / "annotation" / f"MAFW_set_{fold}_{split}_faces.txt").write_text(text)
    out = tmp_path / "out"
    arguments = ("--dataset", "mafw", "--data", tmp_path, "--videos", tmp_path / "clips", "--output", out)
    assert run(*arguments) == 0
    assert (out / "annotation" / "set_4_train.txt").read_text() == "clips_faces/00001 20 3\nclips_faces/00002 20 8\n"
    assert listed(out, 5, "test") == {"00003"} and failures(out) == {"00004": ("no such video", "yes")}
    # It is a folder of MAFW now, and a prepared data set.
    by_name, prepared = find_fold("mafw", 4, out), find_fold("prepared", 4, out)
    assert by_name.labels == prepared.labels and len(by_name.labels) == 11
    assert clips_of(by_name.train_list, by_name.frames_root, by_name.audio_root, 11)[0].wav is not None


def test_help_shows_the_layouts(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        prepare_cli.main(["--help"])
    assert "path,label[,person][,fold]" in capsys.readouterr().out


def test_a_message_about_folds_in_a_csv_says_what_was_expected(videos: Path, tmp_path: Path) -> None:
    for folds in ("1,3", "2,3", "1,1", "train,2", "odd,train"):
        first, second = folds.split(",")
        (tmp_path / "t.csv").write_text(f"path,label,fold\ncalm/0.mkv,a,{first}\nwild/0.mkv,b,{second}\n")
        with pytest.raises(DataError) as error:
            csv_table(tmp_path / "t.csv", videos, None)
        assert "t.csv" in one_line(error.value) or "expected" in str(error.value)


def test_names_of_clips_are_flat_and_harmless() -> None:
    assert clip_name("happy/clip 1.mp4") == "happy__clip_1"
    assert clip_name("a/b/c.d.mp4") == "a__b__c.d"
    assert "/" not in clip_name("../../etc/passwd") and not clip_name("../x.mp4").startswith(".")
    assert clip_name("щастя/кліп.mp4") == "щастя__кліп"


def test_every_class_is_in_both_lists_of_a_single_fold_and_folds_are_of_equal_size() -> None:
    videos = tuple(Video(f"{label}_{number}", None, label) for label, n in enumerate((2, 3, 40)) for number in range(n))
    layout = split_folds(Layout(videos, ("a", "b", "c"), 0), 1, 0.2, 1)
    for label, count in ((0, 1), (1, 1), (2, 8)):
        assert sum(video.split(1) == "test" for video in layout.videos if video.label == label) == count
    layout = split_folds(Layout(videos, ("a", "b", "c"), 0), 5, 0.2, 1)
    sizes = [sum(video.split(fold) == "test" for video in layout.videos) for fold in range(1, 6)]
    assert sizes == [9, 9, 9, 9, 9]
