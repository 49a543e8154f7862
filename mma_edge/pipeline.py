"""From a source to its emotions: source -> faces | audio -> clip -> engine -> emotion."""

from __future__ import annotations

import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

from mma_edge.clip import Crop, GridClips, SlidingClips, WholeClips
from mma_edge.errors import SourceError, UsageError
from mma_edge.faces import centre_crop, crop_face, resize
from mma_edge.faces.crop import centre_box
from mma_edge.faces.detect import MTCNNDetector
from mma_edge.faces.track import FaceTracker
from mma_edge.sources import Source, open_source
from mma_edge.streaming import StreamingRecognizer, check_mode
from mma_edge.types import Clip, Emotion, Face, Frame, Notify, ignore_notice

CENTRE_TRACK = 0
"""Track number of the authors' fallback, the centre of the picture; tracks of faces count from 1."""
RATE_FRAMES = 30
"""Frames over which `Pipeline.frame_rate` averages."""
Timer = Callable[[str], AbstractContextManager]
"""Takes a stage's name and gives a context manager that encloses the stage's work."""


def no_timer(stage: str) -> AbstractContextManager:
    """The `Timer` of ordinary runs, which keeps nothing: a camera may run for weeks."""
    return nullcontext()


class StageTimer:
    """Durations in milliseconds per stage name, one entry per call."""

    def __init__(self) -> None:
        self.durations_ms: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.durations_ms[stage].append(1000 * (time.perf_counter() - start))


@dataclass(frozen=True)
class StreamOptions:
    """How a source is cut into clips."""

    window_s: float = 4.0  # length of a clip, at most 5.12 (the log-mel's span); 4 s hold a spoken sentence
    hop_s: float = 0.5  # time between two answers
    whole: bool = False  # one clip for the whole file instead (the paper's protocol); not for live sources
    centre_fallback: bool = False  # where no face is found, use the centre of the picture as the MMA-DFER authors do
    audio: bool = True  # False ignores the sound
    # "exact" or "rolling": the work that windows share only once, see `mma_edge.streaming`; None: all for every window.
    streaming: str | None = None
    notify: Notify = ignore_notice

    def __post_init__(self) -> None:
        if self.streaming is None:
            return
        check_mode(self.streaming)
        if self.whole:
            hint = "a whole file has no windows that overlap"
            raise UsageError(f"--streaming {self.streaming} with --whole", "one of them", hint)


@dataclass
class PipelineState:
    """What a live view shows in addition to the emotions."""

    time_s: float = 0.0
    faces: list[Face] = field(default_factory=list)
    frames_with_face: int = 0
    answers: int = 0


class ClipPredictor(Protocol):
    """What a pipeline needs of a `mma_edge.predictor.Predictor`; with `StreamOptions.streaming` it needs all of it."""

    image_size: int

    def predict_clips(self, clips: Sequence[Clip]) -> list[Emotion]:
        """One Emotion per clip."""


