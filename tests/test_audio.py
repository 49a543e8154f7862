"""Sound becomes the authors' log-mel, streamed or whole, and stays on the clock whatever the microphone does."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mma_edge.audio import LogMelStream, MelRing, log_mel
from mma_edge.audio.logmel import MEL_MEAN, MEL_STD, MIN_SAMPLE_RATE_HZ
from mma_edge.errors import UsageError
from mma_edge.types import AudioChunk

RATE = 16000
ROW_S = 0.01
SILENCE = float(np.log(np.finfo(np.float32).eps))  # Kaldi's floor


def noise(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)


def chunk(samples: np.ndarray, time_s: float, rate: int = RATE, arrival_s: float = 0.0) -> AudioChunk:
    return AudioChunk(samples[None], rate, time_s, arrival_s)


def fill(ring: MelRing, wave: np.ndarray, start_s: float, size: int = 1600) -> None:
    for first in range(0, len(wave), size):
        ring.accept(chunk(wave[first : first + size], start_s + first / RATE))


@pytest.mark.parametrize("key", ["mono16k_2s", "mono44k_6s", "short16k"])
def test_log_mel_is_that_of_the_authors_loader(reference_dir: Path, key: str) -> None:
    with np.load(reference_dir / "golden_fbank.npz") as golden:
        wave, rate, expected = golden[f"{key}_wave"], int(golden[f"{key}_rate"]), golden[f"{key}_mel"]
    normalised = (log_mel(wave, rate) - MEL_MEAN) / (2 * MEL_STD)
    np.testing.assert_allclose(normalised, expected, atol=1e-3)


def kaldi_fbank(wave: np.ndarray, rate: int) -> np.ndarray:
    """Kaldi's feature-fbank.cc as it is defined, window by window and filter by filter, in float64."""
    length, shift = rate * 25 // 1000, rate * 10 // 1000
    size = next(2**power for power in range(20) if 2**power >= length)
    hann = [0.5 - 0.5 * np.cos(2 * np.pi * i / (length - 1)) for i in range(length)]
    mel = 1127 * np.log(1 + np.arange(size // 2) * rate / size / 700)
    low, high = (1127 * np.log(1 + hz / 700) for hz in (20, rate / 2))
    delta, rows = (high - low) / 129, []
    for first in range(0, len(wave) - length + 1, shift):
        window = wave[first : first + length].astype(np.float64)
        window -= window.mean()
        window -= 0.97 * np.concatenate([window[:1], window[:-1]])
        power = np.abs(np.fft.fft(window * hann, size)[: size // 2]) ** 2
        # Each filter is a triangle, two steps of the mel scale wide.
        sums = [power @ np.maximum(0, 1 - np.abs(mel - low - (j + 1) * delta) / delta) for j in range(128)]
        rows.append(np.log(np.maximum(sums, np.finfo(np.float32).eps)))
    return np.array(rows)


@pytest.mark.parametrize("rate", [MIN_SAMPLE_RATE_HZ, 8000, 11025, 16000, 32000, 44100, 48000])
def test_the_rows_are_kaldis_by_its_definition_at_any_rate_and_loudness(rate: int) -> None:
    wave = noise(1.0, rate)
    wave[rate // 3 : rate // 2] *= 1e-3
    wave[rate // 2 : rate // 2 + rate // 10] = 0
    np.testing.assert_allclose(LogMelStream(rate).accept(wave), kaldi_fbank(wave, rate), atol=2e-3)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("size", [1, 37, 441, 4096])
def test_a_stream_equals_the_whole_wave_frame_for_frame_whatever_the_chunks(rate: int, size: int) -> None:
    wave = noise(0.3 if size == 1 else 1.0, rate)
    whole = LogMelStream(rate).accept(wave)
    stream = LogMelStream(rate)
    rows = [stream.accept(wave[first : first + size]) for first in range(0, len(wave), size)]
    np.testing.assert_allclose(np.concatenate(rows), whole, atol=1e-5)
    # Every frame comes out as soon as its window is full, and none is left at the end.
    assert len(whole) == 1 + (len(wave) - int(rate * 0.025)) // int(rate * 0.01)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux' /proc")
def test_a_stream_forgets_the_frames_it_has_handed_out() -> None:
    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6

    stream, second = LogMelStream(RATE), noise(1.0)
    stream.accept(second)
    before = resident_mb()
    for _ in range(600):
        stream.accept(second)
    assert resident_mb() - before < 15  # ten minutes of frames are 31 MB


def test_a_stream_of_a_wave_with_an_offset_equals_the_files_log_mel() -> None:
    wave = noise(1.0) + np.float32(0.2)
    np.testing.assert_allclose(LogMelStream(RATE).accept(wave), log_mel(wave, RATE)[:98], atol=2e-3)


@pytest.mark.parametrize("shape", [(0,), (1, 0), (2, 0), (399,), (2, 399)])
def test_sound_shorter_than_one_window_is_zeros(shape: tuple[int, ...]) -> None:
    mel = log_mel(np.full(shape, 0.5, np.float32), RATE)
    assert mel.shape == (512, 128) and mel.dtype == np.float32
    assert not mel.any()


def test_exactly_one_window_is_one_frame_and_the_rest_is_zeros() -> None:
    mel = log_mel(noise(0.025), RATE)
    assert mel[0].all() and not mel[1:].any()


def test_only_the_first_512_frames_of_a_long_wave_are_heard() -> None:
    wave = noise(7.0)
    np.testing.assert_allclose(log_mel(wave, RATE), LogMelStream(RATE).accept(wave)[:512], atol=2e-3)


def test_stereo_is_its_first_channel_after_subtracting_the_common_mean() -> None:
    left, right = noise(0.5, seed=1) + np.float32(0.1), noise(0.5, seed=2) - np.float32(0.3)
    stereo = np.stack([left, right])
    expected = LogMelStream(RATE).accept(left - stereo.mean())
    np.testing.assert_allclose(log_mel(stereo, RATE)[: len(expected)], expected, atol=1e-4)
    assert np.abs(log_mel(stereo, RATE) - log_mel(stereo[::-1], RATE)).max() > 1


def test_float64_and_mono_vectors_are_heard_like_float32() -> None:
    wave = noise(0.5)
    np.testing.assert_array_equal(log_mel(wave.astype(np.float64), RATE), log_mel(wave[None], RATE))


@pytest.mark.parametrize(
    ("wave", "rate", "said"),
    [
        (np.zeros(16000, np.int16), RATE, "int16"),
        (np.full(16000, np.nan, np.float32), RATE, "NaN"),
        (np.r_[noise(1.0), np.inf].astype(np.float32), RATE, "infinite"),
        (np.zeros((2, 3, 400), np.float32), RATE, "(2, 3, 400)"),
        (np.zeros((0, 400), np.float32), RATE, "(0, 400)"),
        (noise(1.0), MIN_SAMPLE_RATE_HZ - 1, "3999 Hz"),
        (noise(1.0), 0, "0 Hz"),
    ],
)
def test_sound_that_cannot_be_meant_is_refused_by_name(wave: np.ndarray, rate: int, said: str) -> None:
    with pytest.raises(UsageError) as error:
        log_mel(wave, rate)
    assert said in str(error.value) and "expected" in str(error.value)


def test_the_lowest_rate_still_gives_finite_features() -> None:
    mel = log_mel(noise(1.0, MIN_SAMPLE_RATE_HZ), MIN_SAMPLE_RATE_HZ)
    assert np.isfinite(mel).all() and mel[:98].std() > 0.1


def test_a_window_is_addressed_by_presentation_time() -> None:
    wave = noise(3.0)
    rows = LogMelStream(RATE).accept(wave)
    ring = MelRing(capacity_s=10)
    fill(ring, wave, start_s=100.0)
    window = ring.window(101.0, 102.0)
    np.testing.assert_allclose(window[:100], rows[100:200], atol=1e-5)
    assert not window[100:].any()
    # A row belongs to the window in which it begins: the border falls to the right one.
    np.testing.assert_allclose(ring.window(101.005, 101.015)[0], rows[101], atol=1e-5)
    assert ring.end_s == pytest.approx(103.0)


def test_a_window_without_sound_is_none() -> None:
    ring = MelRing(capacity_s=2)
    assert ring.window(0, 1) is None and ring.end_s is None
    fill(ring, noise(4.0), start_s=10.0)
    assert ring.window(5.0, 10.0) is None  # before the data
    assert ring.window(14.0, 15.0) is None  # after it
    assert ring.window(10.0, 11.9) is None  # forgotten
    assert ring.window(12.5, 12.5) is None  # empty
    assert ring.window(12.5, 13.0) is not None


def test_a_hole_becomes_silence_and_later_sound_stays_on_the_clock() -> None:
    first, second = noise(1.0, seed=1), noise(1.0, seed=2)
    ring = MelRing(capacity_s=10)
    fill(ring, first, 0.0)
    fill(ring, second, 1.5)
    whole = LogMelStream(RATE).accept(np.concatenate([first, np.zeros(RATE // 2, np.float32), second]))
    np.testing.assert_allclose(ring.window(0.0, 3.0)[: len(whole)], whole, atol=1e-5)
    np.testing.assert_allclose(ring.window(1.1, 1.4)[:30], SILENCE, atol=0.01)
    assert ring.end_s == pytest.approx(2.5)


def test_jitter_of_the_time_stamps_is_no_hole() -> None:
    wave, ring = noise(1.0), MelRing(capacity_s=10)
    for index, first in enumerate(range(0, RATE, 1600)):
        ring.accept(chunk(wave[first : first + 1600], first / RATE + 0.02 * (-1) ** index))
    rows = LogMelStream(RATE).accept(wave)
    np.testing.assert_allclose(ring.window(0.0, 2.0)[: len(rows)], rows, atol=1e-5)


def test_overlapping_samples_are_heard_once() -> None:
    wave, ring = noise(2.0), MelRing(capacity_s=10)
    ring.accept(chunk(wave[:RATE], 0.0))
    ring.accept(chunk(wave[RATE // 2 :], 0.5))
    ring.accept(chunk(wave[RATE // 2 : RATE], 0.5))  # wholly known already
    rows = LogMelStream(RATE).accept(wave)
    np.testing.assert_allclose(ring.window(0.0, 2.0)[: len(rows)], rows, atol=1e-5)
    assert ring.end_s == pytest.approx(2.0)


def test_a_hole_longer_than_the_ring_starts_it_again_at_the_new_time() -> None:
    ring, later = MelRing(capacity_s=2), noise(1.0, seed=3)
    fill(ring, noise(1.0), 0.0)
    fill(ring, later, 3600.0)
    assert ring.window(0.0, 2.0) is None
    rows = LogMelStream(RATE).accept(later)
    np.testing.assert_allclose(ring.window(3600.0, 3601.0)[: len(rows)], rows, atol=1e-5)


def test_the_ring_keeps_its_capacity_and_no_more() -> None:
    ring, wave = MelRing(capacity_s=1.5), noise(12.0)
    sizes = []
    for first in range(0, len(wave), 1600):
        ring.accept(chunk(wave[first : first + 1600], first / RATE))
        sizes.append(ring._rows.nbytes if ring._rows.base is None else ring._rows.base.nbytes)
    assert max(sizes) <= (150 + 11) * 128 * 4
    rows = LogMelStream(RATE).accept(wave)
    # What is kept is the newest, still on the clock.
    np.testing.assert_allclose(ring.window(0.0, 12.0)[:150], rows[-150:], atol=1e-5)


def test_a_new_sample_rate_in_mid_stream_starts_afresh_at_the_right_time() -> None:
    ring, later = MelRing(capacity_s=5), noise(1.0, 44100, seed=4)
    fill(ring, noise(1.0), 0.0)
    ring.accept(chunk(later, 1.0, rate=44100))
    rows = LogMelStream(44100).accept(later)
    np.testing.assert_allclose(ring.window(1.0, 2.0)[: len(rows)], rows, atol=1e-5)
    assert ring.window(0.0, 1.0) is None
    assert ring.end_s == pytest.approx(2.0)


def test_only_the_first_channel_of_a_live_chunk_is_heard() -> None:
    left, right = noise(1.0, seed=1), noise(1.0, seed=2)
    ring = MelRing(capacity_s=5)
    ring.accept(AudioChunk(np.stack([left, right]), RATE, 0.0, 7.0))
    rows = LogMelStream(RATE).accept(left)
    np.testing.assert_allclose(ring.window(0.0, 1.0)[: len(rows)], rows, atol=1e-5)
    assert ring.newest_arrival_s == 7.0
