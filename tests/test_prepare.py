"""Promises of mma-train prepare: the runtime's own faces and sound, every failure named, nothing done twice."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from conftest import failure_line
from square_videos import BLUE, ONE_RED, RATE_HZ, RED, Squares, failures, listed, make_video, run, square_or_die
from whole_lists import clips_of

from mma_edge.errors import DataError, OutputError
from mma_edge.pipeline import Pipeline, StreamOptions
from mma_edge.sources import sample_path
from mma_edge.types import Clip
from mma_trainer.data.entries import load_clip
from mma_trainer.data.preparation import cut as prepare
from mma_trainer.data.preparation import pool
from mma_trainer.data.protocols import find_fold


@pytest.fixture
def squares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "_detector", Squares)


@pytest.fixture
def videos(tmp_path: Path, squares: None) -> Path:
    """Two classes: four good videos and five that are not."""
    root = tmp_path / "videos"
    for label, count in (("calm", 2), ("wild", 2)):
        for number in range(count):
            make_video(root / label / f"{number}.mkv", ONE_RED)
    make_video(root / "calm" / "faceless.mkv", [[]] * 5)
    make_video(root / "calm" / "voice.mkv", [])
    make_video(root / "wild" / "silent.mkv", ONE_RED, sound_s=0)
    make_video(root / "wild" / "click.mkv", ONE_RED, sound_s=0.01)
    (root / "wild" / "broken.mp4").write_bytes(b"\0\1\2 no film")
    (root / "wild" / "empty.mp4").write_bytes(b"")
    return root


def test_every_failure_is_named_with_its_kind_and_the_rest_is_prepared(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    assert run("--classes", videos, "--output", out, "--val-share", 0.5) == 0
    assert failures(out) == {
        "calm__faceless": ("no face", "yes"),
        "calm__voice": ("no video track", "yes"),
        "wild__broken": ("unreadable video", "yes"),
        "wild__empty": ("unreadable video", "yes"),
        "wild__click": ("sound shorter than a window of the log-mel", "no"),
    }
    said = capsys.readouterr().out
    assert "6 clips of 10 videos" in said and "2 unreadable video, 1 no face" in said.replace("\n", " ")
    for name in failures(out):
        assert name in said
    good = {"calm__0", "calm__1", "wild__0", "wild__1", "wild__silent", "wild__click"}
    assert listed(out, 1, "train") | listed(out, 1, "test") == good
    assert {path.name for path in (out / "clips_faces").iterdir()} == good
    assert {path.stem for path in (out / "clips_wav").iterdir()} == good - {"wild__silent", "wild__click"}
    assert not (out / "clips_work").exists()
    assert run("--classes", videos, "--output", out, "--strict") == DataError.exit_code
    assert "(--strict)" in capsys.readouterr().err


def test_what_is_prepared_is_trained_on_by_its_own_labels_and_folds(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("--classes", videos, "--output", out, "--labels", "wild,calm", "--folds", 2) == 0
    tests = [listed(out, fold, "test") for fold in (1, 2)]
    assert not tests[0] & tests[1] and listed(out, 1, "train") == tests[1] and listed(out, 2, "train") == tests[0]
    fold = find_fold("prepared", 2, out)
    assert fold.labels == ("wild", "calm")
    for path in (fold.train_list, fold.val_list):
        for clip in clips_of(path, fold.frames_root, fold.audio_root, 2):
            assert clip.label == (0 if clip.name.startswith("wild") else 1)
            assert len(clip.files) == 20 and (clip.wav is None) == (clip.name in ("wild__silent", "wild__click"))


def test_the_division_into_folds_depends_on_names_and_seed_alone(videos: Path, tmp_path: Path) -> None:
    splits = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 5)):
        assert run("--classes", videos, "--output", tmp_path / name, "--folds", 3, "--seed", seed) == 0
        splits[name] = [listed(tmp_path / name, fold, "test") for fold in (1, 2, 3)]
    assert splits["a"] == splits["b"] != splits["c"]


def test_of_several_faces_the_longest_seen_is_taken_then_the_largest(squares: None, tmp_path: Path) -> None:
    small, large = (RED, 5, 5, 24), (BLUE, 50, 50, 40)
    make_video(tmp_path / "v" / "a" / "longest.mkv", [[small, large]] * 5 + [[small]] * 15)
    make_video(tmp_path / "v" / "a" / "largest.mkv", [[small, large]] * 12)
    assert run("--classes", tmp_path / "v", "--output", tmp_path / "out", "--format", "png") == 0
    for name, count, channel in (("a__longest", 20, 0), ("a__largest", 12, 2)):
        (clip,) = [
            clip
            for split in ("train", "test")
            for clip in clips_of(tmp_path / "out" / "annotation" / f"set_1_{split}.txt", tmp_path / "out", None, 1)
            if clip.name == name
        ]
        assert len(clip.files) == count
        assert load_clip(clip, 16, None)[0][..., channel].mean() > 150


def test_a_second_run_makes_only_what_is_missing_or_has_changed(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, made = tmp_path / "out", []
    cut = prepare._cut
    monkeypatch.setattr(prepare, "_cut", lambda video, *rest: made.append(video.name) or cut(video, *rest))
    assert run("--classes", videos, "--output", out) == 0
    assert len(made) == 10
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    made.clear()
    assert run("--classes", videos, "--output", out) == 0
    assert made == [] and before == {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    make_video(videos / "wild" / "broken.mp4", ONE_RED)  # repaired
    (out / "clips_done" / "calm__1.json").unlink()  # interrupted before it was whole
    make_video(videos / "calm" / "new.mkv", ONE_RED)
    assert run("--classes", videos, "--output", out) == 0
    assert sorted(made) == ["calm__1", "calm__new", "wild__broken"] and "wild__broken" not in failures(out)
    made.clear()
    assert run("--classes", videos, "--output", out, "--crop-size", 32) == 0
    assert len(made) == 11  # other options make other clips
    made.clear()
    assert run("--classes", videos, "--output", out, "--crop-size", 32, "--overwrite") == 0
    assert len(made) == 11


def test_an_interruption_keeps_what_is_whole_and_leaves_nothing_half_done(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out, calls, move = tmp_path / "out", [], prepare._move

    def interrupted(outcome: prepare.Outcome, *rest: Path) -> None:
        calls.append(outcome.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        move(outcome, *rest)

    monkeypatch.setattr(prepare, "_move", interrupted)
    assert run("--classes", videos, "--output", out) == 130
    assert len(list((out / "clips_done").iterdir())) == 2 and not list((out / "clips_work").iterdir())
    assert not (out / "dataset.json").exists()
    with pytest.raises(DataError, match="prepare again"):
        find_fold("prepared", 1, out)
    assert run("--classes", videos, "--output", out) == 0
    assert len(calls) == 3 + 8 and (out / "dataset.json").exists()
    assert "2 of 10 videos are done already" in capsys.readouterr().out


def test_the_centre_is_taken_only_when_asked_for_and_only_without_any_face(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_video(videos / "calm" / "late.mkv", [[]] * 30 + ONE_RED[:4])
    assert run("--classes", videos, "--output", out, "--centre-fallback", "--format", "png") == 0
    assert "calm__faceless" not in failures(out)
    sizes = {name: len(list((out / "clips_faces" / name).iterdir())) for name in ("calm__faceless", "calm__late")}
    assert sizes["calm__faceless"] == 5 and 1 <= sizes["calm__late"] <= 4


def test_the_first_channel_is_kept_at_its_own_rate(videos: Path, tmp_path: Path) -> None:
    assert run("--classes", videos, "--output", tmp_path / "out") == 0
    wave, rate = soundfile.read(tmp_path / "out" / "clips_wav" / "calm__0.wav", dtype="float32")
    times = np.arange(round(0.5 * RATE_HZ)) / RATE_HZ
    assert rate == RATE_HZ and wave.shape == times.shape
    np.testing.assert_allclose(wave, 0.5 * np.sin(2 * np.pi * 440 * times), atol=1e-4)


def test_training_sees_to_the_bit_what_the_runtime_sees_and_hears_the_same(tmp_path: Path) -> None:
    """A real face and voice through the runtime's pipeline, whole, and through prepare with the real detector."""
    sample = tmp_path / "v" / "only" / "sample.mp4"
    sample.parent.mkdir(parents=True)
    with av.open(str(sample_path())) as whole, av.open(str(sample), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in whole.streams}
        for packet in whole.demux():
            if packet.dts is not None and packet.pts * packet.time_base < 1:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    clips: list[Clip] = []

    class Recognizer:
        image_size = 48

        def predict_clips(self, given: list[Clip]) -> list:
            clips.extend(given)
            return []

    with Pipeline.open(Recognizer(), sample, StreamOptions(whole=True)) as pipeline:
        assert list(pipeline) == []
    (seen,) = clips
    assert run("--classes", tmp_path / "v", "--output", tmp_path / "out", "--format", "png") == 0
    (clip,) = clips_of(tmp_path / "out" / "annotation" / "set_1_train.txt", tmp_path / "out", None, 1)
    frames, mel = load_clip(clip, 48, None)
    assert len(clip.files) > 16 and frames.std() > 10 and mel.std() > 1
    np.testing.assert_array_equal(frames, seen.frames)
    # Training subtracts the mean of the whole wave, which a stream cannot know: rounding, where it is quiet.
    np.testing.assert_allclose(mel, seen.mel, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "one of --classes DIR"),
        (("--classes", "{}", "--csv", "{}"), "--classes and --csv"),
        (("--classes", "{}/none"), "cannot be read"),
        (("--classes", "{}"), "no folders"),
        (("--classes", "{}", "--workers", 0), "--workers 0"),
        (("--classes", "{}", "--crop-size", -1), "--crop-size -1"),
        (("--classes", "{}", "--labels", "a,a"), "--labels a,a"),
        (("--csv", "{}/none.csv"), "cannot be read"),
        (("--dataset", "dfew"), "without --data and --videos"),
        (("--dataset", "dfew", "--data", "{}", "--videos", "{}"), "no videos in"),
    ],
)
def test_a_wrong_command_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, arguments: tuple, message: str
) -> None:
    (tmp_path / "in").mkdir()
    filled = [str(argument).format(tmp_path / "in") for argument in arguments]
    assert run("--output", tmp_path / "out", *filled) in (2, DataError.exit_code)
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and "Traceback" not in said


