"""The public sets are read as they are described, and what is wrong with them is named in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import one_line, save_opus, tone

from mma_edge.errors import DataError, MMAEdgeError, UsageError
from mma_trainer.commands.data_options import trained_corpora
from mma_trainer.data.public.background import load_noise, load_rooms
from mma_trainer.data.public.clips import load_clips
from mma_trainer.data.public.faces import load_faces, load_fer2013_val, voted_faces
from mma_trainer.data.public.voices import CALM, CORPORA, classes_of, load_corpus, load_voices
from mma_trainer.data.public.waves import SAMPLE_RATE_HZ
from mma_trainer.labels import DFEW_LABELS

SPEAKERS = ("anna", "ben")


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """Two clips of each class of each corpus of `voices/`, and RAVDESS's actors 1 and 17."""
    for corpus in CORPORA:
        if corpus == "ravdess":
            continue
        for number, label in enumerate(classes_of(corpus)):
            for speaker in SPEAKERS:
                save_opus(tmp_path / "voices" / corpus / f"{speaker}_{DFEW_LABELS[label]}_{number:05d}.opus", 0.2)
    for actor in (1, 17):
        folder = tmp_path / "ravdess_speech" / f"Actor_{actor:02d}"
        folder.mkdir(parents=True)
        for code in range(1, 9):
            soundfile.write(folder / f"03-01-{code:02d}-01-01-01-{actor:02d}.flac", tone(0.2, 300), SAMPLE_RATE_HZ)
    return tmp_path


def test_votes_become_a_distribution_a_weight_and_a_first_choice() -> None:
    votes = np.array(
        [
            [6, 2, 0, 0, 0, 0, 0, 0, 2, 0],  # happy, agreed; two say unknown
            [0, 3, 3, 0, 0, 0, 0, 4, 0, 0],  # a draw below contempt
            [0, 0, 0, 0, 0, 0, 0, 5, 5, 0],  # none of the seven
            [0, 0, 0, 0, 0, 0, 5, 5, 0, 0],  # half is not more than half
        ],
        np.uint8,
    )
    own_labels = np.array([0, 255, 3, 6], np.uint8)
    faces = voted_faces(np.zeros((4, 48, 48), np.uint8), votes, own_labels)
    np.testing.assert_allclose(faces.targets.sum(axis=1), 1)
    np.testing.assert_allclose(faces.targets[0, :2], [0.75, 0.25])
    np.testing.assert_allclose(faces.weights, [0.8, 0.6, 0.5])
    assert faces.labels.tolist() == [0, 1, 6]
    assert faces.agreed.tolist() == [True, False, False]
    assert faces.own_labels.tolist() == [0, 255, 6]
    assert (faces.targets.dtype, faces.weights.dtype, faces.labels.dtype) == (np.float32, np.float32, np.int64)


def test_a_picture_with_a_label_only_has_all_votes_for_it(public: Path) -> None:
    faces = load_fer2013_val(public)
    assert (faces.targets.argmax(axis=1) == faces.labels).all() and (faces.targets.max(axis=1) == 1).all()
    assert faces.agreed.all() and (faces.weights == 1).all()


def test_corpora_are_split_by_speaker_and_whole_corpora(speech: Path) -> None:
    train, val = (load_voices(speech, split) for split in ("train", "val"))
    assert set(val.speakers) == {"ravdess/17"} and "ravdess/17" not in train.speakers
    assert set(train.corpora) == set(CORPORA)
    assert {"nemo/anna", "ased/anna"} <= set(train.speakers)  # two people of one name
    for corpus in CORPORA:
        assert tuple(np.unique(train.labels[train.corpora == corpus])) == classes_of(corpus)
        assert tuple(np.unique(load_corpus(speech, corpus).labels)) == classes_of(corpus)
    assert train.waves[0].dtype == np.float32 and train.waves[0].ndim == 1


