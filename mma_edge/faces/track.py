"""Follows faces through a video: stable numbers, and a full detection only now and then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mma_edge.errors import UsageError
from mma_edge.faces.detect import Detection, overlap
from mma_edge.types import Box, Face, Frame, Picture, as_box

FIRM, FIRM_AT_ONCE = 0.9, 0.98
"""Least `confirm` value of a new face that was seen in two detections, or in one. Chosen on the trial clips: 363 faces
are above 0.988 (above 0.909 when blurred, darkened or tilted by 35 degrees); of 58 hands and clothes that pass MTCNN
one reaches 0.924 and the next 0.863, hence the second detection. The price: of FER2013's faces, cut tightly and pasted
on grey, MTCNN finds 92 %, and 89 % of these pass 0.9."""
FOUND_AGAIN = 0.9
"""Least score with which `refine` finds a missing track again; for a visible one the detector's bound is enough."""
SAME_FACE_IOU = 0.3
"""Least overlap of a detection with the track that it belongs to."""
NO_JUMP_IOU = 0.4
"""Least overlap of a refined box with the one before: with less it slipped from the head to something else."""
CONVERGED_IOU = 0.5
"""Two tracks that overlap by more than this are on the same face."""
MAX_GAP_S = 5.0
"""A longer step in presentation time is a cut: old places mean nothing after it."""
STEADY_REACH, STEADY_WEIGHT = 0.08, 0.35
"""Motion of a box, in its longer sides, that is shown in full; of a smaller motion at least this share is shown."""
LOOK_S = 0.06
"""Least time between two looks at faces that rest; while one moves by more than STEADY_REACH, all frames are looked at.
On the trial clips a box moves by 2 % of its side from frame to frame, much of it the detector's own trembling. Held for
a frame of 1/25 or 1/30 s, boxes overlap those of a full detection by 0.930 instead of 0.935, and no face is missed."""
RETRY_S = 0.1
"""Shortest time between two detections in any case."""
SMALL_FACE = 2.0
"""While all is calm, a detection passes over new faces that are smaller than the smallest one by more than this."""
SMALL_FACES_S = 2.0
"""Time between two detections that look for faces of every size all the same."""


class Detector(Protocol):
    """What the tracker needs of a detector; see `MTCNNDetector`."""

    def detect(self, image: Picture, known: Sequence[Box] = (), least_px: float = 0.0) -> list[Detection]: ...
    def refine(self, image: Picture, boxes: Sequence[Box]) -> list[Detection | None]: ...
    def confirm(self, image: Picture, boxes: Sequence[Box]) -> list[float]: ...


@dataclass(eq=False, slots=True)
class _Track:
    """One face, or a candidate for one while `number` is 0."""

    box: np.ndarray  # (4,) where it was seen last, from the detector
    shown: np.ndarray  # (4,) the same, smoothed
    score: float
    seen_s: float
    number: int = 0
    seen: bool = True  # in the newest frame
    rests: bool = False  # it moved little before it was seen last

    def see(self, detection: Detection, time_s: float) -> None:
        """Update the track with a new sighting."""
        box = np.asarray(detection.box, np.float64)
        # A resting head gets a steady crop; a moving one (8 % of its size per frame) gets its new box at once: no lag.
        reach = STEADY_REACH * max(1.0, float((box[2:] - box[:2]).max()))
        weight = np.clip(np.abs(box - self.shown).max() / reach, STEADY_WEIGHT, 1.0)
        self.rests = bool(weight < 1.0)
        self.shown = self.shown + weight * (box - self.shown)
        self.box, self.score, self.seen_s, self.seen = box, detection.score, time_s, True


