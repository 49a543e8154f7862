"""Voices as another person, microphone or room would give them.

All of it works on log-mels, natural logarithms of power, (B, T, 128): sounds that are not related add their powers, an
echo smears power over time, a filter adds a curve. For features without phase that is as good as changing the waves,
and much faster. Rows of zeros are padding and stay so; LOG_FLOOR is digital silence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from mma_edge.audio.logmel import FRAME_SHIFT_MS, NUM_MEL_BINS
from mma_trainer.data.augment.draw import chance, integer, uniform
from mma_trainer.data.public.waves import SAMPLE_RATE_HZ

LOWEST_HZ = 20.0  # where Kaldi's first filter begins
LOG_FLOOR = math.log(torch.finfo(torch.float32).eps)  # Kaldi's log-mel of digital silence
DB_TO_LOG = math.log(10) / 10  # the mels are natural logarithms of power
SHORTEST_EXCERPT = 120  # frames
SPEED, PITCH = (0.8, 1.25), (0.82, 1.22)  # factors of time, and of frequency (as vocal tracts of other lengths)
WARPED_SHARE = 0.8
ECHO_SHARE = 0.1
ECHO_S = (0.15, 1.0)  # time in which an echo falls by 60 dB
ECHO_LOUDNESS = (-1.2, 0.2)  # log10 of the echo's power to that of the direct sound
ECHO_FRAMES = 96
TILT, BOW = (-1.0, 1.0), (-0.5, 0.5)  # of a microphone's curve, in natural logarithms at its ends
EDGE_SHARE, EDGE_BINS = 0.5, ((8, 28), (16, 48))  # of voices whose lowest or highest bins are weaker, and which bins
EDGE_DEPTH = (0.0, 5.0)  # natural logarithm of power at the outermost bin: up to 22 dB
RESPONSE_SHARE = 0.7  # of voices whose bins get in part the mean and the deviation of another voice's
LEAST_DEVIATION = 0.3  # natural logarithm: a bin that changes less is stretched no further
BAND_SHARE = 0.08
BAND_LOW, BAND_HIGH = (0, 20), (72, 116)  # bins: a telephone passes 300 Hz to 3.4 kHz (bins 17 to 90 at 16 kHz)
RATE_SHARE, RATES_HZ = 0.1, (44_100, 48_000)  # of cameras and video files, against the corpora's own rate
HIGH_BAND_FALL = (0.02, 0.2)  # per bin, natural logarithm: what is above a corpus's 8 kHz is not known
SNR_DB = (0.0, 30.0)
NOISY_SHARE = 0.3
GAIN = (-6.0, 3.0)  # natural logarithm of power: -26 to +13 dB
GATED_SHARE, GATE_DB = 0.3, (20.0, 60.0)  # of voices whose quiet bins are lost, and how far below the mean power
MASKED_SHARE = 0.5
MASKS = ((1, 16), (2, 8))  # axis and most frames or bins (SpecAugment, Park et al. 2019)
BABBLE_VOICES = 3


def place_mel(rows: Tensor, frames: int, rng: Generator | None) -> Tensor:
    """Log-mel rows (n, 128) -> (frames, 128), zero-padded: from the start, or with `rng` an excerpt anywhere.

    A live window starts anywhere in a sentence and holds silence around it; only a file is padded, at its end.
    """
    mel = torch.zeros(frames, NUM_MEL_BINS)
    length = min(len(rows), frames)
    if rng is None:
        mel[:length] = rows[:length]
        return mel
    if length > SHORTEST_EXCERPT and torch.rand((), generator=rng) < 0.3:
        length = integer(SHORTEST_EXCERPT, length, rng)
    first = integer(0, len(rows) - length, rng)
    start = integer(0, frames - length, rng) if torch.rand((), generator=rng) < 0.5 else 0
    end = integer(start + length, frames, rng) if torch.rand((), generator=rng) < 0.5 else start + length
    mel[:end] = LOG_FLOOR
    mel[start : start + length] = rows[first : first + length]
    return mel


def augment_mel(mels: Tensor, noise: Tensor, rooms: Tensor, rng: Generator, strength: float = 1.0) -> Tensor:
    """Voices heard elsewhere: other speakers' tempo and pitch, echo, microphone, band, noise, loudness, masks.

    Args:
        mels: (B, T, 128), see `place_mel`.
        noise: background for each of them, (B, T, 128); some get other voices of the batch or hiss instead.
        rooms: their echoes, see `room_echoes`.
        strength: in [0, 1], of the shares that are warped, in a room, narrow, noisy or gated.
    """
    B = len(mels)
    padding = (mels == 0).all(dim=-1, keepdim=True)
    mels = torch.where(padding, torch.tensor(LOG_FLOOR), mels)
    changes = (
        (WARPED_SHARE, warp),
        (ECHO_SHARE, lambda part, rng: echo(part, rooms, rng)),
        (RATE_SHARE, at_another_rate),
    )
    for share, change in changes:
        chosen = chance((B,), strength * share, rng)
        if chosen.any():
            mels[chosen] = change(mels[chosen], rng)
    exchanged = chance((B,), strength * RESPONSE_SHARE, rng)
    mels[exchanged] = exchange_response(mels, rng)[exchanged]
    mels = mels + microphone(B, rng)
    mels = torch.where(_narrow(B, strength * BAND_SHARE, rng), torch.tensor(LOG_FLOOR), mels)
    noisy = chance((B,), strength * NOISY_SHARE, rng)
    sounds, snr_db = background(mels, noise, rng)[noisy], uniform((B,), *SNR_DB, rng)[noisy]
    mels[noisy] = add_noise(mels[noisy], padding[noisy], sounds, snr_db)
    mels = (mels + uniform((B, 1, 1), *GAIN, rng)).clamp(min=LOG_FLOOR)
    mels = torch.where(chance((B, 1, 1), strength * GATED_SHARE, rng), gate(mels, padding, rng), mels)
    mels = torch.where(chance((B, 1, 1), MASKED_SHARE, rng), mask(mels, rng), mels)
    return torch.where(padding, torch.zeros(()), mels)


def warp(mels: Tensor, rng: Generator) -> Tensor:
    """Faster or slower, around the middle, and with a longer or shorter vocal tract."""
    B, T, F_ = mels.shape
    time = torch.linspace(-1, 1, T) * uniform((B, 1), *SPEED, rng)
    frequency = (torch.linspace(-1, 1, F_) + 1) * uniform((B, 1), *PITCH, rng) - 1
    grid = torch.stack([frequency.unsqueeze(1).expand(B, T, F_), time.unsqueeze(2).expand(B, T, F_)], dim=-1)
    return F.grid_sample(mels.unsqueeze(1), grid, padding_mode="border", align_corners=True).squeeze(1)


def at_another_rate(mels: Tensor, rng: Generator) -> Tensor:
    """As the same sound gives them at one of RATES_HZ: the bins then reach to a higher frequency, so all lie elsewhere.

    Half of the voices go on above the corpora's 8 kHz and fall there at a random slope; the others end there.
    """
    B = len(mels)
    ends = torch.tensor([_mel_scale(rate / 2) for rate in RATES_HZ])
    end = ends[torch.randint(len(RATES_HZ), (B, 1), generator=rng)] - _mel_scale(LOWEST_HZ)
    own = _mel_scale(SAMPLE_RATE_HZ / 2) - _mel_scale(LOWEST_HZ)
    place = (torch.arange(NUM_MEL_BINS) + 1) * (end / own) - 1  # of each new bin among the old ones, (B, 128)
    low = place.floor().clamp(max=NUM_MEL_BINS - 2).long().unsqueeze(1).expand(mels.shape)
    part = (place.unsqueeze(1) - low).clamp(max=1)
    moved = torch.lerp(mels.gather(2, low), mels.gather(2, low + 1), part)
    fall = uniform((B, 1), *HIGH_BAND_FALL, rng) * (place - NUM_MEL_BINS).clamp(min=0)
    beyond = (place > NUM_MEL_BINS - 1) & chance((B, 1), 0.5, rng)
    moved = (moved - fall.unsqueeze(1)).masked_fill(beyond.unsqueeze(1), LOG_FLOOR)
    return moved.clamp(min=LOG_FLOOR)


def _mel_scale(hz: float) -> float:
    """Kaldi's mel scale."""
    return 1127.0 * math.log(1.0 + hz / 700.0)


