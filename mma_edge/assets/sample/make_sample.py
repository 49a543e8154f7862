"""Makes sample.mp4, the clip beside this file: a still portrait brought to life, and a synthetic voice.

    python mma_edge/assets/sample/make_sample.py [OUT.mp4]

Needs scikit-image (its wheel holds the portrait) and the program espeak-ng; neither is needed at run time. The same
versions make the same clip. LICENSE says where portrait and voice come from.
"""

from __future__ import annotations

import io
import math
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import av
import cv2
import numpy as np

TEXT = "I have waited so long for this day, and now I can hardly believe it! Thank you all. What a wonderful surprise!"
VOICE = ("-v", "en-us+f3", "-s", "170", "-p", "62")  # female, words per minute, pitch

SIZE = 480  # pixels, both sides
FPS = 25
LEAD_S, TAIL_S = 0.3, 0.5  # silence before and after the words

# All in pixels of the 512x512 portrait.
CENTRE_X, CENTRE_Y, SIDE = 226.0, 152.0, 300.0  # the square that becomes the picture
MOUTH = (223.0, 146.0)
BROWS = ((207.0, 89.0), (251.0, 92.0))


def speak(text: str) -> tuple[np.ndarray, int]:
    """Speech as int16 (n,) with silence around it, and its sample rate."""
    program = shutil.which("espeak-ng")
    if program is None:
        sys.exit("espeak-ng is not installed; expected the program in PATH; sudo apt-get install espeak-ng")
    wav = subprocess.run([program, *VOICE, "--stdout", text], check=True, capture_output=True).stdout
    with wave.open(io.BytesIO(wav)) as file:
        rate = file.getframerate()
        # The header of a stream states a wrong length; readframes stops at the real end.
        speech = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    lead, tail = (np.zeros(round(seconds * rate), np.int16) for seconds in (LEAD_S, TAIL_S))
    return np.concatenate([lead, speech, tail]), rate


def loudness(samples: np.ndarray, rate: int, frames: int) -> np.ndarray:
    """Loudness around each video frame, (frames,), 0 to 1, smoothed like the motion of a jaw."""
    half = rate // FPS
    centres = (np.arange(frames) + 0.5) * rate / FPS
    blocks = [samples[max(0, int(c) - half) : int(c) + half].astype(np.float64) for c in centres]
    rms = np.array([math.sqrt(np.mean(block**2)) if block.size else 0.0 for block in blocks])
    smooth = np.convolve(rms, [0.25, 0.5, 0.25], mode="same")
    return np.clip(smooth / np.percentile(smooth, 95), 0.0, 1.0)


def bump(x: np.ndarray, y: np.ndarray, centre: tuple[float, float], width: float, height: float) -> np.ndarray:
    """A Gaussian hill of height 1 around `centre`."""
    return np.exp(-(((x - centre[0]) / width) ** 2) - ((y - centre[1]) / height) ** 2)


def draw(portrait: np.ndarray, time_s: float, open_mouth: float) -> np.ndarray:
    """The picture at `time_s`, uint8 (SIZE, SIZE, 3): the head sways, the mouth speaks, the brows rise."""
    turn = 2.0 * math.pi * time_s
    zoom = SIDE * (1.0 + 0.02 * math.sin(turn / 5.3)) / SIZE
    angle = math.radians(1.8 * math.sin(turn / 3.7))
    column, row = np.meshgrid(np.arange(SIZE) - SIZE / 2 + 0.5, np.arange(SIZE) - SIZE / 2 + 0.5)
    x = CENTRE_X + 5.0 * math.sin(turn / 4.1) + zoom * (math.cos(angle) * column - math.sin(angle) * row)
    y = CENTRE_Y + 2.5 * math.sin(turn / 2.3) + zoom * (math.sin(angle) * column + math.cos(angle) * row)

    # The map says where each pixel comes from: to move the jaw down, take pixels from further up.
    jaw = bump(x, y, (MOUTH[0], MOUTH[1] + 16.0), 26.0, 18.0) * (y > MOUTH[1] - 8.0)
    jaw *= np.clip((y - MOUTH[1] + 4.0) / 8.0, 0.0, 1.0)
    brows = sum(bump(x, y, brow, 20.0, 8.0) for brow in BROWS) * max(0.0, math.sin(turn / 2.9))
    source_y = y - 4.5 * open_mouth * jaw + 2.0 * brows
    return cv2.remap(
        portrait, x.astype(np.float32), source_y.astype(np.float32), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )


def encode(path: Path, pictures: list[np.ndarray], samples: np.ndarray, rate: int) -> None:
    """Write H.264 and AAC; one thread and no date, so that the bytes do not depend on machine or day."""
    with av.open(str(path), "w", options={"movflags": "faststart", "fflags": "+bitexact"}) as out:
        video = out.add_stream("libx264", rate=FPS, options={"crf": "23", "preset": "slow", "threads": "1"})
        video.width = video.height = SIZE
        video.pix_fmt = "yuv420p"
        audio = out.add_stream("aac", rate=rate, layout="mono", bit_rate=64_000)
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = index
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        # Converted to float here: the AAC encoder takes nothing else.
        sound = av.AudioFrame.from_ndarray((samples / 32768.0).astype(np.float32)[np.newaxis], "fltp", "mono")
        sound.sample_rate, sound.pts = rate, 0
        out.mux(audio.encode(sound))
        out.mux(audio.encode(None))


def main() -> None:
    """Make the clip and print its properties."""
    try:
        from skimage.data import astronaut
    except ImportError:
        sys.exit("scikit-image is not installed; expected its portrait; pip install scikit-image")
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("sample.mp4")
    samples, rate = speak(TEXT)
    frames = math.ceil(len(samples) / rate * FPS)
    mouth = loudness(samples, rate, frames)
    portrait = astronaut()
    encode(path, [draw(portrait, i / FPS, mouth[i]) for i in range(frames)], samples, rate)
    print(f"{path}: {frames / FPS:.2f} s, {SIZE}x{SIZE} at {FPS} fps, {rate} Hz, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
