"""A decoded picture of a file, which becomes RGB only where it is looked at.

Of most pictures only one face is looked at. Turning a whole 1080p picture into RGB takes 0.8 ms and 6 MB; a face of
448 pixels takes a quarter of that.
"""

from __future__ import annotations

from dataclasses import dataclass

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

_PARTS_OF = ("yuv420p", "nv12")
"""Pixel formats of which a part becomes the same RGB as in the whole: each pixel comes from its own bytes alone."""
_LEAST_PIXELS = 500_000
"""Smaller pictures are converted as a whole, which takes no longer than a part."""
_ALIGN = 64
"""Parts begin and end at multiples of so many columns, where FFmpeg's vector code begins and ends, too."""
_MARGIN = 0.15
"""What is converted around the part asked for, in its sides: the next look at the picture is often beside it."""

_TO_RGB = {"format": "rgb24"} | ({"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {})
"""From version 17 on PyAV starts a thread per core for each picture: two cores took 0.46 ms together
for a picture of 480 x 480 that one thread converts in 0.1 ms."""


@dataclass(frozen=True)
class Orientation:
    """How a stored picture is turned into an upright one: rows and columns exchanged first, then mirrored."""

    swapped: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @classmethod
    def of(cls, display_matrix: np.ndarray | None) -> Orientation:
        """What a file's display matrix asks for, to the nearest quarter turn; None asks for nothing.

        The matrix is int32 (9,) as FFmpeg stores it: x' = m0 x + m3 y, y' = m1 x + m4 y, y downwards.
        """
        if display_matrix is None:
            return cls()
        m0, m1, m3, m4 = (int(display_matrix[i]) for i in (0, 1, 3, 4))
        swapped = abs(m3) > abs(m0)
        return cls(swapped, *((m3 < 0, m1 < 0) if swapped else (m0 < 0, m4 < 0)))

    def upright(self, image: np.ndarray) -> np.ndarray:
        """A stored picture, or a part of it, (H, W, 3), as it is to be seen."""
        if self.swapped:
            image = cv2.transpose(image)
        flip = {(True, True): -1, (True, False): 1, (False, True): 0}.get((self.mirror_x, self.mirror_y))
        return image if flip is None else cv2.flip(image, flip)

    def stored(self, box: tuple[int, int, int, int], width: int, height: int) -> tuple[int, int, int, int]:
        """Where the pixels of a box in the upright picture, which has this width and height, are stored."""
        x0, y0, x1, y1 = box
        if self.mirror_x:
            x0, x1 = width - x1, width - x0
        if self.mirror_y:
            y0, y1 = height - y1, height - y0
        return (y0, x0, y1, x1) if self.swapped else (x0, y0, x1, y1)

    def seen(self, box: tuple[int, int, int, int], width: int, height: int) -> tuple[int, int, int, int]:
        """Where a stored box is in the upright picture, which has this width and height: the inverse of `stored`."""
        turned = (box[1], box[0], box[3], box[2]) if self.swapped else box
        return Orientation(False, self.mirror_x, self.mirror_y).stored(turned, width, height)


class DecodedPicture:
    """A `mma_edge.types.Picture`; what was converted is kept for the next look. For one thread at a time."""

    dtype = np.dtype(np.uint8)

    def __init__(self, frame: av.VideoFrame, orientation: Orientation) -> None:
        self._frame, self._orientation = frame, orientation
        height, width = (frame.width, frame.height) if orientation.swapped else (frame.height, frame.width)
        self.shape = (height, width, 3)
        even = frame.width % 2 == 0 and frame.height % 2 == 0
        self._in_parts = frame.format.name in _PARTS_OF and even and width * height >= _LEAST_PIXELS
        self._box = (0, 0, 0, 0)  # of the upright picture
        self._rgb = np.zeros((0, 0, 3), np.uint8)  # what is in the box

    def twin(self) -> DecodedPicture:
        """The same picture for another thread."""
        return DecodedPicture(self._frame, self._orientation)

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self[:, :], dtype=dtype, copy=copy)

    def __getitem__(self, part: tuple[slice, slice]) -> np.ndarray:
        """RGB of these rows and columns, slices without a step: uint8 (h, w, 3)."""
        rows, columns = part
        (y0, y1, _), (x0, x1, _) = rows.indices(self.shape[0]), columns.indices(self.shape[1])
        x1, y1 = max(x0, x1), max(y0, y1)
        left, top, right, bottom = self._box
        if not (left <= x0 and x1 <= right and top <= y0 and y1 <= bottom):
            self._convert(x0, y0, x1, y1)
            left, top = self._box[:2]
        return self._rgb[y0 - top : y1 - top, x0 - left : x1 - left]

    def _convert(self, x0: int, y0: int, x1: int, y1: int) -> None:
        """Make RGB of at least this part."""
        height, width = self.shape[:2]
        margin = int(_MARGIN * max(x1 - x0, y1 - y0))
        box = max(0, x0 - margin), max(0, y0 - margin), min(width, x1 + margin), min(height, y1 + margin)
        if not self._in_parts or 2 * (box[2] - box[0]) * (box[3] - box[1]) > width * height:
            # FFmpeg converts with the file's own colour matrix and range.
            rgb = _rgb(self._frame)
            self._box, self._rgb = (0, 0, width, height), self._orientation.upright(rgb)
            return
        left, top, right, bottom = self._orientation.stored(box, width, height)
        left, top = left // _ALIGN * _ALIGN, top // 2 * 2
        right, bottom = min(self._frame.width, -(-right // _ALIGN) * _ALIGN), -(-bottom // 2) * 2
        rgb = self._orientation.upright(_part(self._frame, left, top, right, bottom))
        self._box, self._rgb = self._orientation.seen((left, top, right, bottom), width, height), rgb


def _part(frame: av.VideoFrame, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """RGB of a part of a stored picture with even borders, uint8 (h, w, 3)."""
    width, height = right - left, bottom - top
    part = av.VideoFrame(width, height, frame.format.name)
    for number, (source, target) in enumerate(zip(frame.planes, part.planes, strict=True)):
        rows = 2 if number else 1  # colour has half the rows, and half the columns or columns of two bytes
        columns = rows if len(part.planes) == 3 else 1
        y, x, h, w = top // rows, left // columns, height // rows, width // columns
        pixels = np.frombuffer(source, np.uint8).reshape(-1, source.line_size)
        np.frombuffer(target, np.uint8).reshape(-1, target.line_size)[:h, :w] = pixels[y : y + h, x : x + w]
    part.colorspace, part.color_range = frame.colorspace, frame.color_range
    return _rgb(part)


def _rgb(frame: av.VideoFrame) -> np.ndarray:
    """uint8 (H, W, 3). The converter is not the frame's own, which another thread may use at the same time."""
    return VideoReformatter().reformat(frame, **_TO_RGB).to_ndarray()
