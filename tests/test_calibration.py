"""Stated probabilities can be made honest: the fit is the likelihood's optimum, its gain is not flattered, and the
temperature lands where prediction reads it."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SEVEN, export, failure_line, make_model, one_line, save_as_the_authors
from rich.console import Console

import mma_edge
from mma_edge.bundle import read_bundle, write_temperatures
from mma_edge.bundle.manifest import MODALITIES, read_temperatures, write_signed
from mma_edge.commands.setup.info import show_bundle
from mma_edge.errors import BundleError, UsageError
from mma_edge.predictor import modalities
from mma_trainer.commands.evaluate import main
from mma_trainer.evaluation.calibration import (
    abstention,
    calibrate,
    cooled,
    cross_fitted,
    expected_calibration_error,
    fit_temperature,
    halves,
    honest_error,
    negative_log_likelihood,
)
from mma_trainer.evaluation.predict import bundle_predictor
from mma_trainer.weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from mma_trainer.weights.predictor import calibrate_checkpoint, checkpoint_predictor

THREE_TEMPERATURES = {"both": 0.5, "video": 2.0, "audio": 5.0}


def honest_clips(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their own softmax: the honest temperature is 1."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.standard_normal((count, 5))
    probabilities = cooled(logits, 1.0)
    return logits, (rng.random(count)[:, None] > probabilities.cumsum(axis=1)).sum(axis=1)


def inputs(count: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    frames = rng.integers(0, 256, (count, 16, 16, 16, 3), dtype=np.uint8)
    return frames, (4 * rng.standard_normal((count, 512, 128)) - 4).astype(np.float32)


def test_the_error_of_honest_answers_is_what_they_show_and_less_with_more_of_them() -> None:
    found = []
    for count in (60, 240, 3840):
        many = [honest_clips(count, seed) for seed in range(200)]
        shown = [expected_calibration_error(cooled(logits, 1.0), labels) for logits, labels in many]
        mean, at_most = honest_error(cooled(many[0][0], 1.0))
        assert mean == pytest.approx(np.mean(shown), rel=0.15)
        assert np.mean(np.array(shown) <= at_most) == pytest.approx(0.95, abs=0.06)
        found.append(mean)
    assert found[0] > 1.5 * found[1] > 5 * found[2]
    logits, labels = many[0]
    sharp = cooled(logits, 0.4)  # far too sure
    assert expected_calibration_error(sharp, labels) > 2 * honest_error(sharp)[1]


def test_the_temperature_that_spoiled_honest_logits_is_found() -> None:
    logits, labels = honest_clips(20_000)
    for spoiled in (0.3, 1.0, 4.0):
        found = fit_temperature(logits * spoiled, labels)
        assert found == pytest.approx(spoiled, rel=0.03)
        least = negative_log_likelihood(logits * spoiled, labels, found)
        for other in (found * 0.99, found * 1.01):
            assert negative_log_likelihood(logits * spoiled, labels, other) > least
        assert expected_calibration_error(cooled(logits * spoiled, found), labels) < 0.015


def test_a_model_that_is_never_wrong_still_gets_a_finite_temperature() -> None:
    found = fit_temperature(np.eye(4) * 3, np.arange(4))
    assert 0.05 <= found < 0.06


def test_the_figure_after_is_measured_on_clips_that_the_temperature_was_not_fitted_on() -> None:
    logits, labels = honest_clips(400)
    second = halves(400, None)
    assert second.tolist() == [False, True] * 200
    crossed = cross_fitted(logits * 3, labels)
    for half in (second, ~second):
        own = fit_temperature(3 * logits[half], labels[half])
        other = fit_temperature(3 * logits[~half], labels[~half])
        np.testing.assert_allclose(crossed[half], cooled(3 * logits[half], other))
        assert abs(own - other) > 1e-3  # else the test could not tell
    fit = calibrate("here", logits * 3, labels, None, 2.0)
    assert fit.temperature == pytest.approx(fit_temperature(logits * 3, labels))
    assert fit.ece_after == pytest.approx(expected_calibration_error(crossed, labels))
    assert fit.ece_raw > fit.ece_before > fit.ece_after and fit.nll_before > fit.nll_after


def test_no_speaker_is_in_both_halves() -> None:
    speakers = np.array([17, 17, 18, 19, 18, 20, 19, 20])
    second = halves(8, speakers)
    assert second.tolist() == [False, False, True, False, True, True, False, True]
    assert halves(4, np.full(4, 17)).tolist() == [False, True, False, True]  # one speaker: nothing else is left


def test_the_abstention_curve_is_that_computed_by_hand() -> None:
    confidence = np.array([0.9, 0.6, 0.9, 0.7])
    probabilities = np.column_stack([confidence, 1 - confidence])
    curve = abstention(probabilities, np.array([0, 1, 1, 0]))  # right, wrong, wrong, right
    # The two of 0.9 are answered together: 1 of 2 right; then 2 of 3; then 2 of 4.
    assert curve.thresholds.tolist() == [0.9, 0.7, 0.6]
    assert curve.coverage.tolist() == [0.5, 0.75, 1.0]
    assert curve.accuracy == pytest.approx([1 / 2, 2 / 3, 1 / 2])
    assert curve.aurc == pytest.approx((2 * 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert curve.at(0.7) == pytest.approx((0.75, 2 / 3)) and curve.at(0.95) == (0.0, None)
    assert curve.at(0.0) == (1.0, 0.5)


def test_what_there_is_of_a_clip_is_seen_in_its_numbers() -> None:
    frames, mel = inputs(5)
    frames[1], mel[2] = 0, 0
    frames[3, 0], mel[3, 0] = 0, 0  # a dark first frame, a padded first row: still there
    frames[4], mel[4] = 0, 0  # nothing at all
    assert modalities(frames, mel).tolist() == [0, 2, 1, 0, 0]


def test_each_clip_is_calibrated_by_what_there_is_of_it(tiny_bundle: Path, bundle_copy: Path) -> None:
    frames, mel = inputs()
    frames[1], mel[2] = 0, 0
    plain = mma_edge.load(tiny_bundle).predict(frames, mel).astype(np.float64)
    write_temperatures(read_bundle(bundle_copy), THREE_TEMPERATURES, {"by": "test"})
    recognizer = mma_edge.load(bundle_copy)
    exponents = 1 / np.array([0.5, 5.0, 2.0])[:, None]
    expected = plain**exponents / (plain**exponents).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(recognizer.predict(frames, mel), expected, atol=1e-5)
    np.testing.assert_allclose(recognizer.predict(mel=mel[1:2]), expected[1:2], atol=1e-5)
    np.testing.assert_allclose(recognizer.predict(frames[2:]), expected[2:], atol=1e-5)


def test_a_bundle_takes_a_number_or_all_three_and_keeps_the_rest_of_its_manifest(bundle_copy: Path) -> None:
    before = read_bundle(bundle_copy)
    assert before.temperatures == dict.fromkeys(MODALITIES, 1.0)
    after = write_temperatures(before, THREE_TEMPERATURES, {"by": "test"})
    assert after.temperatures == THREE_TEMPERATURES
    changed = {key for key in before.manifest if before.manifest[key] != after.manifest[key]}
    assert changed == {"temperature", "provenance", "digest"} and after.manifest["provenance"]["calibration"] == {
        "by": "test"
    }
    with pytest.raises(ValueError, match="temperature"):
        write_temperatures(after, {"both": 1.0}, {})
    for wrong in ({"both": 1.0}, {**THREE_TEMPERATURES, "smell": 1.0}, {**THREE_TEMPERATURES, "both": 0}, True, "1"):
        with pytest.raises(ValueError, match="temperature"):
            read_temperatures(wrong)
        manifest = json.loads((bundle_copy / "manifest.json").read_text()) | {"temperature": wrong}
        write_signed(bundle_copy / "manifest.json", manifest)
        with pytest.raises(BundleError, match="temperature"):
            read_bundle(bundle_copy)


def test_a_calibration_that_cannot_be_written_leaves_the_bundle_as_it_was(
    bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (bundle_copy / "manifest.json").read_bytes()
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_temperatures(read_bundle(bundle_copy), THREE_TEMPERATURES, {})
    assert (bundle_copy / "manifest.json").read_bytes() == before
    assert set(read_bundle(bundle_copy).manifest["files"]) == {p.name for p in bundle_copy.iterdir()} - {
        "manifest.json"
    }


@pytest.mark.parametrize("half", [False, True])
def test_calibrating_a_checkpoint_reaches_its_answers_its_file_and_the_bundle_exported_from_it(
    public: Path, tmp_path: Path, capsys: pytest.CaptureFixture, half: bool
) -> None:
    path = tmp_path / "model.pt"
    save_checkpoint(path, Checkpoint(SEVEN, make_model(SEVEN, 3).state_dict(), {"seed": 3}, {"rows": [1]}), half=half)
    before, size = read_checkpoint(path), path.stat().st_size
    arguments = [str(path), "--data", str(public), "--set", "faces", "voices"]
    assert main([*arguments, "--calibrate"]) == 0
    out = capsys.readouterr().out
    assert "no clips with both" in out and "cross-fitted" in out
    after = read_checkpoint(path)
    calibration = after.provenance["calibration"]
    temperatures = calibration["temperature"]
    assert after.provenance["seed"] == 3 and after.training == {"rows": [1]} and after.config == before.config
    assert all((after.state_dict[key] == value).all() for key, value in before.state_dict.items())
    assert path.stat().st_size < 1.2 * size + 4000  # float16 stays float16
    assert temperatures["both"] == 1.0 and temperatures["video"] != 1.0 != temperatures["audio"]
    for modality, source, clips in (("video", "faces", 14), ("audio", "voices", 7)):
        fit = calibration["fits"][modality]
        assert (fit["source"], fit["num_clips"], fit["temperature"]) == (source, clips, temperatures[modality])
    if half:
        return
    # Exported, the bundle says the same and answers the same.
    export(after, tmp_path / "bundle")
    assert read_bundle(tmp_path / "bundle").temperatures == temperatures
    frames, mel = inputs()
    ours, theirs = checkpoint_predictor(path), bundle_predictor(tmp_path / "bundle")
    for given in ((frames, None), (None, mel), (frames, mel)):
        np.testing.assert_allclose(ours.predict(*given), theirs.predict(*given), atol=1e-4)
    # A second time there is nothing left to mend.
    assert main([str(tmp_path / "bundle"), *arguments[1:], "--calibrate"]) == 0
    again = read_bundle(tmp_path / "bundle")
    assert again.temperatures == pytest.approx(temperatures, rel=1e-3)
    assert again.manifest["provenance"]["calibration"]["fits"]["video"]["temperature_before"] == temperatures["video"]


def test_clips_with_both_serve_for_one_modality_alone_where_nothing_else_does(public: Path, bundle_copy: Path) -> None:
    seven = Checkpoint(SEVEN, make_model(SEVEN, 3).state_dict())
    save_checkpoint(bundle_copy.parent / "model.pt", seven)
    assert main([str(bundle_copy.parent / "model.pt"), "--data", str(public), "--set", "pseudo", "--calibrate"]) == 0
    fits = read_checkpoint(bundle_copy.parent / "model.pt").provenance["calibration"]["fits"]
    assert {name: fit["source"] for name, fit in fits.items()} == {
        "both": "pseudo",
        "video": "pseudo without audio",
        "audio": "pseudo without video",
    }


def test_the_temperatures_of_another_model_are_taken_over(
    public: Path, tmp_path: Path, bundle_copy: Path, capsys: pytest.CaptureFixture
) -> None:
    record = {"temperature": THREE_TEMPERATURES, "fits": {"audio": {"source": "strangers"}}}
    models = [tmp_path / "model.pt", bundle_copy]
    for other in ("strangers.pt", "model.pt"):
        given = {"calibration": record} if other == "strangers.pt" else {"seed": 3}
        save_checkpoint(tmp_path / other, Checkpoint(SEVEN, make_model(SEVEN, 3).state_dict(), given))
    for model in models:
        assert main([str(model), "--calibrate-as", str(tmp_path / "strangers.pt")]) == 0
    assert main([str(tmp_path / "model.pt"), "--calibrate-as", str(bundle_copy)]) == 0  # and from a bundle
    provenance = read_checkpoint(tmp_path / "model.pt").provenance
    assert provenance == {"seed": 3, "calibration": {**record, "taken_from": str(bundle_copy)}}
    assert read_bundle(bundle_copy).temperatures == THREE_TEMPERATURES
    assert read_bundle(bundle_copy).manifest["provenance"]["calibration"]["fits"] == record["fits"]
    # Sets, where there are any, are measured at the new temperatures.
    capsys.readouterr()
    sets = ("--data", str(public), "--set", "faces", "--output", str(tmp_path / "page"))
    assert main([str(tmp_path / "model.pt"), "--calibrate-as", str(bundle_copy), *sets]) == 0
    assert json.loads((tmp_path / "page" / "metrics.json").read_text())["temperatures"] == THREE_TEMPERATURES


def test_info_tells_the_temperatures(bundle_copy: Path) -> None:
    bundle, lines = read_bundle(bundle_copy), []
    for shown in (bundle, write_temperatures(bundle, THREE_TEMPERATURES, {})):
        console = Console(file=io.StringIO(), width=200, record=True)
        show_bundle(shown, console)
        lines.append(next(line for line in console.export_text().splitlines() if line.startswith("temperature")))
    assert lines[0].split() == ["temperature", "1"]
    assert "0.5 (2 video only, 5 audio only)" in lines[1]


def test_what_cannot_be_calibrated_is_said_in_one_line(
    public: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["--data", str(public), "--set", "faces", "--limit", "2", "--calibrate"]
    assert main(arguments) == 2
    assert "--calibrate without MODEL" in failure_line(capsys)
    plain, calibrated = tmp_path / "plain.pt", tmp_path / "calibrated.pt"
    for path, record in ((plain, {}), (calibrated, {"calibration": {"temperature": THREE_TEMPERATURES}})):
        save_checkpoint(path, Checkpoint(SEVEN, make_model(SEVEN, 3).state_dict(), record))
    before = calibrated.read_bytes()
    for words, code, expected in (
        ((calibrated, "--calibrate-as", plain), 2, "was never calibrated"),
        ((calibrated, "--calibrate-as", tmp_path / "nothing"), 2, "does not exist"),
        ((calibrated, "--calibrate-as", tmp_path), 5, "no manifest.json"),
        ((calibrated, "--calibrate-as", public / "ferplus_val.npz"), 8, "is not a checkpoint"),
        (("--calibrate-as", calibrated), 2, "--calibrate-as without MODEL"),
        ((calibrated, "--calibrate-as", calibrated, "--output", tmp_path / "r"), 2, "--output without clips"),
        ((calibrated, "--calibrate-as", calibrated, "--limit", 9), 2, "--limit without clips"),
        ((calibrated, "--calibrate-as", calibrated, "--clips", 2), 2, "--clips 2 without --val-list"),
        ((calibrated, "--calibrate-as", calibrated, "--frames-root", tmp_path), 2, "--frames-root without --val-list"),
        ((calibrated, "--set", "faces", "--data", public, "--skip-bad"), 2, "--skip-bad without --val-list"),
    ):
        assert main([str(word) for word in words]) == code, words
        assert expected in failure_line(capsys)
    assert calibrated.read_bytes() == before


def test_the_authors_file_is_not_rewritten(reference_dir: Path, tmp_path: Path) -> None:
    # Their layout, key for key, at a twelfth of its width.
    narrow = {768: 64, 3072: 256, 2304: 192, 512: 64, 1024: 128, 128: 8}
    layout = json.loads((reference_dir / "official_layout.json").read_text())
    state = {key: torch.zeros([narrow.get(size, size) for size in shape]) for key, shape in layout.items()}
    path = save_as_the_authors(tmp_path / "authors.pth", state)
    before = path.read_bytes()
    with pytest.raises(UsageError) as error:
        calibrate_checkpoint(path, {"temperature": THREE_TEMPERATURES})
    assert "mma-export" in one_line(error.value) and path.read_bytes() == before
