"""Face detection: MTCNN (Zhang et al. 2016, doi 10.1109/LSP.2016.2603342) on onnxruntime's CPU provider.

The cascade, its thresholds and its suppression follow facenet-pytorch 2.6.0; the assets hold its weights. MMA-DFER's
crops of MAFW were made with MTCNN boxes. Two differences: this detector runs on a shrunken copy of the frame, and
`refine` runs only the last network, on known boxes.

It stays on onnxruntime whatever the engine's backend is. Even compiled for one shape OpenVINO is slower in float32: 2.6
ms instead of 2.2 for P-Net's largest picture of a portrait video, 0.65 instead of 0.29 for one candidate in O-Net, and
each shape takes longer to load than a short clip to analyse (two-core EPYC, OpenVINO 2026.4.1, onnxruntime 1.31). On a
GPU it has not been tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mma_edge.engines.session import open_detector
from mma_edge.errors import UsageError
from mma_edge.faces.crop import check_image
from mma_edge.types import Box, Picture, as_box

ASSETS = Path(__file__).parent.parent / "assets" / "mtcnn"
THRESHOLDS = (0.6, 0.7, 0.7)
"""Face probability that a window must reach in P-, R- and O-Net (facenet-pytorch's defaults)."""
PYRAMID_FACTOR = 0.709
"""Step between scales of P-Net's pyramid, about sqrt(1/2): half the area each time."""
P_WINDOW, P_STRIDE, R_SIDE, O_SIDE = 12, 2, 24, 48
"""Pixels: P-Net's window and its stride, inputs of R-Net and O-Net."""
SAME_PLACE_IOU = 0.4
"""Least overlap of a face with the place where it was known to be."""
ON_A_FACE_IOU, IN_A_FACE = 0.15, 0.7
"""A candidate with more overlap, or with a larger share of its area in a known place, is of the face that is there."""
MAX_ON_A_FACE, BEST_ON_A_FACE = 16, 4
"""Most candidates of a known face that R-Net tries, and O-Net of those that are left. The face's last place is no good
candidate itself: on clips of 6 frames per second boxes that were found from it drifted away from half of the faces."""
MAX_CANDIDATES = 400
"""Most windows that are handed on, per pyramid scale and in all: bounds the time that a noisy picture takes."""

LOOKS = np.array([(0, 0, 1), (0, 0, 0.85), (0, 0, 1.2), (-0.08, 0, 1), (0.08, 0, 1), (0, -0.08, 1), (0, 0.08, 1)])
"""Crops that `confirm` takes: shift in x and y, and size, all in sides of the square box. Each is mirrored as well."""


@dataclass(frozen=True, slots=True)
class Detection:
    """A face in one image."""

    box: Box  # in pixels of the given image, may reach past its border
    score: float  # O-Net's probability that it is a face, 0 to 1


class MTCNNDetector:
    """Finds faces in an image (`detect`), or finds them again near known places (`refine`).

    With the defaults the smallest face is 1/24 of the longest side of any larger frame (80 px of 1920).

    Raises:
        BundleError: a network is missing or was changed. DependencyError: onnxruntime is not installed.
    """

    def __init__(
        self,
        min_face_px: int = 20,  # smallest face that is looked for, in pixels of the shrunken frame
        max_side_px: int = 480,  # longest side of the shrunken frame; smaller frames stay as they are
        num_threads: int = 1,  # CPU threads for each network; more made these small ones slower beside a busy engine
        assets: Path = ASSETS,  # folder with `pnet.onnx`, `rnet.onnx`, `onet.onnx` and `SOURCE.json`
    ) -> None:
        if min_face_px < P_WINDOW or max_side_px < min_face_px or num_threads < 1:
            given = f"min_face_px={min_face_px}, max_side_px={max_side_px}, num_threads={num_threads}"
            raise UsageError(f"face detector: {given}", f"{P_WINDOW} <= min_face_px <= max_side_px, num_threads >= 1")
        self.min_face_px, self.max_side_px = min_face_px, max_side_px
        names = ("pnet.onnx", "rnet.onnx", "onet.onnx")
        self._pnet, self._rnet, self._onet = open_detector("face detector", Path(assets), names, num_threads)

    def detect(self, image: Picture, known: Sequence[Box] = (), least_px: float = 0.0) -> list[Detection]:
        """All faces of an image, uint8 (H, W, 3) RGB, largest first.

        `known` says where faces were a moment ago: of the hundred candidates that P-Net finds around each, only the
        best few are tried. Where they do not lead to the face again, all are. Faces smaller than `least_px` pixels of
        this image may be passed over, which saves P-Net's largest pictures.
        """
        check_image(image)
        image = np.asarray(image)
        height, width = image.shape[:2]
        shrink = min(1.0, self.max_side_px / max(height, width))
        if shrink < 1.0:
            size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
            image = shrunk(image, *size)
        # Each side was rounded on its own, so each has its own ratio back.
        ratio = np.tile((width / image.shape[1], height / image.shape[0]), 2)
        candidates = self._propose(image, max(self.min_face_px, least_px * shrink))
        boxes = scores = None
        if len(known):
            places = squared(np.asarray(known, np.float64).reshape(-1, 4) / ratio)
            better = self._reject(image, _thinned(candidates, places, MAX_ON_A_FACE))
            boxes, scores = self._output(image, _thinned(better, places, BEST_ON_A_FACE))
            if not all((overlap(place, boxes) >= SAME_PLACE_IOU).any() for place in places):
                boxes = None
        if boxes is None:
            boxes, scores = self._output(image, self._reject(image, candidates))
        boxes = boxes * ratio
        found = [Detection(as_box(box), float(score)) for box, score in zip(boxes, scores, strict=True)]
        return sorted(found, key=lambda d: (d.box[0] - d.box[2]) * (d.box[3] - d.box[1]))

    def refine(self, image: Picture, boxes: Sequence[Box]) -> list[Detection | None]:
        """Look for a face again around each box of a frame before: O-Net alone, far cheaper than `detect`.

        Takes uint8 (H, W, 3) RGB; gives for each box, in order, the face, or None where there is no face any more.
        """
        check_image(image)
        if not boxes:
            return []
        squares = squared(np.asarray(boxes, np.float64).reshape(-1, 4))
        answers: list[Detection | None] = [None] * len(boxes)
        inside, crops = _crops(image, squares, O_SIDE)
        if inside.size:
            probability, offsets = _run(self._onet, crops)
            for i, score, box in zip(inside, probability, _moved(squares[inside], offsets), strict=True):
                if score >= THRESHOLDS[2]:
                    answers[i] = Detection(as_box(box), float(score))
        return answers

    def confirm(self, image: Picture, boxes: Sequence[Box]) -> list[float]:
        """How surely each box is a face: O-Net's mean probability over shifted, scaled and mirrored crops.

        A hand or a crease in a shirt may score 0.98 in one crop, but seldom in all of them. Takes face boxes of this
        same image, uint8 (H, W, 3) RGB; gives 0 to 1 for each, in order.
        """
        check_image(image)
        answers = []
        for square in squared(np.asarray(boxes, np.float64).reshape(-1, 4)):
            side, centre = square[2] - square[0], np.tile((square[:2] + square[2:]) / 2, 2)
            half = side * LOOKS[:, 2:] / 2
            inside, crops = _crops(image, centre + side * np.tile(LOOKS[:, :2], 2) + half * (-1, -1, 1, 1), O_SIDE)
            looks = np.concatenate([crops, crops[:, :, ::-1]])
            answers.append(float(_run(self._onet, looks)[0].mean()) if inside.size else 0.0)
        return answers

    def _propose(self, image: np.ndarray, min_face_px: float) -> np.ndarray:
        """Run P-Net over a pyramid of the image: square candidates (n, 4)."""
        height, width = image.shape[:2]
        # The pyramid of a larger smallest face is the one of the detector's own, without its first pictures.
        skipped = int(np.log(min_face_px / self.min_face_px) / -np.log(PYRAMID_FACTOR))
        scale = P_WINDOW / self.min_face_px * PYRAMID_FACTOR**skipped
        reach, first = np.array([1, 1, P_WINDOW, P_WINDOW]), np.array([1, 1, 0, 0])
        windows, moves, scores = [np.zeros((0, 4))], [np.zeros((0, 4))], [np.zeros(0)]
        while min(height, width) * scale >= P_WINDOW:
            small = shrunk(image, int(width * scale + 1), int(height * scale + 1))
            probability, offsets = _run(self._pnet, small[None])
            rows, columns = np.nonzero(probability[0] >= THRESHOLDS[0])
            score = probability[0, rows, columns]
            corners = np.stack([columns, rows, columns, rows], axis=1) * float(P_STRIDE)
            # Published: pixels count from 1, from floor((2i + 1) / scale) to floor((2i + 12) / scale), including the
            # last one. Here pixels count from 0 and the end is excluded, so only the start moves by one.
            window = np.floor((corners + reach) / scale) - first
            kept = suppress(window, score, 0.5)[:MAX_CANDIDATES]
            windows.append(window[kept])
            moves.append(offsets[0, :, rows[kept], columns[kept]])
            scores.append(score[kept])
            scale *= PYRAMID_FACTOR
        window, move, score = np.concatenate(windows), np.concatenate(moves), np.concatenate(scores)
        kept = suppress(window, score, 0.7)[:MAX_CANDIDATES]
        return squared(_moved(window[kept], move[kept]))

    def _reject(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """R-Net: square candidates (n, 4) -> fewer and better square candidates."""
        boxes, scores, offsets = _passing(self._rnet, image, boxes, R_SIDE, THRESHOLDS[1])
        kept = suppress(boxes, scores, 0.7)
        return squared(_moved(boxes[kept], offsets[kept]))

    def _output(self, image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """O-Net: square candidates (n, 4) -> face boxes (m, 4) and scores (m,)."""
        boxes, scores, offsets = _passing(self._onet, image, boxes, O_SIDE, THRESHOLDS[2])
        boxes = _moved(boxes, offsets)
        kept = suppress(boxes, scores, 0.7, of_smaller=True)
        return boxes[kept], scores[kept]


def shrunk(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """OpenCV's INTER_AREA, uint8 (h, w, 3) -> (height, width, 3), in halves down to the last factor of 2 to 4.

    OpenCV has vector instructions for the mean of 2 x 2 pixels alone: in halves a face of 446 pixels becomes 48 in a
    quarter of the time. An odd last row or column is left out, at most a quarter of a pixel of the result.
    """
    while image.shape[0] >= 4 * height and image.shape[1] >= 4 * width:
        rows, columns = image.shape[0] // 2, image.shape[1] // 2
        image = cv2.resize(image[: 2 * rows, : 2 * columns], (columns, rows), interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def overlap(box: np.ndarray, others: np.ndarray, of_smaller: bool = False) -> np.ndarray:
    """Intersection of `box` (4,) with each of `others` (n, 4), over their union or the smaller box's area: (n,)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = sides.clip(0).prod(axis=1)
    area, areas = (box[2:] - box[:2]).prod(), (others[:, 2:] - others[:, :2]).prod(axis=1)
    whole = np.minimum(area, areas) if of_smaller else area + areas - shared
    return shared / np.maximum(whole, 1e-9)


def suppress(boxes: np.ndarray, scores: np.ndarray, threshold: float, of_smaller: bool = False) -> np.ndarray:
    """Non-maximum suppression: indices of the boxes (n, 4) to keep, best first.

    The overlap is that of `overlap`; only the one over the union has a fast road, through OpenCV.
    """
    if not of_smaller:
        corners_and_sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        kept = cv2.dnn.NMSBoxes(corners_and_sides, scores.astype(np.float32), 0.0, threshold)
        return np.asarray(kept, np.intp).reshape(-1)
    waiting = np.argsort(-scores, kind="stable")
    kept = []
    while waiting.size:
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        waiting = waiting[overlap(boxes[best], boxes[waiting], of_smaller=True) <= threshold]
    return np.asarray(kept, np.intp)


def squared(boxes: np.ndarray) -> np.ndarray:
    """Boxes (n, 4) widened about their centres to squares of their longer sides."""
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def _thinned(candidates: np.ndarray, places: np.ndarray, most: int) -> np.ndarray:
    """Candidates (n, 4), best first, but of those that are of a face in one of the known places (m, 4) only so many."""
    areas = (candidates[:, 2:] - candidates[:, :2]).prod(axis=1)
    tried, spared = np.zeros(len(candidates), bool), np.zeros(len(candidates), bool)
    for place in places:
        shares = overlap(place, candidates)
        shared = shares / (1 + shares) * (areas + (place[2:] - place[:2]).prod())
        tried[np.flatnonzero(shares > ON_A_FACE_IOU)[:most]] = True
        spared |= (shares > ON_A_FACE_IOU) | (shared > IN_A_FACE * areas)
    return candidates[tried | ~spared]


def _moved(boxes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Boxes (n, 4) with each corner moved by a network's answer, in widths and heights of the box."""
    return boxes + offsets * np.tile(boxes[:, 2:] - boxes[:, :2], 2)


def _crops(image: Picture, boxes: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut out each box that touches the image; a box past the border is cut there and stretched, as published.

    Gives the indices (m,) of these boxes, and their crops, uint8 (m, side, side, 3).
    """
    height, width = image.shape[:2]
    bounds = np.floor(boxes).astype(np.int64).clip(0, (width, height, width, height))
    inside = np.flatnonzero((bounds[:, 2:] > bounds[:, :2]).all(axis=1))
    crops = np.empty((inside.size, side, side, 3), np.uint8)
    for crop, (x0, y0, x1, y1) in zip(crops, bounds[inside], strict=True):
        crop[:] = shrunk(image[y0:y1, x0:x1], side, side)
    return inside, crops


def _passing(session: Any, image: np.ndarray, boxes: np.ndarray, side: int, threshold: float) -> tuple:
    """The boxes (n, 4) that a network scores above its threshold: boxes (m, 4), scores (m,) and offsets (m, 4)."""
    inside, crops = _crops(image, boxes, side)
    if not inside.size:
        return np.zeros((0, 4)), np.zeros(0), np.zeros((0, 4))
    scores, offsets = _run(session, crops)
    passed = scores > threshold
    return boxes[inside][passed], scores[passed], offsets[passed]


def _run(session: Any, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, H, W, 3) -> the network's probabilities and offsets."""
    x = (images.transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 128.0
    return tuple(session.run(["probability", "offsets"], {session.get_inputs()[0].name: x}))
