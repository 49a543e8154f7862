"""Small videos of coloured squares, a detector that takes them for faces, and what prepare makes of them."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from mma_edge.faces.detect import Detection
from mma_edge.types import Picture
from mma_trainer import __main__ as entry

RED, BLUE = (220, 20, 20), (20, 20, 220)
SIDE, RATE_HZ = 96, 16000


class Squares:
    """A detector of red and blue squares."""

    def detect(self, image: Picture, known: Sequence = (), least_px: float = 0.0) -> list[Detection]:
        image, found = np.asarray(image), []
        for channel in (0, 2):
            ys, xs = np.nonzero((image[..., channel] > 150) & (image[..., 2 - channel] < 100))
            if len(ys) > 50:
                found.append(Detection((xs.min(), ys.min(), xs.max() + 1, ys.max() + 1), 1.0))
        return found

    def refine(self, image: Picture, boxes: Sequence) -> list[Detection | None]:
        def gap(detection: Detection, box: Sequence[float]) -> float:
            return float(np.abs(np.subtract(detection.box, box)).max())

        found = self.detect(image)
        return [next((d for d in found if gap(d, box) < 10), None) for box in boxes]

    def confirm(self, image: Picture, boxes: Sequence) -> list[float]:
        return [1.0 for _ in boxes]


def make_video(path: Path, frames: list[list[tuple]], sound_s: float = 0.5) -> Path:
    """25 frames a second; each a list of (colour, x, y, side) on grey. No frames: sound only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        video = audio = None
        if frames:
            video = out.add_stream("libx264", rate=25, options={"crf": "5"})
            video.width = video.height = SIDE
            video.pix_fmt = "yuv444p"
        if sound_s:
            audio = out.add_stream("pcm_s16le" if path.suffix == ".mkv" else "aac", rate=RATE_HZ, layout="stereo")
        for index, squares in enumerate(frames):
            image = np.full((SIDE, SIDE, 3), 128, np.uint8)
            for colour, x, y, side in squares:
                image[y : y + side, x : x + side] = colour
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            out.mux(video.encode(frame))
        if video:
            out.mux(video.encode(None))
        if audio:
            times = np.arange(round(sound_s * RATE_HZ)) / RATE_HZ
            both = np.stack([0.5 * np.sin(2 * np.pi * hz * times) for hz in (440, 880)])
            samples = (both * 32767).astype(np.int16).T.reshape(1, -1)
            sound = av.AudioFrame.from_ndarray(samples, "s16", "stereo")
            sound.sample_rate, sound.pts = RATE_HZ, 0
            out.mux([*audio.encode(sound), *audio.encode(None)])
    return path


ONE_RED = [[(RED, 30, 30, 30)]] * 20


def run(*arguments: object) -> int:
    return entry.train(["prepare", "--workers", "1", *map(str, arguments)])


def failures(output: Path) -> dict[str, tuple[str, str]]:
    with (output / "failures.csv").open(newline="") as file:
        return {row["clip"]: (row["kind"], row["left_out"]) for row in csv.DictReader(file)}


def listed(output: Path, fold: int, split: str) -> set[str]:
    lines = (output / "annotation" / f"set_{fold}_{split}.txt").read_text().splitlines()
    return {Path(line.split()[0]).name for line in lines}


def square_or_die(number: int) -> int:
    """Work for a process: the third item ends it as a segmentation fault does."""
    if number == 3:
        os._exit(11)
    return number * number