class FaceTracker:
    """Gives each face of a video a number, from 1, that it keeps while it is in the picture.

    Between full detections each face is only refined near its last place, while all rest every LOOK_S. A face that is
    not seen then is not reported; if it is seen again near its old place within `max_missing_s`, it keeps its number.
    No number is used twice, not even after `reset`. Intervals are in presentation time.
    """

    def __init__(
        self,
        detector: Detector,
        detect_interval_s: float = 0.5,  # between full detections while all faces are in sight
        search_interval_s: float = 0.2,  # the same while there is no face, a candidate, or a missing face
        max_missing_s: float = 0.8,  # a face that was not seen for this long is forgotten
    ) -> None:
        if not (detect_interval_s > 0 and search_interval_s > 0 and max_missing_s >= 0):
            given = f"{detect_interval_s}, {search_interval_s} and {max_missing_s} s"
            raise UsageError(f"face tracker: {given}", "positive intervals, and a missing time of at least 0")
        self._detector = detector
        self._detect_interval_s, self._search_interval_s = detect_interval_s, search_interval_s
        self._max_missing_s = max_missing_s
        self.stretch = 1.0  # by which both intervals are longer, where there is no time for so many detections
        self._last_number = 0
        self.reset()

    def reset(self) -> None:
        """Forget where the faces were, for instance when another source starts."""
        self._tracks: list[_Track] = []
        # Newest look at the faces, newest detection, and newest one for faces of every size.
        self._looked_s = self._detected_s = self._searched_s = -np.inf
        self._time_s: float | None = None
        self._shape: tuple[int, ...] = ()

    def update(self, frame: Frame) -> list[Face]:
        """The faces seen in this frame, lowest number first. Frames come in presentation order."""
        now, image = frame.time_s, frame.picture
        if self._time_s is not None and not (image.shape == self._shape and 0 <= now - self._time_s <= MAX_GAP_S):
            self.reset()
        self._time_s, self._shape = now, image.shape

        calm = self._is_calm()
        detecting = self._detection_is_due(now)
        if not detecting and not self._look_is_due(now):
            return self._faces()
        self._looked_s = now
        if not detecting:
            sightings = self._follow(image)
            lost = any(track.seen and track not in sightings for track in self._tracks)
            calm = calm and not lost
            detecting = lost and now - self._detected_s >= RETRY_S
        if detecting:
            self._detected_s = now
            sightings = self._detect(image, now, calm)
        sightings = _part_converged(sightings)
        for track in self._tracks:
            track.seen = track in sightings
            if track.seen:
                track.see(sightings[track], now)
        self._tracks = [track for track in self._tracks if now - track.seen_s <= self._max_missing_s]
        return self._faces()

    def _faces(self) -> list[Face]:
        """What is reported, lowest number first."""
        faces = [Face(t.number, as_box(t.shown), t.score) for t in self._tracks if t.seen and t.number]
        return sorted(faces, key=lambda face: face.track_id)

    def _detection_is_due(self, now: float) -> bool:
        interval = self._detect_interval_s if self._is_calm() else self._search_interval_s
        return now - self._detected_s >= self.stretch * interval - 1e-6

    def _look_is_due(self, now: float) -> bool:
        resting = self._is_calm() and all(track.rests for track in self._tracks)
        return not resting or now - self._looked_s >= LOOK_S - 1e-6

    def _is_calm(self) -> bool:
        """Whether there are faces, all of them in sight and none in doubt."""
        return bool(self._tracks) and all(track.seen and track.number for track in self._tracks)

    def _follow(self, image: Picture) -> dict[_Track, Detection]:
        """Sightings by refinement alone, of every track: missing ones and candidates too."""
        found = self._refine(image, self._tracks)
        return {track: each for track, each in found.items() if track.seen or each.score >= FOUND_AGAIN}

    def _detect(self, image: Picture, now: float, calm: bool) -> dict[_Track, Detection]:
        """Sightings by a full detection; makes, numbers and drops tracks."""
        known = [track.box for track in self._tracks if track.seen and track.number]
        least_px = 0.0
        if calm and now - self._searched_s < SMALL_FACES_S - 1e-6:
            least_px = min(float((box[2:] - box[:2]).max()) for box in known) / SMALL_FACE
        else:
            self._searched_s = now
        detections = self._detector.detect(image, [as_box(box) for box in known], least_px)
        sightings = _match(self._tracks, detections)
        # The full detection misses a face now and then; a real one is found again and confirmed.
        unmatched = [track for track in self._tracks if track.seen and track.number and track not in sightings]
        refined = self._refine(image, unmatched)
        sightings |= {t: each for t, each in refined.items() if self._detector.confirm(image, [each.box])[0] >= FIRM}

        taken = list(sightings.values())
        fresh = [d for d in detections if not any(_iou(np.asarray(d.box), other) > CONVERGED_IOU for other in taken)]
        fresh = [d for d in fresh if d not in taken]
        candidates = [track for track in sightings if not track.number]
        firmness = self._detector.confirm(image, [sightings[t].box for t in candidates] + [d.box for d in fresh])
        for track, value in zip(candidates, firmness, strict=False):
            if value >= FIRM:
                track.number = self._next_number()
            else:
                del sightings[track]
        self._tracks = [track for track in self._tracks if track.number]
        for detection, value in zip(fresh, firmness[len(candidates) :], strict=True):
            if value >= FIRM:
                box = np.asarray(detection.box, np.float64)
                track = _Track(box, box, detection.score, now)
                track.number = self._next_number() if value >= FIRM_AT_ONCE else 0
                self._tracks.append(track)
                sightings[track] = detection
        return sightings

    def _refine(self, image: Picture, tracks: list[_Track]) -> dict[_Track, Detection]:
        """The tracks whose face is found again near its last place."""
        found = self._detector.refine(image, [as_box(track.box) for track in tracks])
        pairs = zip(tracks, found, strict=True)
        return {track: each for track, each in pairs if each is not None and _iou(track.box, each) >= NO_JUMP_IOU}

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number


