"""The public sets hold what their names say, real clips come out of the runtime's own pipeline, and what is measured of
them adds up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import RATE_HZ, SEVEN, failure_line, make_model, save_opus
from square_videos import BLUE, RED, Squares, make_video
from test_bench_accuracy import make_bundle
from test_bench_report import accuracy_result

from mma_benchmarks import cli as bench
from mma_benchmarks.result import read_result, to_json
from mma_edge import pipeline
from mma_edge.audio import log_mel
from mma_edge.clip import input_shapes
from mma_edge.errors import UsageError
from mma_trainer.__main__ import evaluate
from mma_trainer.evaluation.calibration import expected_calibration_error
from mma_trainer.evaluation.figures import left_out_figures
from mma_trainer.evaluation.metrics import group_intervals
from mma_trainer.evaluation.predict import Answers
from mma_trainer.evaluation.sets.filmed import filmed_set, watch
from mma_trainer.evaluation.sets.public import SETS, open_set
from mma_trainer.labels import DFEW_LABELS
from mma_trainer.report.blocks import fusion_rows
from mma_trainer.weights.checkpoint import Checkpoint, save_checkpoint

SIZE = 16


@pytest.fixture
def squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime's detector finds squares."""
    monkeypatch.setattr(pipeline, "MTCNNDetector", Squares)


def clip_of(data: Path, name: str, frames: list[list[tuple]], sound_s: float = 0.5) -> Path:
    return make_video(data / "av" / "javanese" / f"{name}.mp4", frames, sound_s)


@pytest.fixture
def filmed(tmp_path: Path) -> Path:
    """Three clips: a red square and for a short time a blue one, nobody, nobody heard."""
    clip_of(tmp_path, "01-01-03_01", [[(RED, 10, 10, 30), *([(BLUE, 55, 50, 40)] if i < 4 else [])] for i in range(20)])
    clip_of(tmp_path, "01-01-06_01", [[]] * 10)
    clip_of(tmp_path, "02-01-02_01", [[(BLUE, 30, 30, 40)]] * 10, sound_s=0)
    save_opus(tmp_path / "noise" / "phone_roads_0000.opus", 1.0)
    save_opus(tmp_path / "noise" / "phone_roads_0001.opus", 1.0)
    return tmp_path


def test_a_real_clip_is_cut_by_the_runtime_as_a_whole(filmed: Path, squares: None) -> None:
    clips = filmed_set("av-javanese", filmed, SIZE)
    assert [DFEW_LABELS[label] for label in clips.labels] == ["happy", "angry", "sad"]
    assert clips.groups.tolist() == ["javanese/01", "javanese/01", "javanese/02"]
    frames, mel = clips.load(0)
    # The face seen longest, on all 16 pictures, and not the larger one that was there for a moment.
    assert (frames[..., 0] > frames[..., 2] + 50).mean() > 0.8
    assert (mel != 0).any(axis=1).sum() == pytest.approx(48, abs=6)  # half a second of windows
    raw = clips.raw(0)
    assert raw.sample_rate_hz == RATE_HZ and len(raw.images) == 16
    np.testing.assert_allclose(log_mel(raw.wave, RATE_HZ), mel, atol=0.05)  # but for the mean of the wave


def test_what_a_clip_lacks_is_fed_as_the_runtime_feeds_it(filmed: Path, squares: None) -> None:
    shapes = input_shapes(SIZE)
    clips = filmed_set("av-javanese", filmed, SIZE)
    nobody, unheard = clips.load(1), clips.load(2)
    np.testing.assert_array_equal(nobody[0], np.zeros(shapes["frames"], np.uint8))
    assert nobody[1].any() and clips.raw(1).images is None
    np.testing.assert_array_equal(unheard[1], np.zeros(shapes["mel"], np.float32))
    assert unheard[0].any() and clips.raw(2).wave is None


