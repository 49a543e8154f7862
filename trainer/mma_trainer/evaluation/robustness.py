"""What spoils a clip on its way to the model, at fixed strengths: noise, bad light, lost frames, lost modalities.

Sound is spoiled as a waveform and faces before the runtime's own resize, where a microphone and a camera
do it. Everything random is a function of (condition, index of the clip): the same table every time. A
missing modality is fed as the runtime feeds it. A signal-to-noise ratio is that of the powers over the whole
waveforms, pauses included.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageFilter

from mma_edge.errors import UsageError
from mma_trainer.data.public.background import Recordings
from mma_trainer.data.public.waves import resample
from mma_trainer.evaluation.sets.clips import EvalSet, RawClip, each_once

SNRS_DB = (20, 10, 0)
RECORDINGS = 4
"""Every clip is heard with so many recorded noises: which one it gets moves the UAR of 200 clips by five points."""
GAINS_DB = (10, -10, -20)
TELEPHONE_HZ = (300, 3400)
RATES_HZ = (8_000, 48_000)  # of a narrow-band call, and of most video files
BLUR_SIGMA_SHARE = 0.05
DARK_FACTOR = 0.3
LOW_RESOLUTION_PX = 16
SHIFTS_MS = (100, -100, 200, -200, 500, -500, 1000, -1000)
DROP_SHARES = (0.25, 0.5, 0.75)

CLEAN = "clean"

Change = Callable[[RawClip, np.random.Generator], RawClip]


@dataclass(frozen=True)
class Condition:
    """A way to spoil clips that have all of `needs`: by a change, by taking away the modality `lost`, or both."""

    change_name: str  # "" without a change
    needs: tuple[str, ...]
    change: Change | None = None
    lost: str | None = None
    times: int = 1  # how often every clip is spoiled, each time with another draw

    @property
    def name(self) -> str:
        alone = {"video": "audio only", "audio": "video only"}.get(self.lost, "")
        return ", ".join(filter(None, (alone, self.change_name))) or CLEAN


def noisy(clip: RawClip, rng: np.random.Generator, snr_db: float) -> RawClip:
    """White Gaussian noise; a silent clip stays silent."""
    return _with_noise(clip, rng.standard_normal(clip.wave.shape), snr_db)


def in_background(clip: RawClip, rng: np.random.Generator, snr_db: float, background: Recordings) -> RawClip:
    """One recording from its beginning, repeated where the clip is longer; a silent clip stays silent."""
    recording = background.waves[int(rng.integers(len(background.waves)))]
    if clip.sample_rate_hz != background.sample_rate_hz:
        recording = resample(recording, clip.sample_rate_hz / background.sample_rate_hz)
    return _with_noise(clip, np.resize(recording, clip.wave.shape[-1:]), snr_db)


def _with_noise(clip: RawClip, noise: np.ndarray, snr_db: float) -> RawClip:
    power, unscaled = (np.mean(np.square(wave, dtype=np.float64)) if wave.size else 0.0 for wave in (clip.wave, noise))
    if not power or not unscaled:
        return clip
    scaled = noise * np.sqrt(power / unscaled / 10 ** (snr_db / 10))
    return dataclasses.replace(clip, wave=(clip.wave + scaled).astype(np.float32))


def louder(clip: RawClip, _: np.random.Generator, gain_db: float) -> RawClip:
    """Another setting of the microphone: what is beyond full scale is clipped."""
    wave = np.clip(clip.wave * 10 ** (gain_db / 20), -1, 1)
    return dataclasses.replace(clip, wave=wave.astype(np.float32))


def telephone(clip: RawClip, _: np.random.Generator) -> RawClip:
    """Nothing outside TELEPHONE_HZ, at the same sample rate."""
    low_hz, high_hz = TELEPHONE_HZ
    length = clip.wave.shape[-1]
    hz = np.fft.rfftfreq(length, 1 / clip.sample_rate_hz) if length else np.zeros(0)
    wave = np.fft.irfft(np.fft.rfft(clip.wave) * ((hz >= low_hz) & (hz <= high_hz)), length) if length else clip.wave
    return dataclasses.replace(clip, wave=wave.astype(np.float32))


def at_rate(clip: RawClip, _: np.random.Generator, rate_hz: int) -> RawClip:
    """The same sound in a file of another sample rate, which the log-mel follows."""
    wave = resample(clip.wave, rate_hz / clip.sample_rate_hz) if clip.wave.size else clip.wave
    return dataclasses.replace(clip, wave=wave, sample_rate_hz=rate_hz)


def shifted(clip: RawClip, _: np.random.Generator, shift_ms: float) -> RawClip:
    """Sound later (positive) or earlier against the frames, its length kept.

    What leaves the clip is lost, digital silence takes its place. A still has no motion to be out of step
    with: on stills only the missing beginning or end is tested.
    """
    length = clip.wave.shape[-1]
    samples = min(round(abs(shift_ms) / 1000 * clip.sample_rate_hz), length)
    early, late = slice(length - samples), slice(samples, None)
    wave = np.zeros_like(clip.wave)
    target, source = (late, early) if shift_ms >= 0 else (early, late)
    wave[..., target] = clip.wave[..., source]
    return dataclasses.replace(clip, wave=wave)


def with_images(clip: RawClip, _: np.random.Generator, change: Callable[[np.ndarray], np.ndarray]) -> RawClip:
    return dataclasses.replace(clip, images=tuple(each_once(clip.images, change)))


def blurred(image: np.ndarray) -> np.ndarray:
    """Gaussian blur with a sigma of 5 % of the shorter side."""
    sigma = BLUR_SIGMA_SHARE * min(image.shape[:2])
    return np.array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


def darkened(image: np.ndarray) -> np.ndarray:
    return (image * DARK_FACTOR).round().astype(np.uint8)


def low_resolution(image: np.ndarray) -> np.ndarray:
    """Shrunk and brought back to its size, by Pillow's BILINEAR both times."""
    small = Image.fromarray(image).resize((LOW_RESOLUTION_PX, LOW_RESOLUTION_PX), Image.Resampling.BILINEAR)
    return np.array(small.resize(image.shape[1::-1], Image.Resampling.BILINEAR))


