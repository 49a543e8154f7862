"""mma-bench voice: what passes the gate, on speech and noise made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import failure_line
from test_pipeline import spoken

from mma_benchmarks.cli import main
from mma_benchmarks.result import read_result
from mma_benchmarks.voice.measure import PROBABILITIES, SHARES, add, cut, pauses, row_of

RATE = 16_000


@pytest.fixture(scope="module")
def public_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's voice with a pause as two corpora, one of them at another rate, and two kinds of noise."""
    folder = tmp_path_factory.mktemp("data")
    voice, rate = spoken()
    voice = np.concatenate([voice[: 4 * rate], np.zeros(rate, np.float32)])
    hum = 0.1 * np.sin(2 * np.pi * 100 * np.arange(5 * RATE) / RATE)
    white = 0.1 * np.random.default_rng(0).standard_normal(5 * RATE)
    sounds = {
        "ravdess_speech/Actor_01/a.flac": (voice, rate),
        "voices/robot/r_happy_00001.flac": (voice[:: rate // RATE], RATE),
        "noise/hum_0001.flac": (hum, RATE),
        "noise/white_0001.flac": (white, RATE),
    }
    for name, (wave, own_rate) in sounds.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, wave, own_rate)
    return folder


def test_speech_passes_and_pauses_silence_and_noise_do_not(public_data: Path, tmp_path: Path, capsys) -> None:
    assert main(["voice", "--data", str(public_data), "--output", str(tmp_path)]) == 0
    assert "What passes the gate" in capsys.readouterr().out
    (path,) = tmp_path.glob("*_voice_silero-vad.json")
    result = read_result(path)
    gate = SHARES.index(0.1)
    passed = {sound.name: sound.called[PROBABILITIES.index(0.5)][gate] for sound in result.results.sounds}
    expected = {
        "speech, ravdess_speech": 1, "speech, robot": 1, "speech 20 dB quieter": 1, "speech 40 dB quieter": 1,
        "speech, noise 20 dB below it": 1, "pauses, ravdess_speech": 0, "pauses, robot": 0, "digital silence": 0,
        "noise, hum": 0, "noise, white": 0,
    }  # fmt: skip
    assert {name: passed[name] for name in expected} == expected
    assert 0 < result.results.cost_ms < 1000
    page = path.with_suffix(".md").read_text()
    assert "noise, white" in page and "from 10%" in page and "default 0.1" in page


def test_windows_are_as_long_as_those_of_a_run() -> None:
    sound = np.arange(10)
    assert [len(window) for window in cut(sound, 4)] == [4, 4, 2]
    assert [len(window) for window in cut(sound[:9], 4)] == [4, 4]
    assert [len(window) for window in cut(sound[:1], 4)] == [1]


def test_noise_lies_as_far_below_the_voice_as_it_says() -> None:
    voice, noise = spoken()[0][:RATE], np.ones(100, np.float32)
    added = add(voice, noise, 10) - voice
    assert np.mean(voice**2) / np.mean(added**2) == pytest.approx(10, rel=1e-3)
    assert np.isfinite(add(voice, np.zeros(10, np.float32), 10)).all()


def test_a_pause_is_quiet_and_long_enough() -> None:
    loud, quiet, short = np.ones(RATE), np.full(RATE, 1e-3), np.full(RATE // 4, 1e-3)
    (found,) = pauses(np.concatenate([loud, quiet, loud, short, loud]).astype(np.float32))
    assert len(found) == RATE and (found < 0.01).all()


def test_a_window_passes_from_its_threshold_on() -> None:
    row = row_of("x", [np.array([0.4, 0.6] * 5), np.array([0.1] * 10)])
    assert (row.windows, row.share) == (2, 0.25)
    assert [called[SHARES.index(0.3)] for called in row.called] == [0.5, 0.5, 0.0]


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda folder: None, "has no speech"),
        (lambda folder: speak(folder), "has no noise"),
        (
            lambda folder: (speak(folder), (folder / "noise").mkdir(), (folder / "noise/a_1.flac").write_text("?")),
            "a_1",
        ),
    ],
)
def test_missing_or_broken_sounds_are_one_line(prepare: object, words: str, tmp_path: Path, capsys) -> None:
    data = tmp_path / "data"
    data.mkdir()
    prepare(data)
    assert main(["voice", "--data", str(data), "--output", str(tmp_path / "out")]) == 9
    assert words in failure_line(capsys)


def speak(folder: Path) -> None:
    (folder / "ravdess_speech").mkdir()
    soundfile.write(folder / "ravdess_speech" / "a.flac", spoken()[0][:RATE], RATE)


@pytest.mark.parametrize(("argv", "exit_code"), [(["--data", "nowhere"], 9), (["--data", ".", "--limit", "0"], 2)])
def test_bad_options_are_one_line(argv: list[str], exit_code: int, tmp_path: Path, capsys) -> None:
    assert main(["voice", *argv, "--output", str(tmp_path)]) == exit_code
    failure_line(capsys)
