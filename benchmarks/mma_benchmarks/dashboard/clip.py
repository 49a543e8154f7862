"""A film for the page: the sample's face in a picture of 720p, its voice, and a flash each second in a corner."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from mma_edge.sources import sample_path
from mma_edge.sources.file import FileSource
from mma_edge.types import AudioChunk, Frame

SIZE, FPS = (1280, 720), 25
FLASH_S = 2 / FPS
"""A flash begins with each second and lasts two pictures."""
CORNER = 120
"""Side in pixels of the square at the upper left that flashes: not the whole picture, which would lose the face."""


def write_clip(path: Path, seconds: float) -> None:
    """The film, in Matroska: one round of the sample is encoded, and its packets are written again and again."""
    frames, sound, rate_hz = _sample()
    whole_s = len(frames) // FPS  # rounds of whole seconds: a flash stays where a second begins
    with av.open(str(path), "w", format="matroska") as container:
        video = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "g": str(FPS), "bf": "0"})
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=rate_hz, layout="mono")
        packets = []
        for number in range(whole_s * FPS):
            frame = av.VideoFrame.from_ndarray(_picture(frames[number], number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            packets += [(packet.pts, packet.dts, bytes(packet), packet.is_keyframe) for packet in video.encode(frame)]
        packets += [(packet.pts, packet.dts, bytes(packet), packet.is_keyframe) for packet in video.encode(None)]
        block = rate_hz // FPS
        for round_number in range(-(-round(seconds) // whole_s)):
            for number, (pts, dts, data, key) in enumerate(packets):
                packet = av.Packet(data)
                packet.pts, packet.dts = pts + round_number * whole_s * FPS, dts + round_number * whole_s * FPS
                packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, FPS), video, key
                container.mux(packet)
                samples = np.ascontiguousarray(sound[None, number * block : (number + 1) * block])
                heard = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
                heard.sample_rate, heard.time_base = rate_hz, Fraction(1, rate_hz)
                heard.pts = (round_number * len(packets) + number) * block
                container.mux(audio.encode(heard))


def _sample() -> tuple[list[np.ndarray], np.ndarray, int]:
    """Its pictures, its sound as int16, the sound's rate."""
    frames, sound, rate_hz = [], [], 0
    with FileSource(sample_path()) as source:
        for event in source.events():
            if isinstance(event, Frame):
                frames.append(event.image)
            elif isinstance(event, AudioChunk):
                sound.append(event.samples[0])
                rate_hz = event.sample_rate_hz
    return frames, (np.concatenate(sound) * 32767).astype(np.int16), rate_hz


def _picture(face: np.ndarray, number: int) -> np.ndarray:
    width, height = SIZE
    picture = np.full((height, width, 3), 90, np.uint8)
    h, w = face.shape[:2]
    y, x = (height - h) // 2, (width - w) // 2
    picture[y : y + h, x : x + w] = face
    picture[:CORNER, :CORNER] = 255 if (number / FPS) % 1.0 < FLASH_S - 1e-6 else 0
    return picture