def test_a_clip_is_decoded_once_whatever_is_done_to_it(
    filmed: Path, squares: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    module = "mma_trainer.evaluation.sets.filmed.watch"
    monkeypatch.setattr(module, lambda path, size: opened.append(path) or watch(path, size))
    clips = filmed_set("av-javanese", filmed, SIZE)
    assert not opened
    for one in (clips, clips.without("audio"), clips.without("video"), clips.first(1)):
        one.load(0)
    clips.raw(0)
    assert len(opened) == 1


def test_the_bench_measures_real_clips_and_what_noise_costs(filmed: Path, squares: None, tmp_path: Path) -> None:
    toy, output = make_bundle(tmp_path / "toy"), tmp_path / "results"
    argv = ["accuracy", str(toy), "--data", str(filmed), "--set", "av-javanese", "--robustness"]
    assert bench.main([*argv, "--output", str(output)]) == 0
    (path,) = output.glob("*.json")
    found = read_result(path).results
    assert found.settings.robustness
    clean = [entry for entry in found.conditions if entry.spoiled_by is None]
    assert [entry.condition for entry in clean] == ["video and audio", "video only", "audio only"]
    spoiled = [(entry.condition, entry.spoiled_by) for entry in found.conditions if entry.spoiled_by]
    assert {("video and audio", "real noise, SNR 0 dB"), ("audio only", "real noise, SNR 0 dB")} <= set(spoiled)
    assert len(set(spoiled)) == len(spoiled) > 20
    page = path.with_suffix(".md").read_text()
    assert "Spoiled clips, and percentage points lost" in page and "gain over the better alone" in page
    assert page.count("loudness -20 dB") == 1  # one row, and no confusion matrix of its own


def test_results_from_before_spoiled_clips_are_read(tmp_path: Path) -> None:
    old = json.loads(to_json(accuracy_result()))
    old["schema_version"] = 1
    del old["results"]["settings"]["robustness"]
    for entry in old["results"]["conditions"]:
        del entry["spoiled_by"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    assert read_result(tmp_path / "old.json").results == accuracy_result().results


def test_every_set_of_faces_has_the_labels_of_its_name(public: Path, tmp_path: Path) -> None:
    votes = np.zeros((3, 10), np.uint8)
    votes[0, 0], votes[1, 1], votes[1, 3], votes[2, 6], votes[2, 8] = 10, 5, 5, 6, 4
    own = np.array([3, 255, 6], np.uint8)
    np.savez(tmp_path / "ferplus_val.npz", images=np.zeros((3, 48, 48), np.uint8), votes=votes, fer2013_labels=own)
    labels = {name: open_set(name, tmp_path, SIZE).labels.tolist() for name in SETS if name.startswith("faces")}
    assert labels == {"faces": [0, 1, 6], "faces-agreed": [0, 6], "faces-fer2013": [3, 6]}
    assert len(open_set("fer2013", public, SIZE).labels) == 14


def test_a_corpus_is_a_set_of_its_own_speakers(tmp_path: Path) -> None:
    for speaker in ("ema", "nec"):
        save_opus(tmp_path / "voices" / "emotiontts" / f"{speaker}_angry_001.opus")
    clips = open_set("emotiontts", tmp_path, SIZE)
    assert clips.groups.tolist() == ["emotiontts/ema", "emotiontts/nec"] and clips.modalities == ("audio",)
    assert "Korean" in clips.description and "2 speakers" in clips.description


def test_some_people_of_a_set_are_a_set(tmp_path: Path) -> None:
    for speaker in ("ema", "nec", "nel"):
        for word in ("angry", "sad"):
            save_opus(tmp_path / "voices" / "emotiontts" / f"{speaker}_{word}_001.opus")
    clips = open_set("emotiontts/ema,nel", tmp_path, SIZE)
    assert clips.name == "emotiontts-ema-nel" and clips.labels.tolist() == [3, 1, 3, 1]
    assert clips.groups.tolist() == ["emotiontts/ema"] * 2 + ["emotiontts/nel"] * 2
    assert "the 4 of ema, nel" in clips.description and clips.load(3)[1].shape == (512, 128)
    with pytest.raises(UsageError, match="speaker 'bob' of emotiontts; expected ema, nec, nel"):
        open_set("emotiontts/ema,bob", tmp_path, SIZE)
    for odd in ("emotiontts/", "emotiontts/ema,", "klingon/ema"):
        with pytest.raises(UsageError, match=odd):
            open_set(odd, tmp_path, SIZE)


def test_a_model_of_other_classes_is_refused_before_the_sets_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = SEVEN.replace(labels=tuple(reversed(DFEW_LABELS)))
    save_checkpoint(tmp_path / "model.pt", Checkpoint(config, make_model(config).state_dict()))
    assert evaluate([str(tmp_path / "model.pt"), "--data", str(tmp_path), "--set", "voices"]) == 9
    assert "happy, sad, neutral" in failure_line(capsys)


def test_intervals_over_speakers_are_wider_where_speakers_differ() -> None:
    speakers = np.repeat(np.arange(10), 20)
    labels = np.tile([0, 1], 100)
    right = np.where(speakers < 5, labels, 1 - labels)  # half of the speakers are always right, half never
    (low, high), war = group_intervals(labels, right, speakers)
    assert low < 0.3 and high > 0.7 and war == pytest.approx((low, high))
    alike = np.where(np.arange(200) % 20 < 10, labels, 1 - labels)  # every speaker is right half of the time
    assert group_intervals(labels, alike, speakers)[0] == pytest.approx((0.5, 0.5))


def test_left_out_corpora_are_judged_by_the_classes_that_they_have() -> None:
    sure = np.eye(7, dtype=np.float32)
    korean = Answers(np.array([0, 1, 3]), sure[[0, 5, 3]], np.full(3, 2), 0.0)  # one sad clip is called disgust
    polish = Answers(np.array([6, 6]), sure[[6, 6]], np.full(2, 2), 0.0)
    rows = left_out_figures({"emotiontts": korean, "nemo": polish})
    assert [row["corpus"] for row in rows] == ["emotiontts", "nemo", "mean"]
    assert rows[0]["uar"] == pytest.approx(2 / 3) and rows[0]["num_classes"] == 3
    assert rows[0]["ece"] == pytest.approx(expected_calibration_error(korean.probabilities, korean.labels))
    assert rows[2]["uar"] == pytest.approx((2 / 3 + 1) / 2) and rows[2]["num_clips"] == 5


def test_fusion_is_put_beside_the_better_alone() -> None:
    uar = {
        "clean": 0.6, "video only": 0.5, "audio only": 0.55,
        "real noise, SNR 0 dB": 0.45, "audio only, real noise, SNR 0 dB": 0.3,
    }  # fmt: skip
    assert fusion_rows(uar, 1) == [
        ("clean", "60.0", "50.0", "55.0", "+5.0"),
        ("real noise, SNR 0 dB", "45.0", "50.0", "30.0", "-5.0"),
    ]
    assert fusion_rows({"clean": 0.6}, 1) == []
