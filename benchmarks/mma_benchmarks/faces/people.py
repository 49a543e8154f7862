"""Whether people keep their numbers when they pass each other, and what eight of them cost."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mma_benchmarks.faces.scenes import SCENES, Crowd, Head, played
from mma_benchmarks.faces.schema import Crossings, CrowdTimes, People
from mma_benchmarks.result import Advance
from mma_edge.faces.detect import MTCNNDetector, overlap
from mma_edge.faces.track import FaceTracker
from mma_edge.pipeline import Pipeline, StreamOptions
from mma_edge.recognizer import Recognizer
from mma_edge.types import Box, Face, Frame

SAME_FACE_IOU = 0.35
"""Least overlap of a reported face with the true one, whose box is that of its first picture."""
CROWD, CROWD_S = 8, 6.0


def measure_people(clips: Sequence[Path], recognizer: Recognizer, advance: Advance) -> People:
    """Every scene with every two of the people, each of both in front, and a crowd of eight.

    Raises:
        DataError: a clip shows no face.
    """
    detector = MTCNNDetector()
    heads = [Head.of(clip, detector) for clip in clips]
    scenes = []
    for name, path in SCENES.items():
        pairs = [*itertools.combinations(heads, 2)]
        total = np.zeros(4, int)
        for number, (pair, front) in enumerate(itertools.product(pairs, (0, 1)), 1):
            advance(f"people, {name}: {number} of {2 * len(pairs)}")
            total += followed(FaceTracker(detector), played(pair, path(), front))
        scenes.append(Crossings(name, 2 * len(pairs), *map(int, total)))
    advance(f"{CROWD} faces")
    return People(len(heads), scenes, crowd_times(list(itertools.islice(itertools.cycle(heads), CROWD)), recognizer))


def followed(tracker: FaceTracker, scene: Iterable[tuple[Frame, list[Box | None]]]) -> tuple[int, int, int, int]:
    """Faces that are visible, those of them that were missed, hidden ones, and changes of a person's number."""
    visible = missed = hidden = switches = 0
    last: dict[int, int] = {}
    for frame, truth in scene:
        faces = tracker.update(frame)
        for person, box in enumerate(truth):
            if box is None:
                hidden += 1
                continue
            visible += 1
            number = number_at(box, faces)
            missed += number is None
            if number is not None:
                switches += last.setdefault(person, number) != number
                last[person] = number
    return visible, missed, hidden, switches


def number_at(box: Box, faces: Sequence[Face]) -> int | None:
    """The number of the face that is in this place, None where there is none."""
    shown = np.array([face.box for face in faces], np.float64).reshape(-1, 4)
    shares = overlap(np.asarray(box), shown)
    return faces[int(shares.argmax())].track_id if shares.max(initial=0.0) >= SAME_FACE_IOU else None


def crowd_times(heads: Sequence[Head], recognizer: Recognizer) -> CrowdTimes:
    """Eight faces at 720p, without decoding: processor time of each stage, and from end to end."""
    source, spent_ms, faces = Crowd(heads, CROWD_S), defaultdict(list), []

    @contextmanager
    def timer(stage: str) -> Iterator[None]:
        start = time.process_time()
        yield
        spent_ms[stage].append(1000 * (time.process_time() - start))

    with Pipeline(recognizer, source, StreamOptions(), timer, threads=False) as pipeline:
        for _ in pipeline:
            faces.append(len(pipeline.state.faces))
    with Pipeline(recognizer, source, StreamOptions()) as pipeline:
        start, processor_s = time.perf_counter(), time.process_time()
        answers = len(list(pipeline))
        wall_s, processor_s = time.perf_counter() - start, time.process_time() - processor_s
    means_ms = {name: float(np.mean(spent_ms[name])) for name in ("detect", "crop", "engine")}
    return CrowdTimes(len(heads), float(np.mean(faces)), answers, means_ms, processor_s / CROWD_S, CROWD_S / wall_s)
