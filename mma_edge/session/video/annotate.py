"""A video file with its answers drawn on it, in two passes: the first recognises, the second draws and encodes.

Two passes, because an answer belongs to the middle of its window and comes half a window later: for one pass, two
seconds of decoded pictures would have to wait (a gigabyte in 4K). To decode twice costs a tenth of the time; then every
answer and every face is known before the first frame is drawn, and records that are there already take the place of
the first pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from mma_edge.errors import OutputError, SourceError, UsageError, first_line
from mma_edge.files import check_new_file, replaced
from mma_edge.pipeline import CENTRE_TRACK, Pipeline, StreamOptions
from mma_edge.pipeline.ahead import ahead
from mma_edge.recognizer import Recognizer
from mma_edge.session.reading import read_records
from mma_edge.session.video.blur import AFTER_S, AHEAD_S, blur, places
from mma_edge.session.video.drawing import Drawing
from mma_edge.session.video.movie import Movie, MovieOptions, can_copy, check_codec
from mma_edge.session.video.timeline import Timeline
from mma_edge.sources.file import FileSource
from mma_edge.sources.tracks import decodable
from mma_edge.types import AudioChunk, Face, Frame, Notify

USUAL_FPS = 25.0
FRAMES_AHEAD = 4
"""Drawn pictures that wait for the encoder at most."""
KINDS = {".mp4": "mp4", ".m4v": "mp4", ".webm": "webm"}
"""Suffix -> kind of file."""
RECOGNISING, DRAWING = "recognising", "drawing"
"""The two passes, for `Progress`."""
Progress = Callable[[str, float], None]
"""Takes which pass it is and how far in the film that is, in seconds."""


@dataclass(frozen=True)
class Film:
    """A file that can be annotated."""

    path: Path
    name: str
    size: tuple[int, int]  # width and height of its first picture, upright
    rate_fps: float  # about: each picture has its own time
    start_s: float  # PTS of its first picture or sound
    duration_s: float | None  # None: it does not say
    has_audio: bool


@dataclass(frozen=True)
class AnnotateOptions:
    """What is made of a file."""

    output: Path
    codec: str | None = None  # of the picture; None: H.264, or VP9 in a .webm
    blur_faces: bool = False
    overwrite: bool = False

    @property
    def kind(self) -> str:
        return KINDS[self.output.suffix.lower()]

    def check(self, path: Path) -> None:
        """Before any work: UsageError, OutputError, DependencyError where the output cannot be what it should be."""
        output = self.output
        if output.suffix.lower() not in KINDS:
            raise UsageError(f"-o {output}", "a name that ends in .mp4 or .webm")
        if output.exists() and path.exists() and output.samefile(path):
            raise OutputError(f"{output} is the file to annotate", "another name")
        check_new_file(output, self.overwrite, "-o")
        check_codec(self.kind, self.codec)


def open_film(path: Path) -> Film:
    """SourceError where the file has no picture, or cannot be read."""
    with FileSource(path) as source:
        if source.size is None:
            hint = f"mma-edge run {path} judges its sound alone"
            raise SourceError(f"{source.name} has no picture to draw on", "a video", hint)
        about = (source.size, source.rate_fps or USUAL_FPS, source.start_s, source.duration_s, source.has_audio)
        return Film(source.path, source.name, *about)


def recognise(film: Film, recognizer: Recognizer, options: StreamOptions, progress: Progress) -> Timeline:
    """The first pass: all answers, and the faces of every frame."""
    seen = _Seen(film, progress)
    options = dataclasses.replace(options, watchers=(*options.watchers, seen))
    with Pipeline.open(recognizer, film.path, options) as pipeline:
        records = [emotion.to_dict() for emotion in pipeline]
    return Timeline.of(records, seen.faces)


class _Seen:
    """The faces of every frame; a `mma_edge.types.Watcher`."""

    def __init__(self, film: Film, progress: Progress) -> None:
        self.faces: list[tuple[float, Sequence[Face]]] = []
        self._film, self._progress = film, progress

    def frame(self, source: str, frame: Frame, faces: Sequence[Face]) -> None:
        self.faces.append((frame.time_s, tuple(faces)))
        self._progress(RECOGNISING, frame.time_s - self._film.start_s)

    def sound(self, source: str, chunk: AudioChunk) -> None:
        """Is in the records."""


def remember(film: Film, records: Path, notify: Notify) -> Timeline:
    """In place of the first pass: records that are there. SourceError where they are not about this film."""
    found = list(read_records(records, notify))
    names = {record["source"] for record in found}
    if len(names - {None}) > 1:
        found = [record for record in found if record["source"] == film.name]
    if not found:
        about = ", ".join(sorted(names - {None})) or "nothing"
        raise SourceError(f"{records} has no records of {film.name}", f"records of it, not of {about}")
    return Timeline.of(found)


def draw(film: Film, timeline: Timeline, labels: Sequence[str], options: AnnotateOptions, progress: Progress) -> None:
    """The second pass: write the annotated file, whole or not at all. OutputError where it cannot be written."""
    try:
        with replaced(options.output) as aside, ExitStack() as stack:
            copied = _CopiedSound.open(film, options.kind) if film.has_audio else None
            if copied:
                stack.enter_context(copied)
            encoded = film.has_audio and not copied
            source = stack.enter_context(FileSource(film.path, audio=encoded))
            drawn = ahead(_drawn(source, film, timeline, Drawing(labels), options.blur_faces), FRAMES_AHEAD, "draw")
            drawn = stack.enter_context(closing(drawn))
            how = MovieOptions(options.kind, options.codec, rate_fps=film.rate_fps)
            movie = stack.enter_context(Movie(aside, film.size, how, copied.stream if copied else encoded))
            for item, time_s in drawn:
                if isinstance(item, AudioChunk):
                    movie.sound(item, time_s)
                    continue
                movie.picture(item, time_s)
                if copied:
                    copied.until(movie, time_s)
                progress(DRAWING, time_s)
            if copied:
                copied.until(movie, float("inf"))
    except (OSError, ValueError, av.FFmpegError) as error:
        why = getattr(error, "strerror", None) or first_line(error)
        hint = "free disk space, or choose another -o"
        raise OutputError(f"cannot write {options.output}: {why}", hint=hint) from error


def _drawn(
    source: FileSource, film: Film, timeline: Timeline, drawing: Drawing, blurred: bool
) -> Iterator[tuple[np.ndarray | AudioChunk, float]]:
    """Pictures with all that belongs on them, uint8 (H, W, 3), and sound; each with its time in the new file."""
    for event in source.events():
        time_s = event.time_s
        if isinstance(event, Frame):
            image = np.array(event.picture)
            if blurred:
                blur(image, places(timeline.faces_between(time_s - AFTER_S, time_s + AHEAD_S)))
            faces, answers = timeline.faces_at(time_s), timeline.answers_at(time_s)
            in_sight = {CENTRE_TRACK, *(face.track_id for face in faces)}
            shown = {track: answer for track, answer in answers.items() if track in in_sight}
            drawing(image, faces, shown or {track: answers[track] for track in answers if track is None})
            event = image
        yield event, time_s - film.start_s


class _CopiedSound(AbstractContextManager):
    """The packets of a film's sound, as they are in the file."""

    def __init__(self, film: Film) -> None:
        self._container = av.open(f"file:{film.path}", options={"protocol_whitelist": "file"})
        self.stream = decodable(list(self._container.streams.audio))
        self._packets = (packet for packet in self._container.demux(self.stream) if packet.dts is not None)
        self._start = round(film.start_s / self.stream.time_base)
        self._next: av.Packet | None = None

    @classmethod
    def open(cls, film: Film, kind: str) -> _CopiedSound | None:
        """None where this kind of file does not take it: then it has to be encoded anew."""
        sound = cls(film)
        if can_copy(kind, sound.stream):
            return sound
        sound.__exit__()
        return None

    def until(self, movie: Movie, time_s: float) -> None:
        """Copy what begins before this time of the new file: sound and picture lie beside each other in it."""
        while (packet := self._next or next(self._packets, None)) is not None:
            self._next = packet
            if (packet.dts - self._start) * self.stream.time_base > time_s:
                return
            self._next = None
            packet.pts, packet.dts = packet.pts - self._start, packet.dts - self._start
            movie.packet(packet)

    def __exit__(self, *exc_info: object) -> None:
        self._container.close()
