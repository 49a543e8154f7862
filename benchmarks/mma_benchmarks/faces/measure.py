"""Which faces the runtime finds, beside a full detection of every picture, and what a file costs from end to end.

The reference is the whole cascade on every n-th picture, which knows nothing of the pictures before. Those of its faces
that `MTCNNDetector.confirm` is sure of (FIRM) are the ones to find.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import mma_edge
from mma_benchmarks.faces.people import measure_people
from mma_benchmarks.faces.schema import FaceClips, Faces, FacesSettings
from mma_benchmarks.latency.measure import describe_model, first_frame_size
from mma_benchmarks.machine.facts import describe_machine
from mma_benchmarks.result import Advance, Result, utc_now
from mma_edge.errors import SourceError, UsageError
from mma_edge.faces.detect import MTCNNDetector, overlap
from mma_edge.faces.track import FIRM, FaceTracker
from mma_edge.pipeline import Pipeline, StageTimer
from mma_edge.recognizer import Recognizer
from mma_edge.sources import open_source
from mma_edge.sources.file import videos_in
from mma_edge.types import Face, Frame, Picture

SAME_FACE_IOU = 0.4
"""Least overlap of a reported face with one of the reference."""


@dataclass(frozen=True)
class FacesOptions:
    """What to measure; backend and precision as `mma_edge.load` takes them."""

    sources: tuple[str, ...] = ("sample",)  # files, or folders of files; each gets a row
    backend: str = "auto"
    precision: str | None = None
    every: int = 5  # the reference is made of every n-th picture
    repeat: int = 3  # timed passes over each clip
    people: tuple[Path, ...] = ()  # clips of one person each, who pass each other in composed scenes

    def __post_init__(self) -> None:
        for name in ("every", "repeat"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} {getattr(self, name)}", "at least 1")
        if len(self.people) == 1:
            raise UsageError(f"--people {self.people[0]}", "clips of two or more people")


@dataclass
class Tally:
    """Counts over pictures."""

    pictures: int = 0
    reported: int = 0
    compared: int = 0  # pictures of which there is a reference
    expected: int = 0  # faces in them
    missed: int = 0
    false: int = 0
    overlaps: list[float] = field(default_factory=list)
    find_ms: list[float] = field(default_factory=list)  # per picture, time of the thread
    reference_ms: list[float] = field(default_factory=list)


def measure_faces(
    bundle: str | os.PathLike | None, options: FacesOptions, command: str, advance: Advance = lambda step: None
) -> Result:
    """Run the benchmark with a bundle's folder, None for the embedded default model.

    Raises:
        SourceError: a source has no video. MMAEdgeError: as `mma_edge.load` and the pipeline raise it.
    """
    rows = {source: clips_of(source) for source in options.sources}  # a wrong path should not wait for the model
    machine, recognizer = describe_machine(), mma_edge.load(bundle, options.backend, options.precision)
    found = []
    for source, clips in rows.items():
        tally = Tally()
        for number, clip in enumerate(clips, 1):
            advance(f"{source}: faces of clip {number} of {len(clips)}")
            compare(clip, options.every, tally)
        advance(f"{source}: {options.repeat} timed passes")
        found.append(row_of(source, tally, *timed_passes(recognizer, clips, options.repeat), len(clips)))
    people = measure_people(options.people, recognizer, advance) if options.people else None
    results = Faces(FacesSettings(options.every, options.repeat, FIRM, SAME_FACE_IOU), found, people)
    return Result("faces", utc_now(), command, machine, describe_model(recognizer), results)


def clips_of(source: str) -> list[str]:
    """The clips with a picture of a folder, or the one that a name stands for."""
    paths = [str(path) for path in videos_in(Path(source))] if Path(source).is_dir() else [source]
    clips = [path for path in paths if first_frame_size(path)[0]]
    if not clips:
        raise SourceError(f"{source} has no pictures", "a clip with video, or a folder of such clips")
    return clips


def compare(clip: str, every: int, tally: Tally) -> None:
    """Follow the faces of a clip as a run does, and count those that differ from the reference."""
    detector = MTCNNDetector()
    tracker = FaceTracker(detector)
    with open_source(clip, audio=False) as source:
        for number, frame in enumerate(event for event in source.events() if isinstance(event, Frame)):
            start = time.thread_time()
            faces = tracker.update(frame)
            tally.find_ms.append(1000 * (time.thread_time() - start))
            tally.pictures += 1
            tally.reported += len(faces)
            if number % every == 0:
                count(faces, *reference(detector, frame.image, tally), tally)


def reference(detector: MTCNNDetector, image: Picture, tally: Tally) -> tuple[np.ndarray, np.ndarray]:
    """All that the whole cascade takes for a face, boxes (n, 4), and which of it is firm, bool (n,)."""
    start = time.thread_time()
    boxes = [detection.box for detection in detector.detect(image)]
    tally.reference_ms.append(1000 * (time.thread_time() - start))
    firm = np.array(detector.confirm(image, boxes)) >= FIRM
    return np.array(boxes, np.float64).reshape(-1, 4), firm.reshape(-1)


def count(faces: Sequence[Face], boxes: np.ndarray, firm: np.ndarray, tally: Tally) -> None:
    """Add one picture: a firm box without a face there is missed, a face where the cascade has no box is false."""
    shown = np.array([face.box for face in faces], np.float64).reshape(-1, 4)
    tally.compared += 1
    for box in boxes[firm]:
        best = float(overlap(box, shown).max(initial=0.0))
        tally.expected += 1
        tally.missed += best < SAME_FACE_IOU
        tally.overlaps += [best] if best >= SAME_FACE_IOU else []
    tally.false += sum(float(overlap(box, boxes).max(initial=0.0)) < SAME_FACE_IOU for box in shown)


def timed_passes(recognizer: Recognizer, clips: Sequence[str], repeat: int) -> tuple[float, float, dict[str, float]]:
    """Seconds of media, median wall seconds of all clips as `mma-edge run` does them, and milliseconds per stage.

    The stages' times are of passes in which they take turns.
    """
    media_s, walls, stages_ms = 0.0, np.zeros(repeat), {}
    for clip in clips:
        for number in range(repeat):
            walls[number] += one_pass(recognizer, clip, threads=True)[0]
        _, length_s, durations_ms = one_pass(recognizer, clip, threads=False)
        media_s += length_s
        for name, values in durations_ms.items():
            stages_ms[name] = stages_ms.get(name, 0.0) + sum(values)
    return media_s, float(np.median(walls)), stages_ms


def one_pass(recognizer: Recognizer, clip: str, threads: bool) -> tuple[float, float, dict[str, list[float]]]:
    """Wall seconds without opening, seconds of media, and durations per stage in milliseconds."""
    timer, end_s = StageTimer(), 0.0
    with Pipeline.open(recognizer, clip, timer=timer, threads=threads) as pipeline:
        start = time.perf_counter()
        with contextlib.suppress(SourceError):  # neither a face nor a voice: that is an answer, too
            for emotion in pipeline:
                end_s = emotion.end_s
        wall_s = time.perf_counter() - start
        return wall_s, getattr(pipeline.source, "duration_s", None) or end_s, dict(timer.durations_ms)


def row_of(
    source: str, tally: Tally, media_s: float, wall_s: float, stages_ms: dict[str, float], clips: int
) -> FaceClips:
    """The figures of one source."""
    return FaceClips(
        # The name alone: the folder may tell more of its owner than a result should.
        name=os.path.basename(os.path.normpath(source)),
        clips=clips,
        media_s=media_s,
        pictures=tally.pictures,
        reported=tally.reported,
        compared=tally.compared,
        expected=tally.expected,
        missed=tally.missed,
        false=tally.false,
        mean_overlap=float(np.mean(tally.overlaps)) if tally.overlaps else None,
        find_ms=float(np.mean(tally.find_ms)),
        reference_ms=float(np.mean(tally.reference_ms)),
        wall_s=wall_s,
        real_time_factor=media_s / wall_s,
        stages_ms=stages_ms,
    )