def echo(mels: Tensor, rooms: Tensor, rng: Generator) -> Tensor:
    """The power of each frame lives on and falls: as in a recorded room, or exponentially (Polack 1988), half each.

    `rooms`: power after a clap, (R, ECHO_FRAMES, 128), see `room_echoes`.
    """
    B, T, _ = mels.shape
    decay = -math.log(1e6) * FRAME_SHIFT_MS / 1000 / uniform((B, 1), *ECHO_S, rng)  # per frame
    falling = torch.exp(decay * torch.arange(ECHO_FRAMES))
    falling = falling / falling[:, 1:].sum(dim=1, keepdim=True) * 10 ** uniform((B, 1), *ECHO_LOUDNESS, rng)
    falling[:, 0] = 1.0
    recorded = rooms[torch.randint(len(rooms), (B,), generator=rng)]
    kernel = torch.where(chance((B, 1, 1), 0.5, rng), recorded, falling.unsqueeze(2)).double()
    size = T + ECHO_FRAMES
    # In float64: the rounding of a transform in float32 would be a noise 70 dB below the loudest frame.
    spectrum = torch.fft.rfft(mels.double().exp(), size, dim=1) * torch.fft.rfft(kernel, size, dim=1)
    return torch.fft.irfft(spectrum, size, dim=1)[:, :T].clamp(min=math.exp(LOG_FLOOR)).log().float()


