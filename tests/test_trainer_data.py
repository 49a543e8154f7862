"""Training data: frames sampled and augmented as in the paper, lists read whole or refused with every bad line."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import RATE_HZ, make_frames, one_line, tone
from whole_lists import clips_of

from mma_edge.audio import log_mel
from mma_edge.clip import frame_indices
from mma_edge.errors import DataError
from mma_trainer.data.check import settle
from mma_trainer.data.entries import load_clip, load_clips
from mma_trainer.data.lists import scan_list
from mma_trainer.data.public.voices import load_voices
from mma_trainer.data.sampling import augment_clip, clip_indices, random_sized_crop, train_indices
from mma_trainer.labels import DFEW_LABELS


@pytest.mark.parametrize("count", [16, 17, 31, 32, 33, 144])
def test_training_takes_one_random_frame_from_each_of_16_equal_segments(count: int) -> None:
    rng, segment = np.random.default_rng(0), count // 16
    draws = np.stack([train_indices(count, rng) for _ in range(200)])
    assert (draws // segment == np.arange(16)).all()
    assert {tuple(np.unique(column % segment)) for column in draws.T} == {tuple(range(segment))}


@pytest.mark.parametrize("count", [1, 2, 15])
def test_a_clip_shorter_than_16_frames_repeats_its_last_one(count: int) -> None:
    assert train_indices(count, np.random.default_rng(0)).tolist() == [min(i, count - 1) for i in range(16)]


def test_all_frames_of_a_clip_are_augmented_alike_and_clips_are_not() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    results = []
    for seed in range(8):
        clip = augment_clip([picture] * 16, 24, np.random.default_rng(seed))
        assert clip.shape == (16, 24, 24, 3) and clip.dtype == np.uint8
        assert (clip == clip[0]).all()
        results.append(clip[0])
    assert all((a != b).any() for a, b in itertools.pairwise(results))


def test_the_augmentation_is_brightness_crop_and_flip_as_in_the_paper() -> None:
    ramp = np.repeat(np.arange(100, dtype=np.uint8)[None, :, None], 100, axis=0).repeat(3, axis=2)
    factors, flips = [], 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        grey = augment_clip([np.full((50, 50, 3), 100, np.uint8)], 8, rng)
        assert grey.std() == 0
        factors.append(grey[0, 0, 0, 0] / 100)
        out = augment_clip([ramp], 8, rng)[0, 0, :, 0].astype(int)
        flips += out[0] > out[-1]
    assert 0.49 <= min(factors) < 0.55 and 1.45 < max(factors) <= 1.5
    assert 110 < flips < 190


def test_a_random_sized_crop_stays_inside_the_picture_and_the_papers_ranges() -> None:
    rng, areas = np.random.default_rng(0), []
    for _ in range(2000):
        height, width = (int(n) for n in rng.integers(2, 300, 2))
        y, x, h, w = random_sized_crop(height, width, rng)
        assert y >= 0 and x >= 0 and h >= 1 and w >= 1 and y + h <= height and x + w <= width
    for _ in range(500):
        y, x, h, w = random_sized_crop(224, 224, rng)
        areas.append(h * w / 224**2)
        assert 0.74 < w / h < 1.35
    assert 0.079 < min(areas) < 0.15 and 0.9 < max(areas) <= 1


def test_a_picture_no_crop_fits_into_gives_its_central_square() -> None:
    assert random_sized_crop(1000, 3, np.random.default_rng(0)) == (498, 0, 3, 3)


def test_dfews_wav_lies_in_the_parallel_tree_and_a_missing_one_is_zeros(dfew: Path) -> None:
    entries = clips_of(dfew / "train.txt", dfew, None, 7)
    assert [entry.label for entry in entries] == [clip % 7 for clip in range(1, 13)]
    assert entries[-1].wav == dfew / "raw_wav" / "12.wav"
    assert all(entry.wav is None for entry in entries[:-1])
    np.testing.assert_array_equal(load_clip(entries[-1], 16, None)[1], log_mel(tone(1.0, 440), RATE_HZ))
    assert not load_clip(entries[0], 16, None)[1].any()


def test_mafws_naming_and_an_explicit_audio_root_are_found_too(tmp_path: Path) -> None:
    for tree, wav in (("clips_faces", "clips_wav/00003.wav"), ("elsewhere", "sound/3.wav")):
        make_frames(tmp_path / tree / "00003", [1])
        (tmp_path / wav).parent.mkdir()
        soundfile.write(tmp_path / wav, tone(0.1, 440), RATE_HZ)
    (tmp_path / "list.txt").write_text(f"{tmp_path}/clips_faces/00003 1 0\n")
    assert clips_of(tmp_path / "list.txt", None, None, 7)[0].wav == tmp_path / "clips_wav" / "00003.wav"
    # The lists as published hold folders of the authors' machine: the last part counts.
    (tmp_path / "list.txt").write_text("/home/authors/elsewhere/00003 1 0\n")
    (entry,) = clips_of(tmp_path / "list.txt", tmp_path / "elsewhere", tmp_path / "sound", 7)
    assert entry.wav == tmp_path / "sound" / "3.wav"


def test_frames_follow_each_other_by_number_and_the_list_says_how_many(tmp_path: Path) -> None:
    make_frames(tmp_path / "clip", list(range(1, 121)), name="frame_{}.jpg")  # 10 sorts before 9 as text
    (tmp_path / "list.txt").write_text("clip 100 3")
    (entry,) = clips_of(tmp_path / "list.txt", tmp_path, None, 7)
    frames, _ = load_clip(entry, 16, None)
    assert frames.shape == (16, 16, 16, 3)
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), 2 * (frame_indices(100) + 1), atol=2)
    augmented = load_clip(entry, 16, np.random.default_rng(0))[0]
    assert (np.diff(augmented.mean(axis=(1, 2, 3))) > 0).all()


def test_one_test_clip_is_the_runtimes_and_two_share_no_frame(tmp_path: Path) -> None:
    for count in (1, 16, 17, 40, 100):
        assert (clip_indices(count, 1) == frame_indices(count)).all()
    for count in (32, 33, 100, 1000):
        two = clip_indices(count, 2)
        assert not set(two[0]) & set(two[1])
        # Both span the whole video: one clip's frames lie between the other's.
        assert (np.diff(two.T.ravel()) > 0).all() and two.max() < count
    assert (clip_indices(100, 2).T.ravel() == frame_indices(100, 32)).all()
    assert (clip_indices(20, 3) < 20).all()
    assert (clip_indices(9, 2) == frame_indices(9)).all()
    make_frames(tmp_path / "clip", list(range(1, 101)))
    soundfile.write(tmp_path / "clip.wav", tone(1.0, 440), RATE_HZ)
    (tmp_path / "list.txt").write_text("clip 100 3")
    entries = clips_of(tmp_path / "list.txt", tmp_path, tmp_path, 7)
    frames, mel = load_clips(entries[0], 16, 2)
    assert frames.shape == (2, 16, 16, 16, 3) and mel.shape == (2, 512, 128)
    np.testing.assert_allclose(frames.mean(axis=(2, 3, 4)), 2 * (clip_indices(100, 2) + 1), atol=2)
    alone = load_clip(entries[0], 16, None)
    for part, whole in zip(load_clips(entries[0], 16, 1), alone, strict=True):
        np.testing.assert_array_equal(part[0], whole)
    np.testing.assert_array_equal(mel[1], alone[1])


def test_face_crops_of_unequal_size_are_cropped_in_the_same_part() -> None:
    y, x = np.mgrid[0:90, 0:90]
    large = np.stack([x * 2, y * 2, x + y], axis=2).astype(np.uint8)
    small = large.reshape(30, 3, 30, 3, 3).mean(axis=(1, 3)).astype(np.uint8)
    for seed in range(40):
        a, b = augment_clip([small, large], 16, np.random.default_rng(seed))
        assert np.abs(a.astype(int) - b).max() < 9  # grey levels: a shift by a pixel of the small one is 6
        tiny = augment_clip([large, small[:2, :2]], 16, np.random.default_rng(seed))
        assert tiny.shape == (2, 16, 16, 3)


def test_all_bad_lines_of_a_list_are_named_at_once(dfew: Path) -> None:
    bad = {
        1: ("three words only here", "cannot be parsed"),
        2: ("clip_224x224/99999 20 0", "no folder"),
        3: ("clip_224x224/00001 21 0", "has 20 frames, the list says 21"),
        4: ("clip_224x224/00001 20 7", "class 7 of 7"),
        5: ("clip_224x224/00001 0 1", "the list says 0"),
        6: ("clip_224x224/00001 20 -1", ""),
        7: ("nothing", ""),
    }
    (dfew / "bad.txt").write_text("\n".join(line for line, _ in bad.values()) + "\nclip_224x224/00001 20 0\n")
    entries, problems = scan_list(dfew / "bad.txt", dfew, None, DFEW_LABELS)
    assert [entry.where for entry in entries] == ["bad.txt line 8"]
    said: list[str] = []
    with pytest.raises(DataError) as error:
        settle(problems, False, notify=said.append)
    for number in bad:
        assert f"line {number}: " in said[number - 1] and bad[number][1] in said[number - 1]
    assert "7 problems in the data: 3 unreadable line, 3 missing frames, 1 label" in one_line(error.value)


def test_an_empty_or_missing_list_is_refused(dfew: Path) -> None:
    (dfew / "empty.txt").write_text("\n\n")
    with pytest.raises(DataError, match="empty"):
        clips_of(dfew / "empty.txt", dfew, None, 7)
    with pytest.raises(DataError, match="cannot be read"):
        clips_of(dfew / "none.txt", dfew, None, 7)


def test_a_damaged_picture_or_wav_is_named(dfew: Path) -> None:
    entries = clips_of(dfew / "train.txt", dfew, None, 7)  # the headers were right when the lists were read
    (dfew / "raw_wav" / "12.wav").write_bytes(b"no sound")
    with pytest.raises(DataError, match=r"12\.wav cannot be read"):
        load_clip(entries[-1], 16, None)
    (entries[0].folder / entries[0].files[3]).write_bytes(b"no picture")
    with pytest.raises(DataError, match="clip 00001"):
        load_clip(entries[0], 16, None)


def test_validation_actors_and_calm_are_kept_out_of_training(public: Path) -> None:
    voices = {split: load_voices(public, split, ("ravdess",)) for split in ("train", "val")}
    assert set(voices["train"].speakers) == {"ravdess/01", "ravdess/16"}
    assert set(voices["val"].speakers) == {"ravdess/17"}
    # Codes 01, 03 ... 08 (02 is calm): neutral, happy, sad, angry, fear, disgust, surprise.
    assert [DFEW_LABELS[label] for label in voices["val"].labels] == [
        "neutral", "happy", "sad", "angry", "fear", "disgust", "surprise",
    ]  # fmt: skip