def test_an_output_that_cannot_be_written_and_videos_that_all_fail_are_one_line(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    assert run("--classes", videos, "--output", tmp_path / "file") == OutputError.exit_code
    failure_line(capsys)
    make_video(tmp_path / "bad" / "x" / "1.mkv", [[]] * 3)
    assert run("--classes", tmp_path / "bad", "--output", tmp_path / "out") == DataError.exit_code
    assert "0 clips of 1 videos" in capsys.readouterr().err


def test_a_video_that_kills_its_process_costs_no_more_than_itself() -> None:
    results = dict(pool.run_all(square_or_die, range(6), 2, lambda number: -1))
    assert results == {number: -1 if number == 3 else number * number for number in range(6)}


def test_several_processes_prepare_the_same(tmp_path: Path, squares: None) -> None:
    for number in range(3):  # without a face: the real detector of the other processes is quick with them
        make_video(tmp_path / "v" / "a" / f"{number}.mkv", [[]] * 3)
    options = ("--classes", tmp_path / "v", "--centre-fallback", "--format", "png")
    assert run(*options, "--output", tmp_path / "one") == 0
    assert run(*options, "--output", tmp_path / "two", "--workers", 2) == 0
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")]
    files = [file for file in files if file.suffix in (".png", ".txt", ".wav")]
    assert len(files) == 3 * (3 + 1) + 2
    for file in files:
        one, two = tmp_path / "one" / file, tmp_path / "two" / file
        if file.suffix == ".wav":  # its header has the time of writing
            np.testing.assert_array_equal(soundfile.read(one)[0], soundfile.read(two)[0])
        else:
            assert one.read_bytes() == two.read_bytes()


def test_the_sound_alone_is_the_same_sound_and_is_not_extracted_twice(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--classes", videos, "--output", tmp_path / "whole") == 0
    out = tmp_path / "raw_wav"
    assert run("--sound-only", "--videos", videos / "calm", "--output", out) == 0
    assert {path.name for path in out.glob("*.wav")} == {"0.wav", "1.wav", "faceless.wav", "voice.wav"}
    for name in ("0", "1"):
        expected, rate = soundfile.read(tmp_path / "whole" / "clips_wav" / f"calm__{name}.wav")
        found = soundfile.read(out / f"{name}.wav")
        assert found[1] == rate
        np.testing.assert_array_equal(found[0], expected)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.wav")}
    (out / "1.wav").unlink()
    assert run("--sound-only", "--videos", videos / "calm", "--output", out) == 0
    changed = [path.name for path, time in before.items() if path.stat().st_mtime_ns != time]
    assert changed == ["1.wav"] and not list(out.glob("*.part*"))
    capsys.readouterr()
    assert run("--sound-only", "--videos", videos / "wild", "--output", tmp_path / "other") == 0
    said = capsys.readouterr().out
    assert "2 wavs of 6 videos" in said and "silent: no audio track" in said and "click: sound of 160 samples" in said
    assert run("--sound-only", "--videos", videos / "wild", "--output", out, "--strict") == DataError.exit_code
    assert run("--sound-only", "--output", out) == 2
