"""Training clips are disturbed as cameras, microphones and rooms do it; no corpus tells the label."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Generator

from mma_trainer.data.augment.faces import augment_stills, other_mouths, stills_to_clips
from mma_trainer.data.augment.sound import (
    LOG_FLOOR,
    add_noise,
    at_another_rate,
    augment_mel,
    echo,
    exchange_response,
    gate,
    mix,
    place_mel,
    power,
    room_echoes,
)
from mma_trainer.data.public.voices import CALM, Voices
from mma_trainer.data.public.waves import mel_rows, resample
from mma_trainer.data.tasks.balance import ABSENT, class_coverage, mixed, voice_targets, voice_weights, vote_weights
from mma_trainer.training.recipe import soft_cross_entropy


def rng(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def sound(count: int = 4, frames: int = 200) -> torch.Tensor:
    return torch.randn((count, frames, 128), generator=rng(1)) - 6


def voices(corpora: list[str], speakers: list[str], labels: list[int]) -> Voices:
    waves = [np.zeros(1, np.float32)] * len(labels)
    names = np.array([f"{corpus}/{speaker}" for corpus, speaker in zip(corpora, speakers, strict=True)])
    return Voices(waves, np.array(labels), np.array(corpora), names)


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 30.0])
def test_noise_is_as_far_below_the_voice_as_asked(snr_db: float) -> None:
    mels, padding = sound(), torch.zeros((4, 200, 1), dtype=torch.bool)
    heard = add_noise(mels, padding, sound(4) * 2 + 3, torch.full((4,), snr_db))
    added = (heard.exp() - mels.exp()).mean(dim=(1, 2)).log()
    assert torch.allclose(power(mels, ~padding) - added, torch.tensor(snr_db * math.log(10) / 10), atol=0.02)


def test_padding_stays_zero_and_changes_no_level() -> None:
    mels = sound(2, 512)
    mels[:, 300:] = 0
    assert torch.allclose(
        power(mels, (mels != 0).any(dim=2, keepdim=True)), power(mels[:, :300], torch.ones(2, 300, 1) > 0)
    )
    for seed in range(5):
        heard = augment_mel(mels, sound(2, 512), torch.zeros(1, 96, 128), rng(seed))
        assert (heard[:, 300:] == 0).all() and (heard[:, :300] != 0).any() and heard.min() >= LOG_FLOOR - 1e-4
    assert (augment_mel(torch.zeros(2, 512, 128), sound(2, 512), torch.zeros(1, 96, 128), rng()) == 0).all()
    assert (mix(mels, mels.flip(0), 0.7)[:, 300:] == 0).all()


def test_a_voice_gets_part_of_the_response_of_another_ones_microphone_and_keeps_its_own_melody() -> None:
    voices = sound(2, 400) + torch.tensor([[0.0] * 64 + [-3.0] * 64, [-2.0] * 64 + [2.0] * 64]).unsqueeze(1)
    voices[:, 300:] = LOG_FLOOR
    heard = exchange_response(voices, rng(1))  # the two change places
    assert torch.equal(heard[:, 300:], voices[:, 300:])
    before, after = (x[:, :300].mean(dim=1) for x in (voices, heard))
    share = (after - before) / (before.flip(0) - before)
    assert ((share > 0) & (share < 0.5)).all() and torch.allclose(share, share[:, :1].expand_as(share), atol=1e-3)
    for a, b in zip(voices[:, :300].unbind(), heard[:, :300].unbind(), strict=True):
        assert torch.corrcoef(torch.stack([a[:, 5], b[:, 5]]))[0, 1] > 0.999


def test_an_echo_follows_a_sound_and_never_precedes_it() -> None:
    clap = torch.full((8, 200, 128), LOG_FLOOR)
    clap[:, 100] = 0.0
    hall = room_echoes([-0.2 * torch.arange(150).unsqueeze(1).expand(150, 128) - 3])  # 0.9 dB a frame
    assert torch.allclose(hall[0].log()[:, 5], -0.2 * torch.arange(96), atol=1e-4)
    heard = echo(clap, hall, rng())
    assert (heard[:, :100] < LOG_FLOOR + 3).all()  # the silence has its own echo
    after = heard[:, 101:130, 0]
    assert (after[:, 0] > LOG_FLOOR + 5).all() and (after.diff(dim=1) < 0).all()
    slopes = after.diff(dim=1)[:, 0]
    assert (slopes + 0.2).abs().lt(0.01).any() and (slopes + 0.2).abs().gt(0.02).any()  # recorded ones and others


def test_a_gate_leaves_silence_below_a_threshold_and_all_that_is_louder() -> None:
    mels = sound(64, 200) + 6 + torch.linspace(0, -20, 200).view(1, -1, 1)  # a voice that dies away by 87 dB
    mels[:, 150:] = 0
    padding = (mels == 0).all(dim=2, keepdim=True)
    gated = gate(torch.where(padding, torch.tensor(LOG_FLOOR), mels), padding, rng(4))[:, :150]
    lost, mels = gated == LOG_FLOOR, mels[:, :150]
    assert torch.equal(gated[~lost], mels[~lost])
    loudness = power(mels, torch.ones(64, 150, 1) > 0)
    thresholds = []
    for level, voice, silent in zip(loudness, mels, lost, strict=True):
        assert 0 < silent.float().mean() < 1 and voice[silent].max() < voice[~silent].min()
        thresholds.append(float((level - voice[~silent].min()) * 10 / math.log(10)))
    assert 18 < min(thresholds) < 25 and 45 < max(thresholds) < 61  # dB below the mean power


def test_an_excerpt_lies_anywhere_in_silence_and_a_file_at_its_start() -> None:
    rows = sound(1, 150)[0]
    assert torch.equal(place_mel(rows, 512, None)[:150], rows)
    starts = set()
    for seed in range(40):
        mel = place_mel(rows, 512, rng(seed))
        heard = ((mel != 0) & (mel != LOG_FLOOR)).any(dim=1).nonzero().flatten()
        starts.add(int(heard[0]))
        padded = (mel == 0).all(dim=1)
        assert len(heard) >= 120 and not padded[: int(heard[-1])].any()
    assert len(starts) > 8


def test_faces_keep_size_and_range_and_differ_each_time() -> None:
    faces = torch.rand((8, 1, 48, 48), generator=rng(2))
    first, again, other = (augment_stills(faces, rng(seed)) for seed in (0, 0, 1))
    assert first.shape == faces.shape and torch.equal(first, again) and not torch.equal(first, other)
    assert first.isfinite().all()
    clips = stills_to_clips(torch.cat([first, first], dim=1), 16, rng())
    assert clips.shape == (8, 16, 1, 48, 48) and clips.min() >= 0 and clips.max() <= 1
    assert (clips[:, 1:] - clips[:, :-1]).abs().mean(dim=(1, 2, 3, 4)).min() > 0  # nothing stands still


def test_a_speaking_face_gets_another_mouth_as_bright_as_its_own_and_nothing_else_of_it() -> None:
    faces = torch.rand((8, 1, 48, 48), generator=rng(3)) * 0.2 + torch.arange(8).view(-1, 1, 1, 1) / 20
    faces[:, :, 30:36, 20:28] *= 0.5  # a mouth
    speaking = other_mouths(faces, rng())
    change = (speaking - faces).abs()
    assert change[:, :, :20].max() < 0.01 and (change[:, :, 28:38, 18:30].mean(dim=(1, 2, 3)) > 0.02).sum() >= 6
    mouths, before = (images[:, :, 26:42, 14:34].mean(dim=(1, 2, 3)) for images in (speaking, faces))
    assert torch.allclose(mouths, before, atol=0.03)
    clips = stills_to_clips(torch.cat([faces, torch.zeros_like(faces)], dim=1), 16, rng())
    darkness = clips.mean(dim=(2, 3, 4)).amin(dim=1)
    assert 1 <= (darkness < 0.02).sum() <= 7  # some speak, some do not


def test_corpora_come_by_the_root_of_their_size_and_their_speakers_and_classes_alike() -> None:
    corpora = ["nemo"] * 90 + ["emovo"] * 10
    speakers = ["a"] * 80 + ["b"] * 10 + ["a"] * 10
    labels = [0] * 60 + [1] * 20 + [0] * 10 + [0] * 9 + [5]
    chances = voice_weights(voices(corpora, speakers, labels), 0.5).numpy()
    shares = chances / chances.sum()
    assert shares[:90].sum() / shares[90:].sum() == pytest.approx(math.sqrt(9))
    cells = [shares[:60].sum(), shares[60:80].sum(), shares[80:90].sum()]
    assert cells == pytest.approx([cells[0]] * 3)


def test_a_class_covers_the_share_of_the_voices_whose_corpus_has_it() -> None:
    corpora, labels = ["ravdess"] * 4 + ["ased"], [0, 1, 5, 4, 0]
    coverage = class_coverage(voices(corpora, [str(k) for k in range(5)], labels), 0.5)
    # Four voices come twice as often as one; ASED has neither surprise nor disgust, and RAVDESS alone is calm.
    torch.testing.assert_close(coverage, torch.tensor([1, 1, 1, 1, 2 / 3, 2 / 3, 1, 2 / 3]))


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_classes_of_faces_come_by_a_power_of_their_votes(balance: float) -> None:
    targets = np.eye(3, dtype=np.float32)[[0] * 80 + [1] * 20]
    chances = vote_weights(targets, balance).numpy()
    assert chances[:80].sum() / chances[80:].sum() == pytest.approx(4**balance)


def test_a_class_that_a_corpus_does_not_have_is_not_pushed_down() -> None:
    targets = voice_targets(voices(["nemo", "ravdess", "emovo"], ["a"] * 3, [0, CALM, 5]))
    assert targets[0].tolist() == [1, 0, 0, 0, 0, ABSENT, 0, ABSENT]
    assert targets[1, CALM] == 1 and (targets[1] >= 0).all() and targets[2, CALM] == ABSENT
    logits = torch.zeros((3, 8), requires_grad=True)
    soft_cross_entropy(logits, targets, smoothing=0.1).backward()
    assert logits.grad[0, 5] == 0 and logits.grad[0, CALM] == 0 and logits.grad[0, 1] > 0 > logits.grad[0, 0]
    # Of a mixture a class is unknown only where neither part has it.
    assert mixed(targets[:1], targets[2:], 0.75)[0].tolist() == [0.75, 0, 0, 0, 0, 0.25, 0, ABSENT]


def test_soft_targets_that_are_certain_give_the_ordinary_cross_entropy() -> None:
    logits, labels = torch.randn((6, 4), generator=rng()), torch.tensor([0, 1, 2, 3, 0, 1])
    targets = torch.eye(4)[labels]
    for smoothing in (0.0, 0.1):
        expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        assert soft_cross_entropy(logits, targets, smoothing) == pytest.approx(float(expected), abs=1e-6)
    half = soft_cross_entropy(logits, 0.5 * targets)
    assert half == pytest.approx(0.5 * float(soft_cross_entropy(logits, targets)), abs=1e-6)  # the weight of a clip


def test_a_sound_at_another_rate_looks_as_the_runtime_computes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mma_trainer.data.augment.sound.RATES_HZ", (48_000,))
    time = np.arange(48_000) / 48_000
    wave = sum(np.sin(2 * np.pi * hz * time) for hz in (300, 700, 1500, 3200)).astype(np.float32)
    wave += 0.01 * np.random.default_rng(0).standard_normal(len(time)).astype(np.float32)
    wave = resample(resample(wave, 1 / 3), 3)
    wanted = torch.from_numpy(mel_rows(wave, 48_000))[:90]
    own = torch.from_numpy(mel_rows(resample(wave, 1 / 3), 16_000))[:90]
    found = at_another_rate(own.unsqueeze(0), rng())[0]
    curves = torch.stack([found.mean(dim=0), own.mean(dim=0), wanted.mean(dim=0)])[:, :90]  # below 8 kHz
    alike, before = torch.corrcoef(curves)[:2, 2]
    assert alike > 0.95 > 0.6 > before
