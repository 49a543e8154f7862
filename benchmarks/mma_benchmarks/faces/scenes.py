"""Scenes of known truth: heads cut from clips of one person each, which pass each other in a 720p picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from mma_edge.errors import DataError
from mma_edge.faces.detect import MTCNNDetector
from mma_edge.faces.track import FIRM
from mma_edge.sources import SourceStats, open_source
from mma_edge.sources.base import Source
from mma_edge.types import Box, Frame, as_box

WIDTH, HEIGHT, FPS = 1280, 720, 25
FACE_PX, HEAD_FRAMES = 150, 60
"""Height of each face, and pictures of each head; they are shown forward and backward."""
HEAD_SIDES, FACE_AT = (1.5, 1.45), 0.52
"""Size of a head in widths and heights of its face, and where in its height the face's centre is."""
REST_FRAMES = 12
"""Pictures in which everybody stands, at the beginning and the end."""
COVERED = 0.25
"""A face of which more than this is covered need not be found."""
Centres = Sequence[tuple[float, float]]
"""Where the centre of each face is, in pixels."""


@dataclass(frozen=True, eq=False)
class Head:
    """One person: images uint8 (n, h, w, 3), mask float32 (h, w, 1), and where the face is in them."""

    images: np.ndarray
    mask: np.ndarray
    face: Box

    @classmethod
    def of(cls, clip: Path, detector: MTCNNDetector) -> Head:
        """The head in a clip; DataError where no face is found in its first pictures."""
        images: list[np.ndarray] = []
        box = None
        with open_source(clip, audio=False) as source:
            for event in islice(source.events(), 3 * HEAD_FRAMES):
                if box is None:
                    box = surest_face(detector, event.image)
                if box is not None:
                    images.append(event.image)
                if len(images) == HEAD_FRAMES:
                    break
        if box is None:
            raise DataError(f"{clip} shows no face in its first {3 * HEAD_FRAMES} pictures", "a clip of one person")
        scale = FACE_PX / (box[3] - box[1])
        face_width = scale * (box[2] - box[0])
        width, height = int(HEAD_SIDES[0] * face_width), int(HEAD_SIDES[1] * FACE_PX)
        centre = (box[:2] + box[2:]) / 2
        move = np.array([[scale, 0, width / 2 - scale * centre[0]], [0, scale, FACE_AT * height - scale * centre[1]]])
        cut = [cv2.warpAffine(each, move, (width, height), borderMode=cv2.BORDER_REPLICATE) for each in images]
        y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        mask = ((1 - np.hypot(x, y)) / 0.06).clip(0, 1).astype(np.float32)[..., None]  # an oval with a soft border
        x0, y0 = (width - face_width) / 2, FACE_AT * height - FACE_PX / 2
        return cls(np.stack(cut), mask, (x0, y0, x0 + face_width, y0 + FACE_PX))

    def paste(self, picture: np.ndarray, number: int, centre: tuple[float, float]) -> Box:
        """Draw the head's picture of this number with the face at a place; the box of the face."""
        there_and_back = 2 * len(self.images) - 2 or 1
        number = number % there_and_back
        image = self.images[min(number, there_and_back - number)]
        height, width = image.shape[:2]
        x = round(centre[0] - (self.face[0] + self.face[2]) / 2)
        y = round(centre[1] - (self.face[1] + self.face[3]) / 2)
        rows = slice(max(0, -y), max(0, min(height, picture.shape[0] - y)))
        columns = slice(max(0, -x), max(0, min(width, picture.shape[1] - x)))
        target = picture[y + rows.start : y + rows.stop, x + columns.start : x + columns.stop]
        mask = self.mask[rows, columns]
        target[:] = target * (1 - mask) + image[rows, columns] * mask
        return as_box(np.array(self.face) + np.tile((x, y), 2))