def room_echoes(responses: Sequence[Tensor]) -> Tensor:
    """Log-mel rows (n, 128) of impulse responses -> the echo's power to the direct sound's: (R, ECHO_FRAMES, 128).

    The direct sound is the loudest row. What a room or its microphone does to single bands stays, within 10 dB.
    """
    echoes = torch.zeros(len(responses), ECHO_FRAMES, NUM_MEL_BINS)
    for echo_, rows in zip(echoes, responses, strict=True):
        power = rows.double().exp()
        first = int(power.mean(dim=1).argmax())
        heard = power[first : first + ECHO_FRAMES]
        direct = heard[0].clamp(min=0.1 * heard[0].mean(), max=10 * heard[0].mean())
        echo_[: len(heard)] = (heard / direct).clamp(max=1.0).float()
    return echoes


def microphone(count: int, rng: Generator) -> Tensor:
    """Smooth curves over frequency, some falling off at either end: (count, 1, 128)."""
    x, bins = torch.linspace(-1, 1, NUM_MEL_BINS), torch.arange(NUM_MEL_BINS)
    bow = torch.cos(math.pi * uniform((count, 1), 0.5, 3.0, rng) * x)
    curve = uniform((count, 1), *TILT, rng) * x + uniform((count, 1), *BOW, rng) * bow
    for place, width in zip((bins, bins.flip(0)), EDGE_BINS, strict=True):
        fall = (1 - place / uniform((count, 1), *width, rng)).clamp(min=0)
        curve = curve - fall * uniform((count, 1), *EDGE_DEPTH, rng) * chance((count, 1), EDGE_SHARE, rng)
    return curve.unsqueeze(1)


def exchange_response(mels: Tensor, rng: Generator) -> Tensor:
    """In part the response of another clip's microphone: each bin's mean and deviation over time (B, T, 128).

    MixStyle (Zhou et al. 2021) per frequency bin (Schmid et al. 2022): a corpus is told by its microphone, its room and
    its noise floor, and a model that knows the corpus need not listen to the voice. Digital silence stays.
    """
    heard = mels > LOG_FLOOR + 0.01
    count = heard.sum(dim=1, keepdim=True).clamp(min=8)
    mean = (mels * heard).sum(dim=1, keepdim=True) / count
    deviation = (((mels - mean) ** 2 * heard).sum(dim=1, keepdim=True) / count).sqrt().clamp(min=LEAST_DEVIATION)
    other, part = torch.randperm(len(mels), generator=rng), uniform((len(mels), 1, 1), 0.5, 1.0, rng)
    new_mean, new_deviation = (torch.lerp(own[other], own, part) for own in (mean, deviation))
    return torch.where(heard, (mels - mean) / deviation * new_deviation + new_mean, mels).clamp(min=LOG_FLOOR)


