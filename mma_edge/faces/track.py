"""Follows faces through a video: stable numbers, and a full detection only now and then.

Faces that pass each other, or hide each other for a moment, are told apart by where each was going and by its colours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from mma_edge.errors import UsageError
from mma_edge.faces.detect import Detection, overlap
from mma_edge.faces.match import Looks, best_pairs, looks_of, nearness
from mma_edge.types import Box, Face, Frame, Picture, as_box

FIRM, FIRM_AT_ONCE = 0.9, 0.98
"""Least `confirm` value of a new face that was seen in two detections, or in one. Chosen on the trial clips: 363 faces
are above 0.988 (above 0.909 when blurred, darkened or tilted by 35 degrees); of 58 hands and clothes that pass MTCNN
one reaches 0.924 and the next 0.863, hence the second detection. The price: of FER2013's faces, cut tightly and pasted
on grey, MTCNN finds 92 %, and 89 % of these pass 0.9."""
FOUND_AGAIN = 0.9
"""Least score with which `refine` finds a missing track again; for a visible one the detector's bound is enough."""
NO_JUMP_IOU = 0.4
"""Least overlap of a refined box with the one before: with less it slipped from the head to something else."""
CONVERGED_IOU = 0.5
"""Two tracks that overlap by more than this are on the same face."""
CLOSE = 1.3
"""Faces whose centres are nearer than this, in widths and heights of a face, may hide each other: a head is wider.
What is seen of them then is not trusted much."""
VELOCITY_S, CLOSE_VELOCITY_S = 0.25, 1.0
"""Time over which a track's velocity is averaged, and while another face is close."""
LOOKS_WEIGHT = 0.3
"""Weight of each detection in a track's looks."""
STRANGER, ALIKE = 0.45, 0.3
"""Distance of looks from which a face is not taken for the one that is missing, and up to which it may be found farther
away than a face width: people turn back while they are hidden."""
HIDDEN_S, HIDDEN_COST = 2.0, 0.3
"""How long a face may be hidden behind another one; and how much, in nearness and looks, speaks for the one that was in
sight until now where only one of two is."""
RETURN_REACH_PER_S = 2.0
"""How much farther away, in face widths per second of absence, a face that looks ALIKE may be."""
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
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))  # pixels per second, x and y
    looks: Looks | None = None
    place: np.ndarray | None = None  # (4,) where it should be now
    close: bool = False  # to another track's place

    def expect(self, time_s: float, alone: bool) -> None:
        """Work out its place at a time. That of a face alone in sight is where it was: more only moves its crop."""
        moved = np.zeros(2) if alone and self.seen else self.velocity * (time_s - self.seen_s)
        self.place = self.box + np.tile(moved, 2)

    def likeness(self, near: float, box: np.ndarray, looks: Looks | None, time_s: float) -> float:
        """How probably a face is this one, 0 to 2, 0 for not at all; `near` is its nearness."""
        if self.looks is None or looks is None:
            return near and 0.7 + near - HIDDEN_COST * (not self.seen)
        distance = float(np.linalg.norm(self.looks - looks))
        if not self.seen and not self.close and distance > STRANGER:  # one that is half hidden may look like anybody
            return 0.0
        if not self.seen and distance <= ALIKE:
            near = nearness(self.place, box, 1 + RETURN_REACH_PER_S * (time_s - self.seen_s))
        return near and max(0.0, 1 + near - distance - HIDDEN_COST * (not self.seen))

    def learn(self, looks: Looks | None) -> None:
        """Take in what the face looks like, where no other one is close."""
        if looks is not None:
            self.looks = looks if self.looks is None else self.looks + LOOKS_WEIGHT * (looks - self.looks)

    def see(self, detection: Detection, time_s: float) -> None:
        """Update the track with a new sighting."""
        box = np.asarray(detection.box, np.float64)
        if (span_s := time_s - self.seen_s) > 0:
            moved = (box[:2] + box[2:] - self.box[:2] - self.box[2:]) / 2
            average_s = CLOSE_VELOCITY_S if self.close else VELOCITY_S
            self.velocity += (1 - np.exp(-span_s / average_s)) * (moved / span_s - self.velocity)
        # A resting head gets a steady crop; a moving one (8 % of its size per frame) gets its new box at once: no lag.
        reach = STEADY_REACH * max(1.0, float((box[2:] - box[:2]).max()))
        weight = np.clip(np.abs(box - self.shown).max() / reach, STEADY_WEIGHT, 1.0)
        self.rests = bool(weight < 1.0)
        self.shown = self.shown + weight * (box - self.shown)
        self.box, self.score, self.seen_s, self.seen = box, detection.score, time_s, True


