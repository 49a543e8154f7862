"""Nobody is trained on and tested: people from sub-folders, a column or the file's name, and what is said of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import failure_line, one_line
from square_videos import ONE_RED, Squares, listed, make_video, run

from mma_edge.errors import DataError, UsageError
from mma_trainer.commands import train as cli
from mma_trainer.commands.data_options import make_task, people_on_sides
from mma_trainer.data.preparation import cut
from mma_trainer.data.preparation.layouts import Layout, Video, class_folders, csv_table
from mma_trainer.data.preparation.people import (
    check_sides,
    cross_validation_folds,
    divide,
    name_people,
    person_pattern,
    side_lines,
    warnings,
)
from mma_trainer.data.protocols import describe
from mma_trainer.model import MMADFERConfig
from mma_trainer.training.recipe import Recipe

CLASSES = ("calm", "tense", "wild")


def videos_of(people: dict[str, tuple[int, ...]]) -> Layout:
    """Of each person so many videos of each class; "" for videos of whom nobody knows."""
    videos = [
        Video(f"{CLASSES[label]}__{person}_{number}", None, label, person=person or None)
        for person, counts in people.items()
        for label, count in enumerate(counts)
        for number in range(count)
    ]
    return Layout(tuple(videos), CLASSES, 0)


def people_in(layout: Layout, fold: int, split: str) -> set[str | None]:
    return {video.person for video in layout.videos if video.split(fold) == split}


FIVE = {"ada": (4, 4, 4), "ben": (4, 4, 4), "cy": (2, 2, 2), "dee": (2, 2, 2), "eve": (8, 0, 0)}


@pytest.mark.parametrize("folds", [1, 2, 3, 5])
def test_nobody_is_on_both_sides_of_any_fold_and_everybody_is_tested_once(folds: int) -> None:
    layout = divide(videos_of(FIVE), folds, 0.2, 1)
    assert layout.folds == folds
    tested = [people_in(layout, fold, "test") for fold in range(1, folds + 1)]
    for fold, test in enumerate(tested, 1):
        train = people_in(layout, fold, "train")
        assert test and train and not test & train and test | train == set(FIVE)
    if folds > 1:
        assert sorted(name for test in tested for name in test) == sorted(FIVE)
    assert divide(videos_of(FIVE), folds, 0.2, 1) == layout  # nothing but names, people and seed


def test_folds_are_about_equally_large_in_every_class() -> None:
    people = {f"p{number}": (number % 3 + 1,) * 3 for number in range(12)}
    layout = divide(videos_of(people), 4, 0.2, 7)
    for label in range(3):
        counts = [sum(v.split(fold) == "test" and v.label == label for v in layout.videos) for fold in range(1, 5)]
        assert sum(counts) == 24 and max(counts) - min(counts) <= 2


def test_a_single_fold_tests_about_the_share_and_leaves_every_class_something_to_train_on() -> None:
    for seed in range(8):
        layout = divide(videos_of(FIVE | {"eve": (0, 0, 9)} | {"cy": (2, 2, 0), "dee": (2, 2, 0)}), 1, 0.2, seed)
        trained = {video.label for video in layout.videos if video.split(1) == "train"}
        assert trained == {0, 1, 2}
        assert 2 <= len(layout.videos) / sum(video.split(1) == "test" for video in layout.videos) <= 12
    two = divide(videos_of({"ada": (3, 3, 3), "ben": (3, 3, 3)}), 1, 0.2, 1)
    assert len(people_in(two, 1, "test")) == len(people_in(two, 1, "train")) == 1


def test_more_folds_than_people_and_a_single_person_are_said() -> None:
    with pytest.raises(UsageError) as error:
        divide(videos_of({"ada": (9, 9, 9), "ben": (9, 9, 9)}), 3, 0.2, 1)
    assert "--folds 3 with clips of 2 people; expected at most 2" in one_line(error.value)
    layout = divide(videos_of({"ada": (5, 5, 5)}), 1, 0.2, 1)
    assert people_in(layout, 1, "test") == people_in(layout, 1, "train") == {"ada"}
    assert "nothing will be known about other people" in warnings(layout.videos)[0]


def test_what_cannot_be_known_is_warned_of() -> None:
    unknown, partly, known = (
        videos_of({"": (5, 5, 5)}),
        videos_of({"ada": (2, 2, 2), "ben": (2, 2, 2), "": (1, 0, 0)}),
        videos_of(FIVE),
    )
    assert "the same people may be on both sides" in warnings(unknown.videos)[0]
    assert "1 clips name no person (first: calm___0)" in warnings(partly.videos)[0]
    assert warnings(known.videos) == []
    assert side_lines(divide(unknown, 1, 0.2, 1).videos, 1) == [
        "fold 1: 12 clips of unknown people to train on, 3 clips of unknown people to test on"
    ]
    (line,) = side_lines(divide(known, 1, 0.2, 1).videos, 1)
    assert re.fullmatch(r"fold 1: \d+ clips of 4 people to train on, \d+ clips of 1 person to test on", line)


def test_cross_validation_has_a_fold_per_person_up_to_five() -> None:
    assert cross_validation_folds(videos_of({"ada": (9, 9, 9), "ben": (9, 9, 9)})) == 2
    assert cross_validation_folds(videos_of({str(number): (1, 1, 1) for number in range(9)})) == 5
    assert cross_validation_folds(videos_of({"": (9, 3, 9)})) == 3  # by clip: each class in every fold
    assert cross_validation_folds(videos_of({"ada": (1, 9, 9)})) == 2


def test_folds_that_come_with_the_videos_are_refused_where_they_part_nobody() -> None:
    both = Layout((Video("a", None, 0, (1,), None, "ada"), Video("b", None, 0, (2,), None, "ada")), CLASSES, 2)
    with pytest.raises(DataError) as error:
        check_sides(both)
    assert "ada in the training and in the test clips of fold 1; expected everybody on one side" in one_line(
        error.value
    )


def test_the_first_group_of_a_match_in_the_name_is_the_person() -> None:
    layout = Layout(
        (Video("x", Path("calm/01-02.mp4"), 0), Video("y", Path("wild/07-1.mp4"), 2, person="folder")), CLASSES, 0
    )
    assert [video.person for video in name_people(layout, person_pattern(r"^(\d+)-")).videos] == ["01", "07"]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(", "is not a regular expression"),
        (r"^\d+", "has no group; expected a regular expression whose first group is the person"),
        (r"^([a-z]+)", "finds nobody in 1 of 2 file names (first: 01.mkv); expected a person in every name"),
        (r"^(x?)", "finds nobody in 2 of 2 file names"),
    ],
)
def test_a_pattern_that_names_nobody_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, pattern: str, said: str
) -> None:
    (tmp_path / "v" / "calm").mkdir(parents=True)
    for name in ("01.mkv", "ada.mkv"):
        (tmp_path / "v" / "calm" / name).write_bytes(b"")
    assert run("--classes", tmp_path / "v", "--output", tmp_path / "out", "--person", pattern) in (2, 9)
    assert said in failure_line(capsys) and not (tmp_path / "out").exists()


def test_people_come_from_sub_folders_or_a_column(tmp_path: Path) -> None:
    for name in ("angry/ada/1.mp4", "angry/ben/2.mp4", "happy/ada/deep/3.mp4", "happy/4.mp4", "bored/ada/5.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    layout = class_folders(tmp_path, None)
    assert layout.labels == ("happy", "angry", "bored")  # the default model's order, then the others
    assert {video.path.name: video.person for video in layout.videos} == {
        "1.mp4": "ada", "2.mp4": "ben", "3.mp4": "ada", "4.mp4": None, "5.mp4": "ada",
    }  # fmt: skip
    table = tmp_path / "clips.csv"
    table.write_text("path,label,person\nangry/ada/1.mp4,angry,zoe\nhappy/4.mp4,happy,\nbored/ada/5.mp4,bored,yan\n")
    layout = csv_table(table, None, None)
    assert [video.person for video in layout.videos] == ["zoe", None, "yan"] and layout.labels[0] == "happy"
    assert run("--csv", table, "--output", tmp_path / "out", "--person", "(.)") == UsageError.exit_code
    assert (
        run(
            "--dataset",
            "dfew",
            "--data",
            tmp_path,
            "--videos",
            tmp_path,
            "--output",
            tmp_path / "out",
            "--person",
            "(.)",
        )
        == 2
    )


def test_a_prepared_set_trains_on_some_people_and_tests_others_though_a_class_is_of_one_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(cut, "_detector", Squares)
    for person, label in (("ada", "calm"), ("ada", "wild"), ("ben", "calm"), ("cy", "calm")):
        for number in range(2):
            make_video(tmp_path / "v" / label / f"{person}-{number}.mkv", ONE_RED[:4])
    out = tmp_path / "out"
    options = ("--classes", tmp_path / "v", "--labels", "calm,never,wild", "--person", "^(.+)-")
    assert run(*options, "--output", out, "--folds", 3) == 0
    said = capsys.readouterr().out
    assert "3 people: ada, ben, cy" in said and "fold 2: " in said and "warning" not in said
    assert re.search(r"set_\d_train.txt has no clip of wild\n", said)  # it is ada's alone
    assert "no clip of never in any list" in said
    description = json.loads((out / "dataset.json").read_text())
    assert description["labels"] == ["calm", "never", "wild"] and description["people"]["wild__ada-1"] == "ada"
    assert describe(out)["people"] == description["people"]
    for fold in (1, 2, 3):
        sides = [{description["people"][name] for name in listed(out, fold, split)} for split in ("train", "test")]
        assert not sides[0] & sides[1] and len(sides[1]) == 1
    # What prepare has said does not stop the training.
    args = cli.build_parser().parse_args(["--dataset", "prepared", "--data", str(out), "--workers", "0"])
    args.run = tmp_path / "run"
    config = MMADFERConfig(labels=("calm", "never", "wild"))
    task = make_task(args, config, Recipe(batch_size=2))
    assert people_on_sides(args, task) == {"people in training": 2, "people in test": 1, "people in both": 0}