def surest_face(detector: MTCNNDetector, image: np.ndarray) -> np.ndarray | None:
    """The box (4,) of the surest face of a picture, None where none is firm."""
    boxes = [detection.box for detection in detector.detect(image)]
    values = detector.confirm(image, boxes)
    return np.array(boxes[int(np.argmax(values))]) if max(values, default=0.0) >= FIRM else None


def passing(speed: float, gap: float = 500.0) -> Iterator[Centres]:
    """Both walk to the other's side at pixels per second."""
    for i in range(int(gap / speed * FPS) + 1):
        walked = speed * i / FPS
        yield [((WIDTH - gap) / 2 + walked, 360), ((WIDTH + gap) / 2 - walked, 366)]


def turning_back(speed: float = 160.0, gap: float = 500.0, hidden_s: float = 0.3) -> Iterator[Centres]:
    """Both walk until one hides the other, wait so long, and go back to where they came from."""
    meeting = int((gap - 40) / 2 / speed * FPS)
    there = [speed * i / FPS for i in range(meeting)]
    for walked in [*there, *[there[-1]] * round(hidden_s * FPS), *reversed(there)]:
        yield [((WIDTH - gap) / 2 + walked, 360), ((WIDTH + gap) / 2 - walked, 366)]


def walking_past(speed: float = 160.0, gap: float = 600.0) -> Iterator[Centres]:
    """The first walks past the second, who stands."""
    for i in range(int(gap / speed * FPS) + 1):
        yield [((WIDTH - gap) / 2 + speed * i / FPS, 360), (WIDTH / 2, 366)]


SCENES: dict[str, Callable[[], Iterator[Centres]]] = {
    "passing slowly": lambda: passing(100),
    "passing": lambda: passing(160),
    "passing fast": lambda: passing(300),
    "turning back": turning_back,
    "one walks past the other": walking_past,
}


def background() -> np.ndarray:
    """A smooth picture without a face, uint8 (720, 1280, 3)."""
    patches = np.random.default_rng(0).integers(60, 200, (9, 16, 3)).astype(np.uint8)
    return cv2.GaussianBlur(cv2.resize(patches, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), (0, 0), 15)


def played(heads: Sequence[Head], path: Iterator[Centres], front: int) -> Iterator[tuple[Frame, list[Box | None]]]:
    """Each picture, and the box of each face in it, None where another one covers it; `front` hides the others."""
    places, ground = list(path), background()
    places = [places[0]] * REST_FRAMES + places + [places[-1]] * REST_FRAMES
    order = sorted(range(len(heads)), key=lambda person: person == front)
    for number, centres in enumerate(places):
        picture, boxes = ground.copy(), {}
        for person in order:
            boxes[person] = heads[person].paste(picture, number + 17 * person, centres[person])
        seen = [
            None if person != front and _covered(boxes[person], boxes[front]) > COVERED else boxes[person]
            for person in range(len(heads))
        ]
        yield Frame(picture, number / FPS, 0.0), seen


def _covered(box: Box, by: Box) -> float:
    """Share of a box that another one covers."""
    shared = np.minimum(box[2:], by[2:]) - np.maximum(box[:2], by[:2])
    return float(shared.clip(0).prod() / ((box[2] - box[0]) * (box[3] - box[1])))


class Crowd(Source):
    """Heads in rows of four, each swaying by some pixels, for some seconds; no sound."""

    live, has_video, has_audio = False, True, False

    def __init__(self, heads: Sequence[Head], seconds: float) -> None:
        self.name, self.stats, self.duration_s = "crowd", SourceStats(), seconds
        ground = background()
        self._frames = []
        for number in range(round(seconds * FPS)):
            picture, sway = ground.copy(), 12 * np.sin(2 * np.pi * number / FPS / 3)
            for person, head in enumerate(heads):
                row, column = divmod(person, 4)
                head.paste(picture, number + 17 * person, (200 + 290 * column + sway, 180 + 330 * row))
            self._frames.append(Frame(picture, number / FPS, 0.0))

    def events(self) -> Iterator[Frame]:
        yield from self._frames

    def close(self) -> None:
        """Nothing to release."""
