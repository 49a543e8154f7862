"""From a source to its emotions: source -> faces | audio -> clip -> engine -> emotion.

For a file each arrow is a thread (`mma_edge.pipeline.ahead`), and every core has work. Each stage is a generator that
alone holds what it needs from one item to the next, so the answers do not depend on whether there are threads.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Protocol, TypeVar

from mma_edge.audio.ring import VoiceGate
from mma_edge.audio.voice import VoiceDetector
from mma_edge.clip import Crop, GridClips, SlidingClips, WholeClips
from mma_edge.errors import SourceError, UsageError
from mma_edge.faces import centre_crop, crop_face, resize
from mma_edge.faces.crop import centre_box
from mma_edge.faces.detect import MTCNNDetector
from mma_edge.faces.motion import MotionMeter
from mma_edge.faces.track import FaceTracker
from mma_edge.pipeline.ahead import ahead
from mma_edge.pipeline.neutral import AUTO, NeutralReference
from mma_edge.pipeline.smoothing import Smoother, check_smoothing
from mma_edge.pipeline.usual import relative_answers
from mma_edge.sources import CaptureOptions, Event, Source, open_source
from mma_edge.streaming import StreamingRecognizer, check_mode
from mma_edge.types import UNCERTAIN, AudioChunk, Clip, Emotion, Face, Frame, Notify, Watcher, ignore_notice

CENTRE_TRACK = 0
"""Track number of the authors' fallback, the centre of the picture; tracks of faces count from 1."""
RATE_FRAMES = 30
"""Frames over which `Pipeline.frame_rate` averages."""
EVENTS_AHEAD, FACES_AHEAD, CLIPS_AHEAD = 12, 64, 2
"""Most items that a stage is ahead of the next one: pictures are large, and the age of an answer counts waiting."""
Timer = Callable[[str], AbstractContextManager]
"""Takes a stage's name and gives a context manager that encloses the stage's work."""


Item = TypeVar("Item")
Located = tuple[list[Face], list[Crop]] | AudioChunk | None
ClipMaker = Callable[[VoiceGate | None], SlidingClips | WholeClips]
"""Gives what cuts a source into clips, those without a voice by the gate without sound."""


def no_timer(stage: str) -> AbstractContextManager:
    """The `Timer` of ordinary runs, which keeps nothing: a camera may run for weeks."""
    return nullcontext()


def no_listener(event: Event) -> None:
    """Of ordinary runs; see `Pipeline`."""


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
    # In mode rolling the sound of an answer may be so old. 0 hears each window anew; None is what the bundle allows,
    # which is also the most.
    sound_age_s: float | None = None
    # A clip whose sound has a smaller share of speech has no sound; None takes all sound for a voice.
    voice_gate: float | None = 0.1
    # An answer whose most probable class is less probable is "uncertain"; None: every answer names a class.
    abstain_below: float | None = None
    # Average each face's probabilities over so many seconds, which delays them as much; None: each answer as it is.
    smooth_s: float | None = None
    # Answers relative to what the model says of this person at rest, see `neutral.py`, or with "auto" to what is usual
    # for each, see `usual.py`; None: as they are.
    neutral: NeutralReference | str | None = None
    nvdec: bool = False  # decode a file's pictures on an NVIDIA GPU; where there is none, a notice says so
    notify: Notify = ignore_notice
    capture: CaptureOptions | None = None  # what is asked of the source's devices
    watchers: tuple[Watcher, ...] = ()  # who else sees the frames, with their faces, and the sound

    def __post_init__(self) -> None:
        gate, least = self.voice_gate, self.abstain_below
        if gate is not None and not (isinstance(gate, Real) and 0 <= gate <= 1):  # NaN fails too
            raise UsageError(f"--voice-gate {gate}", "a share of speech from 0 to 1, or off")
        if least is not None and not (isinstance(least, Real) and 0 < least < 1):
            expected = "a probability above 0 and below 1"
            raise UsageError(f"--abstain-below {least}", expected, "leave it out to have a class in every record")
        if self.whole and self.capture and self.capture.audio_delay_ms:
            hint = "a whole file's picture and sound are judged without their times"
            raise UsageError("--audio-delay-ms with --whole", "one of them", hint)
        if self.smooth_s is not None:
            check_smoothing(self.smooth_s)
            if self.whole:
                raise UsageError("--smooth with --whole", "one of them", "a whole file has one answer for each face")
        if isinstance(self.neutral, str):
            if self.neutral != AUTO:
                raise UsageError(f"neutral {self.neutral!r}", f"a NeutralReference, or {AUTO!r}")
            if self.whole:
                hint = "a whole file has one answer for each face, before which nothing is known of it"
                raise UsageError(f"--neutral {AUTO} with --whole", "one of them", hint)
        if (age := self.sound_age_s) is not None and not (isinstance(age, Real) and age >= 0):
            raise UsageError(f"--sound-age {age}", "seconds, 0 or more", "leave it out to have what the bundle allows")
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
    clips_with_sound: int = 0