def _narrow(count: int, share: float, rng: Generator) -> Tensor:
    """Bins that a telephone, a codec or a low sampling rate does not pass: bool (count, 1, 128)."""
    low, high = (torch.randint(a, b, (count, 1), generator=rng) for a, b in (BAND_LOW, BAND_HIGH))
    bins = torch.arange(NUM_MEL_BINS)
    return (((bins < low) | (bins > high)) & chance((count, 1), share, rng)).unsqueeze(1)


def background(mels: Tensor, noise: Tensor, rng: Generator) -> Tensor:
    """For each voice: the recorded noise (6 of 10), hiss of any colour (3), or other voices of the batch (1)."""
    B = len(mels)
    slope = uniform((B, 1), -2.5, 0.5, rng) * torch.linspace(-1, 1, NUM_MEL_BINS)
    hiss = 0.8 * torch.randn(mels.shape, generator=rng) + slope.unsqueeze(1)
    orders = [torch.randperm(B, generator=rng) for _ in range(BABBLE_VOICES)]
    babble = torch.logsumexp(torch.stack([mels[order] for order in orders]), dim=0)
    kind = torch.rand((B, 1, 1), generator=rng)
    return torch.where(kind < 0.6, noise, torch.where(kind < 0.9, hiss, babble))


def add_noise(mels: Tensor, padding: Tensor, noise: Tensor, snr_db: Tensor) -> Tensor:
    """The powers of voices (B, T, 128) and of noise at `snr_db` (B,) below the mean power of the voice."""
    level = power(mels, ~padding) - power(noise, torch.ones_like(padding)) - DB_TO_LOG * snr_db
    return torch.logaddexp(mels, noise + level.view(-1, 1, 1))


def power(mels: Tensor, heard: Tensor) -> Tensor:
    """Logarithm of the mean power of the rows that are `heard`, bool (B, T, 1): (B,)."""
    rows = mels.masked_fill(~heard, -math.inf).flatten(1).logsumexp(dim=1)
    return rows - (heard.flatten(1).sum(dim=1).clamp(min=1) * mels.shape[2]).log()


def gate(mels: Tensor, padding: Tensor, rng: Generator) -> Tensor:
    """Bins below a threshold become digital silence: a noise gate's work, or that of a far too quiet microphone.

    The pauses of some corpora are gated and those of others are not: without this the silence would tell the corpus.
    """
    threshold = power(mels, ~padding).view(-1, 1, 1) - DB_TO_LOG * uniform((len(mels), 1, 1), *GATE_DB, rng)
    return torch.where(mels < threshold, torch.tensor(LOG_FLOOR), mels)


def mask(mels: Tensor, rng: Generator) -> Tensor:
    """Some frames and some bins replaced by the mean of the clip."""
    B = len(mels)
    for axis, widest in MASKS:
        place, width = torch.arange(mels.shape[axis]), torch.randint(0, widest, (B, 1), generator=rng)
        start = (torch.rand((B, 1), generator=rng) * (len(place) - width)).long()
        masked = (place >= start) & (place < start + width)
        mels = torch.where(masked.unsqueeze(3 - axis), mels.mean(dim=(1, 2), keepdim=True), mels)
    return mels


def mix(mels: Tensor, other: Tensor, share: float) -> Tensor:
    """`share` of the power of voices and the rest of others' (mixup, Zhang et al. 2018); padding where both have it."""
    padding = (mels == 0).all(dim=-1, keepdim=True), (other == 0).all(dim=-1, keepdim=True)
    parts = [
        mel.masked_fill(silent, LOG_FLOOR) + math.log(max(weight, 1e-6))
        for mel, silent, weight in zip((mels, other), padding, (share, 1 - share), strict=True)
    ]
    return torch.where(padding[0] & padding[1], torch.zeros(()), torch.logaddexp(*parts).clamp(min=LOG_FLOOR))