def test_some_people_of_a_corpus_are_left_out(speech: Path) -> None:
    corpora, without = trained_corpora(["javanese/anna", "nemo", "ased/ben"])
    assert "nemo" not in corpora and without == ("javanese/anna", "ased/ben")
    speakers = set(load_voices(speech, "train", corpora, without=without).speakers)
    assert {"javanese/ben", "ased/anna", "emovo/anna", "emovo/ben"} <= speakers
    assert not {"javanese/anna", "ased/ben", "nemo/anna"} & speakers
    with pytest.raises(UsageError, match=r"speaker ased/bob left out; expected some of ased/anna, ased/ben"):
        load_voices(speech, "train", corpora, without=("ased/bob",))
    for odd in ("javanese/", "javanese/anna,", "ravdess/01", "klingon"):
        with pytest.raises(UsageError, match=f"corpus '{odd}' left out"):
            trained_corpora([odd])


def test_calm_is_there_for_who_asks(speech: Path) -> None:
    assert CALM not in load_voices(speech, "train").labels
    assert (load_voices(speech, "train", ("ravdess",), calm=True).labels == CALM).sum() == 1


def test_a_part_keeps_waves_and_names_together(speech: Path) -> None:
    voices = load_voices(speech, "train")
    part = voices.part(voices.corpora == "emovo")
    assert len(part.waves) == len(part.labels) == 14 and set(part.corpora) == {"emovo"}


def test_every_file_is_heard_at_one_rate(tmp_path: Path) -> None:
    folder = tmp_path / "voices" / "emotiontts"
    for number, (label, rate_hz) in enumerate(zip(classes_of("emotiontts"), (16000, 48000, 24000, 8000), strict=True)):
        save_opus(folder / f"ema_{DFEW_LABELS[label]}_{number}.opus", 1.0, rate_hz, 440.0)
    voices = load_corpus(tmp_path, "emotiontts")
    assert voices.sample_rate_hz == SAMPLE_RATE_HZ
    for wave in voices.waves:
        assert abs(len(wave) - SAMPLE_RATE_HZ) < 0.02 * SAMPLE_RATE_HZ
        loudest = np.abs(np.fft.rfft(wave)).argmax() * SAMPLE_RATE_HZ / len(wave)
        assert abs(loudest - 440) < 5


def test_noise_of_validation_is_none_of_training(tmp_path: Path) -> None:
    for kind, count in (("phone_roads", 7), ("esc10_rain", 4)):
        for number in range(count):
            save_opus(tmp_path / "noise" / f"{kind}_{number:04d}.opus", 0.2)
    train, val = (load_noise(tmp_path, split) for split in ("train", "val"))
    assert val.names == ["esc10_rain_0003", "phone_roads_0005", "phone_roads_0006"]
    assert not set(train.names) & set(val.names) and len(train.names) + len(val.names) == 11
    assert set(train.kinds) == set(val.kinds) == {"phone_roads", "esc10_rain"}


def test_rooms_are_read_as_recorded(tmp_path: Path) -> None:
    (tmp_path / "rooms").mkdir()
    soundfile.write(tmp_path / "rooms" / "hall.flac", np.array([0.0, 0.5, 0.25]), SAMPLE_RATE_HZ, subtype="PCM_24")
    rooms = load_rooms(tmp_path)
    assert rooms.names == ["hall"]
    np.testing.assert_allclose(rooms.waves[0], [0.0, 0.5, 0.25], atol=1e-6)