class FaceTracker:
    """Gives each face of a video a number, from 1, that it keeps while it is in the picture.

    Between full detections each face is only refined near its last place, while all rest every LOOK_S. A face that is
    not seen then is not reported; if it is seen again within `max_missing_s`, near the place where it was going, it
    keeps its number. Among several, one hidden behind another is waited for longer, and looks count beside the place.
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
        self._expect(now)
        if not detecting:
            sightings = self._follow(image)
            lost = any(track.seen and track not in sightings for track in self._tracks)
            calm = calm and not lost
            detecting = lost and now - self._detected_s >= RETRY_S
        if detecting:
            self._detected_s = now
            sightings = self._detect(image, now, calm)
        for track in self._tracks:
            track.seen = track in sightings
            if track.seen:
                track.see(sightings[track], now)
                if detecting and (track.looks is None or not track.close):
                    track.learn(looks_of(image, sightings[track].box))
        self._tracks = [track for track in self._tracks if now - track.seen_s <= self._patience_s(track)]
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

    def _patience_s(self, track: _Track) -> float:
        """How long a face may be missing; behind another one it is no wonder that it is."""
        return max(self._max_missing_s, HIDDEN_S) if track.close and track.number else self._max_missing_s

    def _expect(self, now: float) -> None:
        """Say of each track where its face should be now, and whether another one is close."""
        for track in self._tracks:
            track.expect(now, alone=len(self._tracks) == 1)
        for track in self._tracks:
            track.close = any(_is_close(track.place, other.place) for other in self._tracks if other is not track)

    def _follow(self, image: Picture) -> dict[_Track, Detection]:
        """Sightings by refinement alone, of every track: missing ones and candidates too."""
        found = self._refine(image, self._tracks)
        found = {track: each for track, each in found.items() if track.seen or each.score >= FOUND_AGAIN}
        different = _different(found.values())
        if len(different) == len(found) and all(track.seen and not track.close for track in self._tracks):
            return found
        return self._matched(image, different)

    def _detect(self, image: Picture, now: float, calm: bool) -> dict[_Track, Detection]:
        """Sightings by a full detection; makes, numbers and drops tracks."""
        known = [track.box for track in self._tracks if track.seen and track.number]
        least_px = 0.0
        if calm and now - self._searched_s < SMALL_FACES_S - 1e-6:
            least_px = min(float((box[2:] - box[:2]).max()) for box in known) / SMALL_FACE
        else:
            self._searched_s = now
        detections = _different(self._detector.detect(image, [as_box(box) for box in known], least_px))
        sightings = self._matched(image, detections)
        # The full detection misses a face now and then; a real one is found again and confirmed.
        unmatched = [track for track in self._tracks if track.seen and track.number and track not in sightings]
        for track, each in self._refine(image, unmatched).items():
            if _is_new(each, sightings.values()) and self._detector.confirm(image, [each.box])[0] >= FIRM:
                sightings[track] = each
        fresh = [detection for detection in detections if _is_new(detection, sightings.values())]
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
                track.close = any(_is_close(box, np.asarray(other.box)) for other in sightings.values())
                self._tracks.append(track)
                sightings[track] = detection
        return sightings

    def _matched(self, image: Picture, detections: Sequence[Detection]) -> dict[_Track, Detection]:
        """The track that each detection most probably is of, if of any."""
        tracks = self._tracks
        boxes = [np.asarray(detection.box, np.float64) for detection in detections]
        near = np.array([nearness(track.place, box) for track in tracks for box in boxes])
        near = near.reshape(len(tracks), len(boxes))
        # Looks are asked where place leaves a choice, and of faces that come back.
        missing = np.array([not track.seen for track in tracks], bool)
        if missing.any() or ((near > 0).sum(0) > 1).any() or ((near > 0).sum(1) > 1).any():
            found = [looks_of(image, detection.box) for detection in detections]
            for row, track in enumerate(tracks):
                for column, box in enumerate(boxes):
                    near[row, column] = track.likeness(near[row, column], box, found[column], self._time_s)
        # A face that has a number goes before a candidate, whatever their values.
        near *= np.array([1.0 if track.number else 1e-3 for track in tracks]).reshape(-1, 1)
        return {tracks[row]: detections[column] for row, column in best_pairs(near)}

    def _refine(self, image: Picture, tracks: list[_Track]) -> dict[_Track, Detection]:
        """The tracks whose face is found again near the place where it should be."""
        found = self._detector.refine(image, [as_box(track.place) for track in tracks])
        pairs = zip(tracks, found, strict=True)
        return {track: each for track, each in pairs if each is not None and _iou(track.place, each) >= NO_JUMP_IOU}

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number


def _different(detections: Collection[Detection]) -> list[Detection]:
    """Detections in their order, without those of a face that a better one is of."""
    kept: list[Detection] = []
    for detection in sorted(detections, key=lambda each: -each.score):
        if _is_new(detection, kept):
            kept.append(detection)
    return [detection for detection in detections if any(detection is each for each in kept)]


def _is_new(detection: Detection, others: Iterable[Detection]) -> bool:
    """Whether none of the others is of the same face."""
    box = np.asarray(detection.box, np.float64)
    return all(_iou(box, other) <= CONVERGED_IOU for other in others)


def _is_close(box: np.ndarray, other: np.ndarray) -> bool:
    """Whether the heads of two faces touch, boxes (4,)."""
    sides = (box[2:] - box[:2] + other[2:] - other[:2]) / 2
    return bool((np.abs(box[:2] + box[2:] - other[:2] - other[2:]) / 2 < CLOSE * sides).all())


def _iou(box: np.ndarray, detection: Detection) -> float:
    return float(overlap(box, np.asarray(detection.box, np.float64)[None])[0])
