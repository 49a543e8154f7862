"""What spoils a clip on its way to the model, at fixed strengths: noise, bad light, lost frames, lost modalities.

Sound is spoiled as a waveform and faces before the runtime's own resize, where a microphone and a camera
do it. Everything random is a function of (condition, index of the clip): the same table every time. A
missing modality is fed as the runtime feeds it.
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
from mma_trainer.evaluation.sets import EvalSet, RawClip, each_once

SNRS_DB = (20, 10, 0)
BLUR_SIGMA_SHARE = 0.05
DARK_FACTOR = 0.3
LOW_RESOLUTION_PX = 16
SHIFTS_MS = (100, -100, 200, -200, 500, -500, 1000, -1000)
DROP_SHARES = (0.25, 0.5, 0.75)

Change = Callable[[RawClip, np.random.Generator], RawClip]


@dataclass(frozen=True)
class Condition:
    """A way to spoil clips that have all of `needs`: by a change, or by taking away the modality `lost`."""

    name: str
    needs: tuple[str, ...]
    change: Change | None = None
    lost: str | None = None


def noisy(clip: RawClip, rng: np.random.Generator, snr_db: float) -> RawClip:
    """White Gaussian noise, the signal-to-noise ratio taken over the whole waveform; a silent clip stays silent."""
    if not clip.wave.size:
        return clip
    power = float(np.mean(np.square(clip.wave, dtype=np.float64)))
    noise = rng.standard_normal(clip.wave.shape) * np.sqrt(power / 10 ** (snr_db / 10))
    return dataclasses.replace(clip, wave=(clip.wave + noise).astype(np.float32))


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


CONDITIONS = (
    Condition("clean", ()),
    Condition("audio only", ("video", "audio"), lost="video"),
    Condition("video only", ("video", "audio"), lost="audio"),
    *(Condition(f"noise, SNR {snr_db} dB", ("audio",), partial(noisy, snr_db=snr_db)) for snr_db in SNRS_DB),
    Condition("faces blurred", ("video",), partial(with_images, change=blurred)),
    Condition("faces dark", ("video",), partial(with_images, change=darkened)),
    Condition(f"faces of {LOW_RESOLUTION_PX} px", ("video",), partial(with_images, change=low_resolution)),
    Condition("audio 0 ms", ("audio",), partial(shifted, shift_ms=0)),
    *(Condition(f"audio {ms:+d} ms", ("audio",), partial(shifted, shift_ms=ms)) for ms in SHIFTS_MS),
    *(Condition(f"{part:.0%} of frames dropped", ("video",), partial(dropped, share=part)) for part in DROP_SHARES),
)


def spoiled(clips: EvalSet) -> Iterator[tuple[Condition, EvalSet]]:
    """The clean set, then every condition that its modalities allow."""
    if clips.raw is None or clips.views > 1:
        what = "one clip per item, from a list or a public set"
        raise UsageError(f"no robustness table of {clips.name}", what, "use --clips 1")
    for condition in CONDITIONS:
        if set(condition.needs) <= set(clips.modalities):
            yield condition, _apply(condition, clips)


def _apply(condition: Condition, clips: EvalSet) -> EvalSet:
    if condition.lost:
        return clips.without(condition.lost)
    if condition.change is None:
        return clips
    seed, change = zlib.crc32(condition.name.encode()), condition.change

    def changed(clip: RawClip, index: int) -> RawClip:
        # In a set with both, a single clip may lack the modality that is spoiled.
        there = {"video": clip.images is not None, "audio": clip.wave is not None}
        return change(clip, np.random.default_rng((seed, index))) if all(there[n] for n in condition.needs) else clip

    return clips.changed(condition.name, changed)
