"""A film of flashes and beeps that begin together, to be played before a camera and a microphone."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from mma_edge.errors import DependencyError, OutputError
from mma_edge.files import replaced

PERIOD_S = 2
"""From one flash to the next: half of it is the largest offset that can be told."""
FIRST_S = 1
_SIZE, _FPS, _RATE_HZ = (320, 180), 30, 48000
_FLASH_S, _BEEP_S, _BEEP_HZ = 0.1, 0.1, 1000
_DARK, _BRIGHT, _LOUDNESS = 16, 235, 0.8


def write_film(path: Path, seconds: int = 60) -> None:
    """An MP4 (H.264, AAC) with a flash and a beep every `PERIOD_S`.

    OutputError where there is such a file already, or it cannot be written; DependencyError where PyAV lacks an
    encoder.
    """
    if path.exists():
        raise OutputError(f"{path} is there already", hint="choose another name")
    try:
        with replaced(path) as aside, av.open(str(aside), "w", format="mp4") as container:
            video = container.add_stream("libx264", rate=_FPS)
            video.width, video.height, video.pix_fmt = *_SIZE, "yuv420p"
            audio = container.add_stream("aac", rate=_RATE_HZ, layout="mono")
            for number in range(seconds * _FPS):
                picture, sound = _moment(number)
                frame = av.VideoFrame.from_ndarray(picture, format="gray")
                frame.pts, frame.time_base = number, Fraction(1, _FPS)
                container.mux(video.encode(frame.reformat(format="yuv420p")))
                block = av.AudioFrame.from_ndarray(sound[np.newaxis], format="fltp", layout="mono")
                block.sample_rate, block.pts, block.time_base = _RATE_HZ, number * len(sound), Fraction(1, _RATE_HZ)
                container.mux(audio.encode(block))
            for stream in (video, audio):
                container.mux(stream.encode(None))
    except av.codec.codec.UnknownCodecError as error:
        raise DependencyError(f"this PyAV has no encoder {error}", hint="pip install --upgrade av") from error
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}", hint="choose another name") from error


def _moment(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture, uint8 (H, W), and its sound, float32 (n,)."""
    time_s = number / _FPS + np.arange(_RATE_HZ // _FPS) / _RATE_HZ
    since_s = np.where(time_s < FIRST_S - 1e-9, np.inf, (time_s - FIRST_S + 1e-9) % PERIOD_S)
    wave = _LOUDNESS * np.sin(2 * np.pi * _BEEP_HZ * time_s) * (since_s < _BEEP_S)
    level = _BRIGHT if since_s[0] < _FLASH_S - 1e-6 else _DARK
    return np.full(_SIZE[::-1], level, np.uint8), wave.astype(np.float32)