def _match(tracks: Sequence[_Track], detections: Sequence[Detection]) -> dict[_Track, Detection]:
    """Pair tracks and detections, best overlap first; then those that are left over, by nearness and size."""
    pairs: dict[_Track, Detection] = {}
    for closeness, least in ((_iou, SAME_FACE_IOU), (_nearness, 0.0)):
        options = [
            (closeness(track.box, detection), bool(track.number), t, d)
            for t, track in enumerate(tracks)
            for d, detection in enumerate(detections)
        ]
        for value, _, t, d in sorted(options, reverse=True):
            if value > least and tracks[t] not in pairs and not any(detections[d] is p for p in pairs.values()):
                pairs[tracks[t]] = detections[d]
    return pairs


def _part_converged(sightings: dict[_Track, Detection]) -> dict[_Track, Detection]:
    """Of two tracks on one face, keep the one that moved less; the other counts as not seen."""
    kept: dict[_Track, Detection] = {}
    for track in sorted(sightings, key=lambda t: (not t.number, -_iou(t.box, sightings[t]), t.number)):
        box = np.asarray(sightings[track].box)
        if all(_iou(box, other) <= CONVERGED_IOU for other in kept.values()):
            kept[track] = sightings[track]
    return kept


def _iou(box: np.ndarray, detection: Detection) -> float:
    return float(overlap(box, np.asarray(detection.box, np.float64)[None])[0])


def _nearness(box: np.ndarray, detection: Detection) -> float:
    """1 at the same place, 0 from a distance of one face width, or for twice or half the size."""
    other = np.asarray(detection.box, np.float64)
    side, other_side = (float(np.sqrt((b[2:] - b[:2]).clip(0).prod())) for b in (box, other))
    if not 0.5 < side / max(other_side, 1e-9) < 2.0:
        return 0.0
    distance = float(np.hypot(*((box[:2] + box[2:] - other[:2] - other[2:]) / 2)))
    return 1.0 - distance / max(side, other_side)
