"""Speech is told from silence and noise, at any loudness and rate, however the sound comes in."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_pipeline import spoken

from mma_edge.audio.ring import ClipSound, Ring, VoiceGate
from mma_edge.audio.voice import ASSETS, FRAME_S, NETWORK, VoiceDetector
from mma_edge.clip import Crop, GridClips, SlidingClips, WholeClips
from mma_edge.errors import BundleError, DependencyError
from mma_edge.types import AudioChunk, Clip

NOISE = Path(__file__).parents[2] / "shared" / "data" / "noise"
RATE = 16_000


@pytest.fixture(scope="module")
def detector() -> VoiceDetector:
    return VoiceDetector()


def share(detector: VoiceDetector, wave: np.ndarray, rate: int) -> float:
    """Share of speech in a whole wave."""
    return float((detector.stream(rate).accept(wave) >= 0.5).mean())


def chunks(wave: np.ndarray, rate: int, start_s: float = 0.0, size: int = 1000) -> list[AudioChunk]:
    starts = range(0, len(wave), size)
    return [AudioChunk(wave[None, i : i + size], rate, start_s + i / rate, 0.0) for i in starts]


def white(seconds: float, level: float = 0.05) -> np.ndarray:
    return level * np.random.default_rng(0).standard_normal(round(seconds * RATE), dtype=np.float32)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("size", [1, 37, 441, 4096])
def test_a_stream_equals_the_whole_wave_whatever_the_chunks(detector: VoiceDetector, rate: int, size: int) -> None:
    wave = spoken()[0][: rate // 10 if size == 1 else rate]
    whole, stream = detector.stream(rate).accept(wave), detector.stream(rate)
    rows = [stream.accept(wave[first : first + size]) for first in range(0, len(wave), size)]
    np.testing.assert_array_equal(np.concatenate(rows), whole)
    # Each frame comes out as soon as it is full; the resampler holds 1 ms back.
    assert len(whole) == int((len(wave) / rate - 0.002 * (rate != RATE)) / FRAME_S)


@pytest.mark.parametrize("gain_db", [10, 0, -20, -40])
def test_a_voice_is_heard_at_any_loudness(detector: VoiceDetector, gain_db: int) -> None:
    wave, rate = spoken()
    assert share(detector, wave * np.float32(10 ** (gain_db / 20)), rate) > 0.6


@pytest.mark.parametrize("level", [0.0, 1e-5, 1e-3, 0.03, 0.3])
def test_silence_and_noise_are_no_voice_at_any_loudness(detector: VoiceDetector, level: float) -> None:
    assert share(detector, white(5.0, level), RATE) < 0.05


def test_a_telephones_band_is_enough(detector: VoiceDetector) -> None:
    wave, rate = spoken()
    every = rate // 8000
    smooth = np.convolve(wave, np.ones(every) / every, "same").astype(np.float32)
    assert share(detector, smooth[::every], rate // every) > 0.6


@pytest.mark.skipif(not NOISE.is_dir(), reason="no noise recordings on this machine")
@pytest.mark.parametrize("kind", ["dogbark", "rain"])
def test_dogs_and_rain_are_no_voice(detector: VoiceDetector, kind: str) -> None:
    paths = sorted(NOISE.glob(f"esc10_{kind}_*.opus"))
    assert paths and all(share(detector, *soundfile.read(path, dtype="float32")) < 0.1 for path in paths)


def test_speech_after_a_hole_stays_on_the_clock(detector: VoiceDetector) -> None:
    wave, rate = spoken()
    word = wave[rate : 2 * rate]  # in the middle of a sentence
    ring = Ring(10.0, detector.stream)
    for chunk in chunks(word, rate, 100.0) + chunks(word, rate, 103.0):
        ring.accept(chunk)
    filled = np.concatenate([word, np.zeros(2 * rate, np.float32), word])
    np.testing.assert_array_equal(ring.rows(100.0, 104.0), detector.stream(rate).accept(filled))
    assert (ring.rows(101.5, 103.0) < 0.5).all() and (ring.rows(103.1, 104.0) >= 0.5).any()


def stub_gate(least_share: float) -> VoiceGate:
    """Takes loud sound for speech."""

    class Loud:
        row_s, sample_rate_hz = 0.1, RATE

        def accept(self, samples: np.ndarray) -> np.ndarray:
            return np.abs(samples[:: RATE // 10]).astype(np.float32)

    return VoiceGate(lambda rate: Loud(), least_share)


@pytest.mark.parametrize(("least_share", "let_through"), [(0.0, True), (0.25, True), (0.251, False), (1.0, False)])
def test_a_window_has_all_of_its_sound_or_none(least_share: float, let_through: bool) -> None:
    wave = np.zeros(4 * RATE, np.float32)
    wave[RATE : 2 * RATE] = 1.0
    gated, free = ClipSound(5.0, stub_gate(least_share)), ClipSound(5.0, None)
    for chunk in chunks(wave, RATE, size=RATE // 10):
        gated.accept(chunk)
        free.accept(chunk)
    (mel, voice), (whole, unknown) = gated.window(0.0, 4.0), free.window(0.0, 4.0)
    assert voice == 0.25 and unknown is None
    assert np.array_equal(mel, whole) if let_through else mel is None
    assert gated.window(1.0, 2.0)[1] == 1.0 and gated.window(2.0, 4.0)[1] == 0.0
    assert gated.window(9.0, 10.0) == (None, None)  # no sound at all


@pytest.mark.parametrize("cut", [SlidingClips, GridClips, WholeClips])
def test_every_way_of_cutting_clips_asks_the_gate(cut: type) -> None:
    def played(level: float, with_face: bool) -> list[Clip]:
        gate = stub_gate(0.5)
        clips = cut(gate) if cut is WholeClips else cut(4.0, 4.0, gate)
        for chunk in chunks(np.full(4 * RATE, level, np.float32), RATE, size=RATE // 10):
            clips.due(chunk.time_s)
            clips.add_audio(chunk)
            if with_face:
                crop = Crop(1, (0.0, 0.0, 1.0, 1.0), np.ones((2, 2, 3), np.uint8), chunk.time_s, 0.0)
                clips.add_crops([crop], chunk.time_s)
        return clips.finish()

    (heard,), (seen,), (both,) = played(1.0, False), played(0.1, True), played(1.0, True)
    assert heard.mel is not None and heard.frames is None and heard.voice == 1.0
    assert seen.mel is None and seen.frames is not None and seen.voice == 0.0
    assert both.mel is not None and both.frames is not None and both.voice == 1.0
    assert played(0.1, False) == []


def test_a_missing_or_changed_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"voice detector.*reinstall"):
        VoiceDetector(tmp_path)
    folder = tmp_path / "silero"
    shutil.copytree(ASSETS, folder)
    data = bytearray((folder / NETWORK).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / NETWORK).write_bytes(data)
    with pytest.raises(BundleError, match=rf"{NETWORK}.*SHA-256"):
        VoiceDetector(folder)


def test_without_onnxruntime_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DependencyError, match=r"mma-edge\[cpu\]"):
        VoiceDetector()