class Pipeline(AbstractContextManager):
    """Iterate over it for the emotions of one source; it can be iterated once."""

    def __init__(
        self,
        recognizer: ClipPredictor,
        source: Source,
        options: StreamOptions,
        timer: Timer = no_timer,
        clips: SlidingClips | WholeClips | None = None,
    ) -> None:
        """`clips` replaces the cutting that the options ask for; for measurements."""
        if options.whole and source.live:
            raise UsageError(f"--whole on {source.name}", "a file", "leave --whole out for a live source")
        self.recognizer, self.source, self.options = recognizer, source, options
        self.state = PipelineState()
        self.timer = timer
        self._frame_clock: deque[float] = deque(maxlen=RATE_FRAMES)
        self._tracker = FaceTracker(MTCNNDetector()) if source.has_video else None
        self.predictor = StreamingRecognizer(recognizer, options.streaming) if options.streaming else recognizer
        cut = GridClips if options.streaming else SlidingClips
        self._clips = clips or (WholeClips() if options.whole else cut(options.window_s, options.hop_s))

    @classmethod
    def open(
        cls,
        recognizer: ClipPredictor,
        source: str | os.PathLike,
        options: StreamOptions | None = None,
        timer: Timer = no_timer,
    ) -> Pipeline:
        """A pipeline on a source that `open_source` understands."""
        options = options or StreamOptions()
        opened = open_source(source, options.notify, options.audio)
        try:
            return cls(recognizer, opened, options, timer)
        except BaseException:
            opened.close()
            raise

    def __exit__(self, *exc_info: object) -> None:
        self.source.close()

    def __iter__(self) -> Iterator[Emotion]:
        for event in self._timed_events():
            yield from self._answer(self._clips.due(event.time_s))
            if isinstance(event, Frame):
                self._clips.add_crops(self._crops(event), event.time_s)
            else:
                with self.timer("log-mel"):
                    self._clips.add_audio(event)
        yield from self._answer(self._clips.finish())
        self._conclude()

    def frame_rate(self) -> float:
        """Frames per second of wall time, over the last RATE_FRAMES frames."""
        clock = self._frame_clock
        return (len(clock) - 1) / max(1e-6, clock[-1] - clock[0]) if len(clock) > 1 else 0.0

    def _timed_events(self) -> Iterator:
        events = iter(self.source.events())
        while True:
            with self.timer("decode"):
                event = next(events, None)
            if event is None:
                return
            self.state.time_s = event.time_s
            yield event

    def _crops(self, frame: Frame) -> list[Crop]:
        self._frame_clock.append(time.monotonic())
        with self.timer("detect"):
            self.state.faces = self._tracker.update(frame)
        self.state.frames_with_face += bool(self.state.faces)
        size = self.recognizer.image_size
        with self.timer("crop"):
            found = [(face.track_id, face.box, crop_face(frame.image, face.box)) for face in self.state.faces]
            if not found and self.options.centre_fallback:
                found = [(CENTRE_TRACK, centre_box(frame.image), centre_crop(frame.image))]
            return [
                Crop(track, box, resize(image, size), frame.time_s, frame.arrival_s)
                for track, box, image in found
                if image.size
            ]

    def _answer(self, clips: list) -> Iterator[Emotion]:
        if not clips:
            return
        with self.timer("engine"):
            emotions = self.predictor.predict_clips(clips)
        self.state.answers += len(emotions)
        yield from emotions

    def _conclude(self) -> None:
        """Say at the end why there are no records, or no faces in them."""
        if self.source.has_video and not self.state.frames_with_face:
            hint = "" if self.options.centre_fallback else "; --centre-fallback uses the centre of the picture instead"
            if self.state.answers == 0:
                raise SourceError(f"{self.source.name}: no face and no sound was found", hint=hint.lstrip("; "))
            self.options.notify(f"{self.source.name}: no face was found{hint}")


@dataclass
class _Collector:
    """Collects the clips that a pipeline hands to its recognizer."""

    image_size: int
    clips: list[Clip] = field(default_factory=list)

    def predict_clips(self, clips: Sequence[Clip]) -> list[Emotion]:
        self.clips += clips
        return []


def collect_clips(
    source: str | os.PathLike, image_size: int, hop_s: float, cut: type[SlidingClips] = SlidingClips
) -> list[Clip]:
    """Every clip that `mma-edge run SOURCE --hop HOP` makes of a file, sampled by `cut`; also those without a face.

    SourceError where the source cannot be opened, or has neither a face nor sound.
    """
    return collect_from(source, image_size, cut(StreamOptions.window_s, hop_s))


def collect_from(source: str | os.PathLike, image_size: int, cut: SlidingClips | WholeClips) -> list[Clip]:
    """Every clip that `cut` makes of a source; with `WholeClips` as `mma-edge run SOURCE --whole`. Errors as above."""
    collector = _Collector(image_size)
    opened = open_source(source)
    try:
        with Pipeline(collector, opened, StreamOptions(), clips=cut) as pipeline:
            list(pipeline)
    except SourceError:
        # The pipeline raises where there are neither faces nor answers; the collector never gives answers.
        if not collector.clips:
            raise
    return collector.clips
