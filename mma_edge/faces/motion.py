"""How much mouths and eyes move from one frame to the next, for `mma_edge.faces.speaker`."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from mma_edge.faces.speaker import Motion
from mma_edge.types import Box, Face, Picture

MOUTH, MOUTH_SIZE = (-0.27, 0.13, 0.27, 0.57), (40, 32)
EYES, EYES_SIZE = (-0.35, -0.35, 0.35, 0.03), (52, 28)
"""Part of a face, from the centre of its box in the box's longer sides (x0, y0, x1, y1), and its width and height in
pixels when it is compared. A frontal face's mouth, closed or open, and its eyes with the brows. MTCNN's points of the
face would follow a turned head, but its networks are carried without them."""


class MotionMeter:
    """Call it with each frame of one source and the faces in it, in their order.

    A call takes about 0.15 ms for each face; while there is only one face, nothing is measured and nothing spent.
    """

    def __init__(self) -> None:
        self._before: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __call__(self, picture: Picture, faces: Sequence[Face]) -> dict[int, Motion]:
        """Motion of each face by its number, except of those that were not in the frame before."""
        before, self._before = self._before, {}
        if len(faces) < 2:
            return {}
        motions = {}
        for face in faces:
            mouth, eyes = _part(picture, face.box, MOUTH, MOUTH_SIZE), _part(picture, face.box, EYES, EYES_SIZE)
            if mouth is None or eyes is None:
                continue
            self._before[face.track_id] = mouth, eyes
            if face.track_id in before:
                old_mouth, old_eyes = before[face.track_id]
                motions[face.track_id] = Motion(_difference(mouth, old_mouth), _difference(eyes, old_eyes))
        return motions


def _part(picture: Picture, box: Box, part: Box, size: tuple[int, int]) -> np.ndarray | None:
    """A part of a face in grey, uint8 (height, width) of `size`; None where it is outside the picture."""
    centre = np.array([box[0] + box[2], box[1] + box[3]] * 2) / 2
    corners = np.round(centre + max(box[2] - box[0], box[3] - box[1]) * np.array(part)).astype(int).clip(0)
    pixels = picture[corners[1] : corners[3], corners[0] : corners[2]]
    if pixels.size == 0:
        return None
    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA)


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference in grey levels."""
    return float(cv2.absdiff(a, b).mean())