def dropped(clip: RawClip, rng: np.random.Generator, share: float) -> RawClip:
    """A share of the frames lost, never the first; each shows the last one that came through. Stills look the same."""
    count, images = len(clip.images), list(clip.images)
    for index in sorted(1 + rng.permutation(count - 1)[: round(share * count)]):
        images[index] = images[index - 1]
    return dataclasses.replace(clip, images=tuple(images))


SOUND: tuple[tuple[str, Change], ...] = (
    *((f"white noise, SNR {snr_db} dB", partial(noisy, snr_db=snr_db)) for snr_db in SNRS_DB),
    *((f"loudness {gain_db:+d} dB", partial(louder, gain_db=gain_db)) for gain_db in GAINS_DB),
    ("telephone band", telephone),
    *((f"sound at {rate_hz // 1000} kHz", partial(at_rate, rate_hz=rate_hz)) for rate_hz in RATES_HZ),
)
PICTURE: tuple[tuple[str, Change], ...] = (
    ("faces blurred", partial(with_images, change=blurred)),
    ("faces dark", partial(with_images, change=darkened)),
    (f"faces of {LOW_RESOLUTION_PX} px", partial(with_images, change=low_resolution)),
    *((f"{part:.0%} of frames dropped", partial(dropped, share=part)) for part in DROP_SHARES),
)
TIMING: tuple[tuple[str, Change], ...] = (
    ("audio 0 ms", partial(shifted, shift_ms=0)),
    *((f"audio {ms:+d} ms", partial(shifted, shift_ms=ms)) for ms in SHIFTS_MS),
)
REAL_NOISE = tuple(f"real noise, SNR {snr_db} dB" for snr_db in SNRS_DB)


def conditions(background: Recordings | None = None) -> tuple[Condition, ...]:
    """Every condition, "clean" first; those with real noise only where there is some."""
    real = (
        ()
        if background is None
        else tuple(
            (name, partial(in_background, snr_db=snr_db, background=background))
            for name, snr_db in zip(REAL_NOISE, SNRS_DB, strict=True)
        )
    )
    both = ("video", "audio")
    return (
        Condition("", ()),
        Condition("", both, lost="video"),
        Condition("", both, lost="audio"),
        *(Condition(name, ("audio",), change, times=RECORDINGS) for name, change in real),
        *(Condition(name, ("audio",), change) for name, change in SOUND),
        # Is fusion better than the better of the two alone, when one of them is bad?
        *(Condition(name, both, change, "video", RECORDINGS) for name, change in real),
        *(Condition(name, ("video",), change) for name, change in PICTURE),
        *(Condition(name, ("audio",), change) for name, change in TIMING),
    )


def spoiled(clips: EvalSet, background: Recordings | None = None) -> Iterator[tuple[Condition, EvalSet]]:
    """The clean set, then every condition that its modalities allow."""
    if clips.raw is None or clips.views > 1:
        what = "one clip per item, from a list or a public set"
        raise UsageError(f"no robustness table of {clips.name}", what, "use --clips 1")
    for condition in conditions(background):
        if set(condition.needs) <= set(clips.modalities):
            yield condition, _apply(condition, clips)


def _apply(condition: Condition, clips: EvalSet) -> EvalSet:
    if (change := condition.change) is not None:
        seed = zlib.crc32(condition.change_name.partition(", SNR")[0].encode())  # the same noise at every ratio

        def changed(clip: RawClip, index: int) -> RawClip:
            # In a set with both, a single clip may lack the modality that is spoiled.
            there = {"video": clip.images is not None, "audio": clip.wave is not None}
            ready = all(there[modality] for modality in condition.needs if modality != condition.lost)
            return change(clip, np.random.default_rng((seed, index))) if ready else clip

        clips = clips.repeated(condition.times).changed(condition.change_name, changed)
    return clips.without(condition.lost) if condition.lost else clips