class ClipPredictor(Protocol):
    """What a pipeline needs of a `mma_edge.predictor.Predictor`; with `StreamOptions.streaming` it needs all of it."""

    labels: tuple[str, ...]
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
        make_clips: ClipMaker | None = None,
        threads: bool = True,
        name: str = "",
        on_event: Callable[[Event], None] = no_listener,
    ) -> None:
        """`name` is the source's in the records, by default its own; `on_event` gets all that the source delivers.

        For measurements: `make_clips` replaces what cuts the source into clips; without `threads` the stages of a file
        take turns, as those of a live source do.
        """
        if options.whole and source.live:
            raise UsageError(f"--whole on {source.name}", "a file", "leave --whole out for a live source")
        if options.abstain_below is not None and UNCERTAIN in recognizer.labels:
            what = f"--abstain-below with a model that has a class {UNCERTAIN!r}"
            raise UsageError(what, "to know one from the other in the records", "leave --abstain-below out")
        self.recognizer, self.source, self.options = recognizer, source, options
        self.name, self._on_event = name or source.name, on_event
        self.state = PipelineState()
        self.timer = timer
        self._threads = threads and not source.live
        self._running: Generator[Emotion] | None = None
        self._frame_clock: deque[float] = deque(maxlen=RATE_FRAMES)
        self.tracker = FaceTracker(MTCNNDetector()) if source.has_video else None
        self._motions = MotionMeter()
        mode, age_s = options.streaming, options.sound_age_s
        self.predictor = StreamingRecognizer(recognizer, mode, age_s) if mode else recognizer
        # None where nobody listens for speech.
        self._gate: VoiceGate | None = None
        self._relative = iter
        if options.neutral is not None:
            self._relative = relative_answers(options.neutral, recognizer.labels, options.notify)
        self._smoothed = Smoother(options.smooth_s) if options.smooth_s is not None else iter
        if source.has_audio and options.voice_gate is not None:
            self._gate = VoiceGate(VoiceDetector().stream, options.voice_gate)
        self._make_clips = make_clips or self._usual_clips
        self._clips = self._make_clips(self._gate)
        self._resumed = threading.Event()

    def _usual_clips(self, gate: VoiceGate | None) -> SlidingClips | WholeClips:
        if self.options.whole:
            return WholeClips(gate)
        cut = GridClips if self.options.streaming else SlidingClips
        return cut(self.options.window_s, self.options.hop_s, gate)

    @classmethod
    def open(
        cls,
        recognizer: ClipPredictor,
        source: str | os.PathLike,
        options: StreamOptions | None = None,
        timer: Timer = no_timer,
        threads: bool = True,
        name: str = "",
    ) -> Pipeline:
        """A pipeline on a source that `open_source` understands; `threads` and `name`: see the constructor."""
        options = options or StreamOptions()
        opened = open_source(source, options.notify, options.audio, options.nvdec, options.capture)
        try:
            return cls(recognizer, opened, options, timer, threads=threads, name=name)
        except BaseException:
            opened.close()
            raise

    def __exit__(self, *exc_info: object) -> None:
        if self._running is not None:
            self._running.close()  # before the source: its threads read it
        self.source.close()

    def __iter__(self) -> Iterator[Emotion]:
        self._running = self._emotions()
        return self._running

    def _emotions(self) -> Generator[Emotion]:
        with closing(self.windows()) as windows:
            for clips in windows:
                if clips:
                    with self.timer("engine"):
                        emotions = self.predictor.predict_clips(clips)
                    yield from self.finished(emotions)
        self.conclude()

    def windows(self) -> Generator[list[Clip]]:
        """The clips that fall due as the source is read, often none: all that comes before the engine."""
        # Each stage is closed by name, the last one first. Left to the garbage collector, the stages before a failing
        # one would read on as long as somebody holds the error, and so its traceback: from a file closed meanwhile.
        with ExitStack() as stages:
            events = stages.enter_context(closing(self._stage(self._timed_events(), EVENTS_AHEAD, "decode")))
            located = stages.enter_context(closing(self._stage(self._located(events), FACES_AHEAD, "faces")))
            for clips in stages.enter_context(closing(self._stage(self._cut(located), CLIPS_AHEAD, "clips"))):
                self.state.clips_with_sound += sum(clip.mel is not None for clip in clips)
                yield clips

    def _stage(self, items: Generator[Item], room: int, name: str) -> Generator[Item]:
        return ahead(items, room, name) if self._threads else items

    def _located(self, events: Iterator[Event]) -> Generator[tuple[float, Located]]:
        """What there is at which time, its frames as the faces in them."""
        for event in events:
            if self._resumed.is_set():
                self._resumed.clear()
                self._forget()
            yield event.time_s, None  # what is due before it does not wait for its faces
            if isinstance(event, Frame):
                yield event.time_s, self._faces(event)
                continue
            for watcher in self.options.watchers:
                watcher.sound(self.name, event)
            yield event.time_s, event

    def resume(self) -> None:
        """After the machine slept: connect a live source again, and begin anew with what comes next. No window has
        pictures or sound from both sides of the sleep, and no face keeps its number. From any thread."""
        if self.source.live:
            self._resumed.set()
            self.source.resume()

    def _forget(self) -> None:
        """In the one thread in which all stages of a live source are."""
        if self.tracker:
            self.tracker.reset()
        self._clips = self._make_clips(self._gate)

    def _cut(self, located: Iterator[tuple[float, Located]]) -> Generator[list[Clip]]:
        """The clips, as soon as they are due."""
        for time_s, what in located:
            if what is None:
                self.state.time_s = time_s
                if self.source.live:
                    self._clips.pass_gap(time_s)
                yield self._clips.due(time_s)
            elif isinstance(what, AudioChunk):
                with self.timer("sound"):
                    self._clips.add_audio(what)
            else:
                self.state.faces, crops = what
                self.state.frames_with_face += bool(self.state.faces)
                self._clips.add_crops(crops, time_s)
        yield self._clips.finish()

    def frame_rate(self) -> float:
        """Frames per second of wall time, over the last RATE_FRAMES frames."""
        clock = self._frame_clock
        return (len(clock) - 1) / max(1e-6, clock[-1] - clock[0]) if len(clock) > 1 else 0.0

    def _timed_events(self) -> Generator[Event]:
        events = iter(self.source.events())
        while True:
            with self.timer("decode"):
                event = next(events, None)
            if event is None:
                return
            self._on_event(event)
            yield event

    def _faces(self, frame: Frame) -> tuple[list[Face], list[Crop]]:
        """The faces of a frame, and their crops (or the centre's)."""
        self._frame_clock.append(time.monotonic())
        with self.timer("detect"):
            faces = self.tracker.update(frame)
            motions = self._motions(frame.picture, faces) if self.options.audio else {}
        for watcher in self.options.watchers:
            watcher.frame(self.name, frame, faces)
        size, picture = self.recognizer.image_size, frame.picture
        with self.timer("crop"):
            found = [(face.track_id, face.box, crop_face(picture, face.box)) for face in faces]
            if not found and self.options.centre_fallback:
                found = [(CENTRE_TRACK, centre_box(picture), centre_crop(picture))]
            crops = [
                Crop(track, box, resize(image, size), frame.time_s, frame.arrival_s, motions.get(track))
                for track, box, image in found
                if image.size
            ]
        return faces, crops

    def finished(self, emotions: Sequence[Emotion]) -> Iterator[Emotion]:
        """What the engine says about clips of this source, as it goes into the records."""
        self.state.answers += len(emotions)
        least = self.options.abstain_below
        for emotion in self._smoothed(self._relative(emotions)):
            answer = replace(emotion, source=self.name, abstained=least is not None and emotion.confidence < least)
            self.source.show(answer)
            yield answer

    def conclude(self) -> None:
        """Say at the end why there are no records, or no face or no voice in them."""
        missing: dict[str, str] = {}
        if self.source.has_video and not self.state.frames_with_face:
            hint = "--centre-fallback uses the centre of the picture instead"
            missing["face"] = "" if self.options.centre_fallback else hint
        if self._gate and not self.state.clips_with_sound:
            missing["speech"] = "--voice-gate off takes all sound for a voice"
        if missing and not self.state.answers and not self.state.frames_with_face:
            names = [*missing] if "speech" in missing else [*missing, "sound"]
            what = f"{self.name}: no {' and no '.join(names)} was found"
            raise SourceError(what, hint=", ".join(filter(None, missing.values())))
        for name, hint in missing.items():
            self.options.notify(f"{self.name}: no {name} was found" + (f"; {hint}" if hint else ""))


@dataclass
class _Collector:
    """Collects the clips that a pipeline hands to its recognizer."""

    image_size: int
    labels: tuple[str, ...] = ()
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
    return collect_from(source, image_size, lambda gate: cut(StreamOptions.window_s, hop_s, gate))


def collect_from(source: str | os.PathLike, image_size: int, make_clips: ClipMaker) -> list[Clip]:
    """Every clip that `make_clips` cuts from a file, as a run gives it to the model without a gate. Errors as above."""
    collector = _Collector(image_size)
    opened = open_source(source)
    try:
        with Pipeline(collector, opened, StreamOptions(voice_gate=None), make_clips=make_clips) as pipeline:
            list(pipeline)
    except SourceError:
        # The pipeline raises where there are neither faces nor answers; the collector never gives answers.
        if not collector.clips:
            raise
    return collector.clips