def test_clips_tell_class_and_actor_by_name(tmp_path: Path) -> None:
    names = {
        "javanese": ("01-02-03_01", "05-01-06_01"),
        "ravdess_actor01": ("01-01-02-01-01-01-01", "01-01-08-02-01-01-01"),  # calm, surprise
    }
    for folder, stems in names.items():
        (tmp_path / "av" / folder).mkdir(parents=True)
        for stem in stems:
            (tmp_path / "av" / folder / f"{stem}.mp4").touch()
    found = [(DFEW_LABELS[clip.label], clip.actor) for clip in load_clips(tmp_path, "av-javanese")]
    assert found == [("happy", "javanese/01"), ("angry", "javanese/05")]
    found = [(DFEW_LABELS[clip.label], clip.actor) for clip in load_clips(tmp_path, "av-ravdess")]
    assert found == [("surprise", "ravdess/01")]


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda data: (data / "voices" / "elsewhere").mkdir(), "elsewhere is no known corpus"),
        (lambda data: save_opus(data / "voices/nemo/a_bored_1.opus", 0.1), "a_bored_1.opus: no emotion of nemo"),
        (lambda data: save_opus(data / "voices/nemo/a_disgust_1.opus", 0.1), "a_disgust_1.opus: no emotion of nemo"),
        (lambda data: save_opus(data / "voices/nemo/happy.opus", 0.1), "happy.opus: no emotion of nemo"),
        (lambda data: cut_short(data / "voices/ased/ben_happy_00000.opus"), "ben_happy_00000.opus cannot be read"),
        (lambda data: [path.unlink() for path in (data / "voices/emovo").iterdir()], "no voices in"),
        (
            lambda data: (data / "ravdess_speech/Actor_01/03-01-09-01-01-01-01.flac").touch(),
            "03-01-09-01-01-01-01.flac: no RAVDESS emotion code",
        ),
    ],
)
def test_bad_speech_is_one_line_that_names_it(speech: Path, spoil: Callable, says: str) -> None:
    spoil(speech)
    with pytest.raises(DataError) as caught:
        load_voices(speech, "train")
    one_line(caught.value)
    assert says in str(caught.value)


def test_a_corpus_that_does_not_exist_is_refused(speech: Path) -> None:
    for load in (lambda: load_corpus(speech, "klingon"), lambda: load_voices(speech, "train", ("klingon",))):
        with pytest.raises(UsageError, match="klingon"):
            load()


GOOD = {
    "images": np.zeros((2, 48, 48), np.uint8),
    "votes": np.ones((2, 10), np.uint8),
    "fer2013_labels": np.array([0, 255], np.uint8),
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"votes": np.ones((2, 8), np.uint8)}, "votes are uint8 (2, 8)"),
        ({"votes": np.ones((3, 10), np.uint8)}, "votes are uint8 (3, 10)"),
        ({"votes": np.ones((2, 10), np.float32)}, "votes are float32"),
        ({"votes": np.eye(10, dtype=np.uint8)[[7, 8]]}, "no picture with a vote"),
        ({"images": np.zeros((2, 40, 48), np.uint8)}, "images are uint8 (2, 40, 48)"),
        ({"images": np.zeros((0, 48, 48), np.uint8)}, "images are uint8 (0, 48, 48)"),
        ({"fer2013_labels": np.array([0, 7], np.uint8)}, "fer2013_labels"),
        ({"votes": None}, "votes is not a file"),
    ],
)
def test_bad_faces_are_one_line_that_says_what_is_wrong(tmp_path: Path, change: dict, says: str) -> None:
    arrays = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    np.savez(tmp_path / "ferplus_train.npz", **arrays)
    with pytest.raises(DataError) as caught:
        load_faces(tmp_path, "train")
    one_line(caught.value)
    assert says in str(caught.value)


def test_absent_data_is_named_with_where_to_point(tmp_path: Path) -> None:
    loads = [
        lambda: load_faces(tmp_path, "val"),
        lambda: load_fer2013_val(tmp_path),
        lambda: load_voices(tmp_path, "train"),
        lambda: load_noise(tmp_path, "train"),
        lambda: load_rooms(tmp_path),
        lambda: load_clips(tmp_path, "av-javanese"),
    ]
    for load in loads:
        with pytest.raises(MMAEdgeError) as caught:
            load()
        one_line(caught.value)
        assert str(tmp_path) in str(caught.value) and "--data" in str(caught.value)
