"""Clips are spoiled as said, before resize and log-mel, the same way in every run, and nothing else of them changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import RATE_HZ, tone

from mma_edge.audio import log_mel
from mma_edge.errors import UsageError
from mma_edge.faces import resize
from mma_trainer.data.public.background import Recordings, load_noise
from mma_trainer.evaluation.robustness import (
    REAL_NOISE,
    RECORDINGS,
    at_rate,
    blurred,
    conditions,
    darkened,
    dropped,
    in_background,
    louder,
    low_resolution,
    noisy,
    shifted,
    spoiled,
    telephone,
)
from mma_trainer.evaluation.sets.clips import EvalSet, RawClip, cut, raw_set
from mma_trainer.evaluation.sets.public import faces_set, pseudo_set, voices_set

SIZE = 24


def moving() -> RawClip:
    """A clip whose frames differ from each other, with a tone."""
    rng = np.random.default_rng(1)
    images = tuple(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8) for _ in range(16))
    return RawClip(images, tone(2.0, 440), RATE_HZ)


@pytest.fixture
def clips() -> EvalSet:
    return raw_set("moving", "made up", np.array([0, 1]), lambda index: moving(), SIZE)


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("snr_db", [20, 10, 0])
def test_noise_has_the_power_that_the_ratio_says(snr_db: int) -> None:
    clip = moving()
    spoilt = noisy(clip, generator(), snr_db)
    ratio = np.mean(clip.wave**2) / np.mean((spoilt.wave - clip.wave) ** 2)
    assert 10 * np.log10(ratio) == pytest.approx(snr_db, abs=0.2)
    assert spoilt.images is clip.images and spoilt.wave.dtype == np.float32
    # The noise is there before the log-mel: it fills the bins beside the tone's.
    assert np.median(log_mel(spoilt.wave, RATE_HZ)[50]) > np.median(log_mel(clip.wave, RATE_HZ)[50]) + 2


def recording(seconds: float, rate_hz: int = RATE_HZ) -> Recordings:
    wave = np.random.default_rng(5).normal(0, 0.01, round(seconds * rate_hz)).astype(np.float32)
    return Recordings(["hum_1"], np.array(["hum"]), [wave], rate_hz)


@pytest.mark.parametrize("snr_db", [20, 0])
@pytest.mark.parametrize(("seconds", "rate_hz"), [(0.7, RATE_HZ), (3.0, RATE_HZ), (1.0, 8000)])
def test_a_background_is_repeated_and_has_the_power_that_the_ratio_says(
    snr_db: int, seconds: float, rate_hz: int
) -> None:
    clip, background = moving(), recording(seconds, rate_hz)
    added = in_background(clip, generator(), snr_db, background).wave - clip.wave
    assert 10 * np.log10(np.mean(clip.wave**2) / np.mean(added**2)) == pytest.approx(snr_db, abs=0.1)
    if rate_hz == RATE_HZ:  # the recording itself, from its beginning
        period = min(len(background.waves[0]), len(added))
        scale = added[:period] @ background.waves[0][:period] / np.square(background.waves[0][:period]).sum()
        np.testing.assert_allclose(added, scale * np.resize(background.waves[0], len(added)), atol=1e-5)


def test_loudness_is_a_gain_that_clips() -> None:
    clip = moving()  # its tone has an amplitude of 0.3
    np.testing.assert_allclose(louder(clip, generator(), -20).wave, clip.wave / 10, rtol=1e-5)
    assert np.abs(louder(clip, generator(), 20).wave).max() == 1


def test_a_telephone_passes_its_band_and_nothing_else() -> None:
    wave = sum(tone(1.0, hz) for hz in (100, 1000, 5000))
    heard = telephone(RawClip(None, wave, RATE_HZ), generator()).wave
    np.testing.assert_allclose(heard, tone(1.0, 1000), atol=1e-3)


@pytest.mark.parametrize("shape", [(RATE_HZ,), (2, RATE_HZ)])
def test_another_rate_is_the_same_sound(shape: tuple[int, ...]) -> None:
    clip = at_rate(RawClip(None, np.resize(tone(1.0, 440), shape), RATE_HZ), generator(), 48_000)
    assert clip.sample_rate_hz == 48_000 and clip.wave.shape == (*shape[:-1], 48_000)
    expected = 0.3 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)
    np.testing.assert_allclose(clip.wave, np.broadcast_to(expected, clip.wave.shape), atol=1e-3)


def test_real_noise_is_heard_by_both_together_and_by_the_voice_alone(clips: EvalSet, public: Path) -> None:
    background = load_noise(public, "val")
    assert not any("real" in condition.name for condition, _ in spoiled(clips))
    sets = {condition.name: subset for condition, subset in spoiled(clips, background)}
    for name in REAL_NOISE:
        frames, mel = sets[name].load(1)
        no_frames, heard = sets[f"audio only, {name}"].load(1)
        assert no_frames is None and frames.any()
        np.testing.assert_array_equal(mel, heard)
        assert np.abs(mel - clips.load(1)[1]).max() > 1
    voices = {condition.name for condition, _ in spoiled(voices_set(public), background)}
    assert set(REAL_NOISE) < voices and not any(name.startswith("audio only") for name in voices)


def test_every_clip_is_heard_in_several_recorded_noises(clips: EvalSet) -> None:
    hums = [np.random.default_rng(seed).normal(0, 0.01, RATE_HZ).astype(np.float32) for seed in range(40)]
    background = Recordings([f"hum_{n}" for n in range(40)], np.array(["hum"] * 40), hums, RATE_HZ)
    noise = {condition.name: subset for condition, subset in spoiled(clips, background)}[REAL_NOISE[0]]
    assert noise.labels.tolist() == [0, 1] * RECORDINGS and noise.groups.tolist() == [0, 1] * RECORDINGS
    heard = [noise.load(2 * time)[1] for time in range(RECORDINGS)]
    assert all(np.abs(mel - heard[0]).max() > 0.1 for mel in heard[1:])


def test_a_voice_without_a_face_is_spoiled_too(public: Path) -> None:
    faceless = raw_set("faceless", "", np.array([0]), lambda index: RawClip(None, moving().wave, RATE_HZ), SIZE)
    sets = {condition.name: subset for condition, subset in spoiled(faceless, load_noise(public, "val"))}
    assert np.abs(sets[f"audio only, {REAL_NOISE[2]}"].load(0)[1] - faceless.load(0)[1]).max() > 1


def test_silence_and_no_samples_stay_what_they_are() -> None:
    for wave in (np.zeros(100, np.float32), np.zeros(0, np.float32)):
        clip = RawClip(None, wave, RATE_HZ)
        spoilt = [noisy(clip, generator(), 0), in_background(clip, generator(), 0, recording(1.0))]
        spoilt += [louder(clip, generator(), 10), telephone(clip, generator())]
        for after in spoilt:
            np.testing.assert_array_equal(after.wave, wave)
        assert at_rate(clip, generator(), 48_000).wave.size == 3 * wave.size


@pytest.mark.parametrize("shift_ms", [0, 100, -100, 1000, -1000, 9000])
def test_sound_is_shifted_by_just_so_many_samples_and_its_length_kept(shift_ms: int) -> None:
    wave = np.arange(1, 2 * RATE_HZ + 1, dtype=np.float32)
    for given in (wave, np.stack([wave, -wave])):  # mono, stereo
        after = shifted(RawClip(None, given, RATE_HZ), generator(), shift_ms).wave
        assert after.shape == given.shape
        first = after if given.ndim == 1 else after[0]
        samples = shift_ms * RATE_HZ // 1000
        for place in (0, 5000, 20000, len(wave) - 1):
            source = place - samples  # later sound: what is heard now was said before
            assert first[place] == (wave[source] if 0 <= source < len(wave) else 0), (place, shift_ms)


def test_faces_are_spoiled_at_the_strengths_that_the_page_names() -> None:
    image = moving().images[0]
    np.testing.assert_array_equal(darkened(image), np.round(image * 0.3))
    edge = np.zeros((100, 60, 3), np.uint8)
    edge[:, 30:] = 255
    profile = blurred(edge)[50, :, 0] / 255
    # An edge blurred with sigma 3 (5 % of 60) rises from 16 to 84 % over two sigmas.
    width = np.interp(0.8413, profile, np.arange(60)) - np.interp(0.1587, profile, np.arange(60))
    assert width == pytest.approx(2 * 3, abs=0.7)
    small = low_resolution(image)
    assert small.shape == image.shape
    checks = np.indices((64, 64)).sum(axis=0) % 2 * 255  # detail that 16 pixels cannot hold
    grey = low_resolution(np.repeat(checks[..., None], 3, axis=2).astype(np.uint8))
    assert np.ptp(grey.astype(int)) < 10


@pytest.mark.parametrize(("share", "lost"), [(0.25, 4), (0.5, 8), (0.75, 12)])
def test_a_dropped_frame_shows_the_last_one_that_came_through(share: float, lost: int) -> None:
    clip = moving()
    after = dropped(clip, generator(), share).images
    assert after[0] is clip.images[0]
    kept = [index for index in range(16) if after[index] is clip.images[index]]
    assert len(kept) == 16 - lost
    for index in range(16):
        assert after[index] is clip.images[max(k for k in kept if k <= index)]


def test_every_condition_is_the_same_in_every_run_and_changes_only_its_own_modality(clips: EvalSet) -> None:
    frames, mel = clips.load(0)
    seen = {}
    for (condition, subset), (_, again) in zip(spoiled(clips), spoiled(clips), strict=True):
        for index in range(2):
            for first, second in zip(subset.load(index), again.load(index), strict=True):
                np.testing.assert_array_equal(first, second)
        seen[condition.name] = subset.load(0)
    assert list(seen) == [condition.name for condition in conditions()]
    for name in ("clean", "audio 0 ms"):
        np.testing.assert_array_equal(seen[name][0], frames)
        np.testing.assert_array_equal(seen[name][1], mel)
    assert seen["audio only"][0] is None and seen["video only"][1] is None
    np.testing.assert_array_equal(seen["audio only"][1], mel)
    for name, (spoilt_frames, spoilt_mel) in seen.items():
        if name.startswith(("white", "loudness", "sound at", "audio +", "audio -")):
            np.testing.assert_array_equal(spoilt_frames, frames)
            assert np.abs(spoilt_mel - mel).max() > 1, name
        elif name.startswith("faces") or "dropped" in name:
            np.testing.assert_array_equal(spoilt_mel, mel)
            assert (spoilt_frames != frames).any(), name
    # Two clips get two noises.
    noise = dict((c.name, s) for c, s in spoiled(clips))["white noise, SNR 0 dB"]
    assert (noise.load(0)[1] != noise.load(1)[1]).any()


def test_the_spoiled_clip_goes_through_the_runtimes_own_resize_and_log_mel(clips: EvalSet) -> None:
    sets = {condition.name: subset for condition, subset in spoiled(clips)}
    frames, _ = sets["faces blurred"].load(0)
    for frame, image in zip(frames, moving().images, strict=True):
        np.testing.assert_array_equal(frame, resize(blurred(image), SIZE))
    _, mel = sets["audio +500 ms"].load(0)
    np.testing.assert_array_equal(
        mel, log_mel(np.concatenate([np.zeros(8000, np.float32), tone(2.0, 440)[:-8000]]), RATE_HZ)
    )


def test_a_set_is_spoiled_only_in_what_it_has(public: Path) -> None:
    names = {
        clips.name: {condition.name for condition, _ in spoiled(clips)}
        for clips in (faces_set(public, SIZE), voices_set(public), pseudo_set(public, SIZE).first(3))
    }
    assert not any("noise" in name or "audio" in name for name in names["faces"]) and "faces dark" in names["faces"]
    assert not any("faces" in name or "frames" in name for name in names["voices"])
    assert {"audio -1000 ms", "white noise, SNR 0 dB"} <= names["voices"]
    assert names["pseudo"] == {condition.name for condition in conditions()}


def test_a_clip_without_sound_in_a_set_with_sound_is_left_alone() -> None:
    silent = RawClip(moving().images, None)
    clips = raw_set("silent", "", np.array([0]), lambda index: silent, SIZE)
    for condition, subset in spoiled(clips):
        frames, mel = subset.load(0)
        assert mel is None and (frames is None) == (condition.name == "audio only")


def test_averaged_clips_and_sets_without_raw_clips_have_no_table(clips: EvalSet) -> None:
    made = EvalSet("made", "", np.array([0]), lambda index: cut(moving(), SIZE))
    two = EvalSet("two", "", np.array([0]), clips.load, views=2, raw=clips.raw, image_size=SIZE)
    for refused in (made, two):
        with pytest.raises(UsageError, match="robustness"):
            list(spoiled(refused))


def test_a_clip_meets_the_same_noise_at_every_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = []
    monkeypatch.setattr("mma_trainer.evaluation.robustness._with_noise", lambda clip, noise, _: heard.append(noise))
    monkeypatch.setattr("mma_trainer.evaluation.sets.clips.cut", lambda clip, size: None)
    voice = raw_set("voice", "", np.zeros(9, int), lambda index: RawClip(None, moving().wave, RATE_HZ), SIZE)
    recordings = [recording(seconds).waves[0] for seconds in (0.5, 0.6, 0.7, 0.8)]
    background = Recordings(list("abcd"), np.array(list("abcd")), recordings)
    for condition, subset in spoiled(voice, background):
        if "noise" in condition.change_name and not condition.lost:
            subset.load(7)
    for noises in (heard[:3], heard[3:]):
        assert len(noises) == 3
        for noise in noises:
            np.testing.assert_array_equal(noise, noises[0])
