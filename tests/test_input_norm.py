"""The default model answers the same however bright the camera and however loud the microphone is set."""

from __future__ import annotations

import numpy as np
import torch

from mma_edge.audio import log_mel
from mma_trainer.model.encoder import ClipNorm, FrameNorm
from mma_trainer.model.inputs import prepare_mel

RATE_HZ = 16_000


def voice(seconds: float = 3.0) -> np.ndarray:
    """Harmonics that rise and fall in loudness, with a noise floor."""
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    tones = sum(np.sin(2 * np.pi * hz * time) / hz for hz in range(150, 4000, 150)) * 60
    noise = 0.003 * np.random.default_rng(0).standard_normal(len(time))
    return (0.2 * tones * (1.1 + np.sin(2 * np.pi * 2 * time)) + noise).astype(np.float32)


def normed(wave: np.ndarray) -> torch.Tensor:
    return ClipNorm()(prepare_mel(torch.from_numpy(log_mel(wave, RATE_HZ))[None]))


def test_loudness_makes_no_difference() -> None:
    as_it_is = normed(voice())
    for gain_db in (10, -10, -20):
        assert (normed(voice() * 10 ** (gain_db / 20)) - as_it_is).abs().mean() < 0.01, gain_db


def test_silence_around_a_voice_and_padding_do_not_change_its_level() -> None:
    alone = normed(voice(2.0))[..., :190, :]
    floor = 0.003 * np.random.default_rng(1).standard_normal(2 * RATE_HZ).astype(np.float32)
    followed = normed(np.concatenate([voice(2.0), floor]))[..., :190, :]
    loud = alone > alone.amax() - 0.5
    # Half of the clip is silence: half of the mean power, 0.69 in 9.14 units.
    assert 0.03 < float((followed - alone)[loud].mean()) < 0.11
    padded = normed(voice(2.0))
    assert (padded[..., 300:, :] == padded.min()).all()
    assert float(padded.std()) > 0.1


def test_no_sound_at_all_is_one_constant_and_finite() -> None:
    nothing = ClipNorm()(prepare_mel(torch.zeros(1, 512, 128)))
    silence = normed(np.zeros(3 * RATE_HZ, np.float32))
    for mel in (nothing, silence):
        assert mel.isfinite().all() and mel.min() == mel.max()


def test_exposure_and_contrast_make_no_difference() -> None:
    face = torch.rand((2, 3, 48, 48), generator=torch.Generator().manual_seed(0))
    norm = FrameNorm()
    assert torch.allclose(norm(0.3 * face + 0.4), norm(face), atol=1e-5)
    black = norm(torch.zeros(1, 3, 48, 48))
    assert (black == 0).all() and norm(torch.full((1, 3, 48, 48), 0.7)).abs().max() < 1e-3
    assert norm(face)[0].mean().abs() < 1e-6 and norm(face)[0].var(correction=0).sub(1).abs() < 1e-4
