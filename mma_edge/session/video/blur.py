"""Faces that nobody is to recognise: pixelated, with a margin, a moment before they are found and after they are lost.

What the detector never finds is not blurred: docs/sessions.md says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from mma_edge.types import Box, Face

MARGIN = 0.4
"""What is blurred around a face, in its sides: hair, chin, and what the box is late by."""
CELLS = 4
"""Pixels that are left of a face's side. A person is recognised from 16 and hardly from 8."""
AHEAD_S, AFTER_S = 0.6, 1.5
"""A face is blurred so long before it was found, and after it was last seen. The tracker looks for new faces every 0.2
or 0.5 s."""


def blur(image: np.ndarray, boxes: Sequence[Box]) -> None:
    """Take the faces out of a picture, uint8 (H, W, 3), which is changed."""
    height, width = image.shape[:2]
    for x0, y0, x1, y1 in boxes:
        cell = max(x1 - x0, y1 - y0, 1.0) / CELLS
        dx, dy = MARGIN * (x1 - x0), MARGIN * (y1 - y0)
        left, top = max(0, int(x0 - dx)), max(0, int(y0 - dy))
        part = image[top : min(height, int(y1 + dy) + 1), left : min(width, int(x1 + dx) + 1)]
        if part.size:
            cells = max(1, round(part.shape[1] / cell)), max(1, round(part.shape[0] / cell))
            coarse = cv2.resize(part, cells, interpolation=cv2.INTER_AREA)
            part[:] = cv2.resize(coarse, part.shape[1::-1], interpolation=cv2.INTER_LINEAR)


class FacesAround:
    """Where faces were, are and will be around a moment: what `blur` takes."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, Sequence[Face]]] = deque()

    def add(self, time_s: float, faces: Sequence[Face]) -> None:
        """The faces of the next frame."""
        self._seen.append((time_s, faces))

    def at(self, time_s: float) -> list[Box]:
        """One box for each face, around all its places from AFTER_S before to AHEAD_S after; forgets older ones."""
        while self._seen and self._seen[0][0] < time_s - AFTER_S:
            self._seen.popleft()
        return places(each for each in self._seen if each[0] <= time_s + AHEAD_S)


def places(seen: Iterable[tuple[float, Sequence[Face]]]) -> list[Box]:
    """One box for each face, around all its places, of times and the faces at them."""
    boxes: dict[int, Box] = {}
    for _, faces in seen:
        for face in faces:
            x0, y0, x1, y1 = boxes.get(face.track_id, face.box)
            a0, b0, a1, b1 = face.box
            boxes[face.track_id] = (min(x0, a0), min(y0, b0), max(x1, a1), max(y1, b1))
    return list(boxes.values())
