"""How much mouths and eyes move from one frame to the next, for `mma_edge.faces.speaker`."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from mma_edge.faces.speaker import Motion
from mma_edge.types import Box, Face, Picture

SIDE = 96
"""Pixels of the square in which faces are compared; it is MARGIN times as wide as the longer side of the face's box."""
MARGIN = 1.3
MOUTH, EYES, UPPER = np.s_[58:90, 28:68], np.s_[22:50, 22:74], np.s_[14:62, 16:80]
"""Rows and columns of it: a frontal face's mouth, closed or open; its eyes with the brows; what tells how the head
moved. MTCNN's points of the face would follow a turned head, but its networks are carried without them."""
FARTHEST = 6.0
"""Shift in pixels of the square above which it is no motion of the head, but another picture."""


class MotionMeter:
    """Call it with each frame of one source and the faces in it, in their order.

    The head's own shift, and the trembling of its box, are taken out first. While there is only one face, nothing is
    measured and nothing spent.
    """

    def __init__(self) -> None:
        self._before: dict[int, np.ndarray] = {}
        self._window = cv2.createHanningWindow((64, 48), cv2.CV_32F)

    def __call__(self, picture: Picture, faces: Sequence[Face]) -> dict[int, Motion]:
        """Motion of each face by its number, except of those that were not in the frame before."""
        before, self._before = self._before, {}
        if len(faces) < 2:
            return {}
        motions = {}
        for face in faces:
            image = _square(picture, face.box)
            if image is None:
                continue
            self._before[face.track_id] = image
            if face.track_id in before:
                motions[face.track_id] = self._between(before[face.track_id], image)
        return motions

    def _between(self, old: np.ndarray, new: np.ndarray) -> Motion:
        """The motion between two looks at a face, float32 (96, 96) each."""
        (x, y), _ = cv2.phaseCorrelate(old[UPPER].copy(), new[UPPER].copy(), self._window)
        if max(abs(x), abs(y)) <= FARTHEST:
            shift = np.array([[1, 0, -x], [0, 1, -y]])
            new = cv2.warpAffine(new, shift, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
        change = np.abs(new - old)
        return Motion(float(np.sqrt(np.square(change[MOUTH]).mean())), float(change[EYES].mean()))


def _square(picture: Picture, box: Box) -> np.ndarray | None:
    """A face with a margin in grey, float32 (96, 96); None where it is outside the picture."""
    height, width = picture.shape[:2]
    half = MARGIN * max(box[2] - box[0], box[3] - box[1]) / 2
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    x0, y0, x1, y1 = (round(value) for value in (x - half, y - half, x + half, y + half))
    pixels = picture[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)]
    if pixels.size == 0:
        return None
    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    outside = max(0, -y0), max(0, y1 - height), max(0, -x0), max(0, x1 - width)
    if any(outside):
        grey = cv2.copyMakeBorder(grey, *outside, cv2.BORDER_REPLICATE)
    return cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
