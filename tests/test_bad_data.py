"""Bad data is named clip by clip before training starts, counted, and left out when asked."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import RATE_HZ, SEVEN, make_frames, make_model, one_line, tone

from mma_edge.errors import DataError
from mma_trainer.commands import data_options as cli_data
from mma_trainer.commands import train as cli
from mma_trainer.data import check
from mma_trainer.data.check import Problem, settle
from mma_trainer.data.lists import scan_fold
from mma_trainer.labels import DFEW_LABELS
from mma_trainer.weights.checkpoint import Checkpoint, save_checkpoint

CLIPS = 21


@pytest.fixture
def fold(tmp_path: Path) -> Path:
    """A good fold: clips 1 to 14 to train on, 15 to 21 to test on, every class in both, all with sound."""
    for clip in range(1, CLIPS + 1):
        make_frames(tmp_path / "clip_224x224" / f"{clip:05d}", [1, 2, 3])
        (tmp_path / "raw_wav").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "raw_wav" / f"{clip}.wav", tone(0.1, 440), RATE_HZ)
    write(tmp_path, "train", [f"{clip:05d} 3 {clip % 7}" for clip in range(1, 15)])
    write(tmp_path, "test", [f"{clip:05d} 3 {clip % 7}" for clip in range(15, CLIPS + 1)])
    return tmp_path


def write(root: Path, split: str, lines: list[str]) -> None:
    (root / f"DFEW_set_1_{split}.txt").write_text("\n".join(lines) + "\n")


def lines(root: Path, split: str) -> list[str]:
    return (root / f"DFEW_set_1_{split}.txt").read_text().splitlines()


def scan(root: Path) -> tuple[list, list, list[Problem]]:
    paths = (root / f"DFEW_set_1_{split}.txt" for split in ("train", "test"))
    return scan_fold(*paths, root / "clip_224x224", None, DFEW_LABELS)


def frame(root: Path, clip: int, number: int) -> Path:
    return root / "clip_224x224" / f"{clip:05d}" / f"{number}.jpg"


def spoil(root: Path) -> dict[str, str]:
    """One of everything; returns what must be said about each clip."""
    frame(root, 1, 3).unlink()
    frame(root, 2, 1).write_bytes(b"no picture")
    soundfile.write(root / "raw_wav" / "3.wav", np.zeros(0, np.float32), RATE_HZ)
    (root / "raw_wav" / "4.wav").write_bytes(b"")
    (root / "raw_wav" / "5.wav").write_bytes(b"no sound")
    soundfile.write(root / "raw_wav" / "6.wav", tone(0.1, 440), 2000)
    for number in (1, 2, 3):
        frame(root, 9, number).unlink()
    listed = lines(root, "train")
    listed[6] = "00007 3 7"
    write(root, "train", [*listed, "what is this", "00010 3 3", "00011 3 5", "00099 3 0", "00015 3 1"])
    return {
        "00001": "missing frames",
        "00002": "unreadable frame",
        "00003": "zero-length wav",
        "00004": "zero-length wav",
        "00005": "unreadable wav",
        "00006": "unreadable wav",
        "00007": "label out of range",
        "00009": "missing frames",
        "00010": "clip listed twice",
        "00011": "clip listed twice",
        "00015": "clip in both lists",
        "00099": "missing frames",
    }


def test_a_good_fold_has_no_problems(fold: Path) -> None:
    train, val, problems = scan(fold)
    assert problems == [] and len(train) == 14 and len(val) == 7
    assert all(entry.wav for entry in (*train, *val))


def test_each_kind_of_bad_clip_is_found_in_one_look_and_the_others_are_kept(fold: Path) -> None:
    expected = spoil(fold)
    train, val, problems = scan(fold)
    assert {problem.clip: problem.kind for problem in problems if problem.clip} == expected
    assert all(problem.where.startswith("DFEW_set_1_train.txt") for problem in problems)
    assert [p.text for p in problems if p.kind == check.BAD_LINE] == ["cannot be parsed: 'what is this'"]
    # Listed twice with one class, it stays once; with two classes, nobody knows.
    assert [entry.name for entry in train] == ["00008", "00010", "00012", "00013", "00014"]
    assert [entry.name for entry in val] == [f"{clip:05d}" for clip in range(15, 22)]
    assert not {entry.name for entry in train} & {entry.name for entry in val}


def test_a_class_without_clips_is_named_in_either_list(fold: Path) -> None:
    write(fold, "train", [line for line in lines(fold, "train") if not line.endswith(" 5")])
    write(fold, "test", [line for line in lines(fold, "test") if line[-1] not in "06"])
    problems = scan(fold)[2]
    assert [str(problem) for problem in problems] == [
        "DFEW_set_1_train.txt: no usable clip of class 5 (disgust)",
        "DFEW_set_1_test.txt: no usable clip of class 0 (happy)",
        "DFEW_set_1_test.txt: no usable clip of class 6 (fear)",
    ]


def test_a_class_that_is_lost_with_its_bad_clips_counts_as_absent(fold: Path) -> None:
    for clip in (5, 12):
        frame(fold, clip, 2).unlink()
    assert [problem.kind for problem in scan(fold)[2]] == ["missing frames"] * 2 + ["class without clips"]


def test_two_folders_of_one_name_are_refused_both(fold: Path) -> None:
    for parent in ("a", "b"):
        make_frames(fold / "clip_224x224" / parent / "00030", [1, 2, 3])
    write(fold, "train", [*lines(fold, "train"), "a/00030 3 0", "b/00030 3 0"])
    train, _, problems = scan(fold)
    assert [problem.kind for problem in problems] == ["two clips with one name"]
    assert "a/00030" in problems[0].text and "b/00030" in problems[0].text
    assert "00030" not in {entry.name for entry in train}


def test_problems_are_said_one_by_one_then_counted_and_all_are_in_the_file(tmp_path: Path) -> None:
    problems = [Problem(check.MISSING_FRAMES, f"list line {n}", f"clip{n}", f"clip{n} has none") for n in range(70)]
    problems += [Problem(check.EMPTY_SOUND, "list line 71", "clip71", "no samples")]
    said: list[str] = []
    with pytest.raises(DataError) as error:
        settle(problems, False, tmp_path / "run", said.append)
    assert said == [f"bad: list line {n}: clip{n} has none" for n in range(50)] + ["bad: and 21 more"]
    summary = "71 problems in the data: 70 missing frames, 1 zero-length wav"
    assert summary in one_line(error.value) and "--skip-bad" in str(error.value)
    with (tmp_path / "run" / "bad_clips.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 71 and rows[70] == {
        "kind": "zero-length wav", "where": "list line 71", "clip": "clip71", "problem": "no samples",
    }  # fmt: skip
    said.clear()
    settle(problems, True, None, said.append)
    assert said[-1] == f"going on (--skip-bad) with {summary}" and len(said) == 52
    said.clear()
    settle([], False, tmp_path / "other", said.append)
    assert said == [] and not (tmp_path / "other").exists()


@pytest.fixture
def seven(tmp_path: Path) -> Path:
    path = tmp_path / "seven.pt"
    save_checkpoint(path, Checkpoint(SEVEN, make_model(SEVEN).state_dict(), {}))
    return path


def mma_train(fold: Path, checkpoint: Path, *options: object) -> int:
    fixed = (
        "--dataset",
        "dfew",
        "--data",
        fold,
        "--init",
        checkpoint,
        "--epochs",
        1,
        "--workers",
        0,
        "--batch-size",
        4,
    )
    return cli.main([*map(str, fixed), "--run", str(fold / "run"), *map(str, options)])


def test_training_stops_before_it_starts_or_goes_on_without_the_bad_clips(
    fold: Path, seven: Path, capsys: pytest.CaptureFixture
) -> None:
    expected = spoil(fold)
    assert mma_train(fold, seven) == DataError.exit_code
    said = capsys.readouterr().err.splitlines()
    for clip in expected:
        assert sum(clip in line or clip.lstrip("0") + ".wav" in line for line in said) >= 1, clip
    assert said[-1].startswith("error: 15 problems in the data: 3 missing frames, ")
    assert "--skip-bad" in said[-1] and not any("Traceback" in line for line in said)
    assert not (fold / "run" / "last.pt").exists()
    assert len((fold / "run" / "bad_clips.csv").read_text().splitlines()) == 16
    assert mma_train(fold, seven, "--skip-bad") == 0
    captured = capsys.readouterr()
    assert "going on (--skip-bad) with 15 problems" in captured.err
    assert "1 batches of 4 per epoch" in captured.out and "on 7 clips" in captured.out


def test_a_good_fold_is_trained_on_without_a_word_about_it(
    fold: Path, seven: Path, capsys: pytest.CaptureFixture
) -> None:
    assert mma_train(fold, seven, "--fold", 1) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and "3 batches of 4 per epoch" in captured.out and "silence" not in captured.out
    assert not (fold / "run" / "bad_clips.csv").exists()


def test_clips_without_a_wav_are_counted_aloud_unless_sound_was_declined(
    fold: Path, capsys: pytest.CaptureFixture
) -> None:
    (fold / "raw_wav" / "2.wav").unlink()
    for audio_root, said in (
        ([], "1 of 21 clips have no wav and are heard as silence\n"),
        (["--audio-root", "none"], ""),
    ):
        parser = argparse.ArgumentParser()
        cli_data.add_data_options(parser)
        args = parser.parse_args(["--dataset", "dfew", "--data", str(fold), *audio_root])
        args.run = fold / "run"
        train, _ = cli_data.open_clips(args, cli_data.open_fold(args, SEVEN))
        assert capsys.readouterr() == (said, "")
    assert all(entry.wav is None for entry in train)


def test_only_the_first_process_of_several_reports(
    fold: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame(fold, 1, 1).unlink()
    parser = argparse.ArgumentParser()
    cli_data.add_data_options(parser)
    args = parser.parse_args(["--dataset", "dfew", "--data", str(fold), "--skip-bad"])
    args.run = fold / "run"
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    train, _ = cli_data.open_clips(args, cli_data.open_fold(args, SEVEN))
    assert capsys.readouterr() == ("", "") and len(train) == 13 and not args.run.exists()
