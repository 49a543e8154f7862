"""A media file as a source: every frame and every sample, by presentation time, nothing dropped."""

from __future__ import annotations

import dataclasses
import difflib
import heapq
import os
import threading
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer

from mma_edge.errors import SourceError
from mma_edge.sources.base import Event, Source, SourceStats
from mma_edge.sources.tracks import AudioTrack, VideoTrack, decodable
from mma_edge.types import AudioChunk, Frame, Notify, ignore_notice

VIDEO_SUFFIXES = (
    ".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".flv", ".mpg", ".mpeg", ".wmv", ".3gp", ".mts", ".ts",
)  # fmt: skip

_EXPECTED = "a video or audio file such as clip.mp4"
_SAMPLE = Path(__file__).resolve().parents[1] / "assets" / "sample" / "sample.mp4"

_STATED_DURATION_FORMATS = ("mov", "matroska", "avi", "wav", "flac")
"""Containers that state their duration; for others FFmpeg guesses it from the bit rate."""
_CUT_SHORT_S = 0.5
"""A file that ends this long before its stated duration counts as cut short."""


class FileSource(Source):
    """Reads a media file with PyAV.

    Picture and sound are read through two containers on the same file and merged lazily by time, so memory does not
    grow, however far apart a badly interleaved file stores the two. `notify` takes the notices (no sound, damaged, cut
    short); without `audio` the sound is not read. With `nvdec` the pictures are decoded by an NVIDIA GPU, or by the
    processor with a notice.
    """

    live = False

    def __init__(
        self, path: str | os.PathLike[str], notify: Notify = ignore_notice, audio: bool = True, nvdec: bool = False
    ) -> None:
        self.path = checked_path(path)
        self.name = self.path.name
        self.stats = SourceStats()
        self._notify = notify
        self._containers: list[InputContainer] = []
        self._reading = threading.Lock()  # held while FFmpeg reads, for a `close` in another thread
        self._on_gpu = nvdec  # until something says that it is not
        try:
            self._open_tracks(audio, HWAccel("cuda") if nvdec else None)
        except BaseException:
            self.close()
            raise

    def _open_tracks(self, audio: bool, hwaccel: HWAccel | None) -> None:
        """Open both tracks and decode the first event of each: a track that opens may still not decode."""
        container = self._open_container(hwaccel)
        # The length that the file states, None if it states none.
        self.duration_s = container.duration / av.time_base if container.duration else None
        # FFmpeg calls cover art a video stream; here it is not one.
        attached = av.stream.Disposition.attached_pic
        pictures = [s for s in container.streams.video if not s.disposition & attached]
        sounds = list(container.streams.audio)
        if not pictures and not sounds:
            raise SourceError(f"{self.name} has neither a video nor an audio track", _EXPECTED)
        self._video = self._audio = None
        video_events: Iterator[Frame] = iter(())
        audio_events: Iterator[AudioChunk] = iter(())
        if (stream := decodable(pictures)) is not None:
            if self._on_gpu and not stream.codec_context.is_hwaccel:
                self._notify(f"{self.name}: decoded by the processor, because NVDEC does not take {stream.name}")
            self._video = VideoTrack(container, stream, self.stats, self.name)
            video_events = self._video.events()
        if audio and (stream := decodable(sounds)) is not None:
            container = self._open_container()
            self._audio = AudioTrack(container, container.streams[stream.index], self.stats, self.name)
            audio_events = self._audio.events()

        first_frame, first_chunk = next(video_events, None), next(audio_events, None)
        self.has_video, self.has_audio = first_frame is not None, first_chunk is not None
        # Width and height of the first picture, upright; pictures per second on average; PTS of the first datum.
        self.size = first_frame and (first_frame.picture.shape[1], first_frame.picture.shape[0])
        self.rate_fps = float(self._video.stream.average_rate or 0) if first_frame else None
        if not self.has_video and not self.has_audio:
            if pictures or audio:
                raise SourceError(f"nothing in {self.name} can be decoded", _EXPECTED, "try to play it elsewhere")
            raise SourceError(f"{self.name} has no video track and its sound was not asked for", _EXPECTED)
        self.start_s = min(event.time_s for event in (first_frame, first_chunk) if event)
        if not self.has_video:
            why = "its video track cannot be decoded" if pictures else "it has no video track"
            self._notify(f"{self.name}: voice only, because {why}")
        elif not self.has_audio and audio:
            why = "its audio track cannot be decoded" if sounds else "it has no audio track"
            self._notify(f"{self.name}: vision only, because {why}")
        # An unread track may be the longer one; then the container's duration proves nothing.
        self._all_read = len(pictures) <= self.has_video and len(sounds) <= self.has_audio
        self._video_events = chain([first_frame] if first_frame else [], video_events)
        self._audio_events = chain([first_chunk] if first_chunk else [], audio_events)

    def events(self) -> Iterator[Event]:
        """Frames and sound by presentation time; at the same time the sound comes first."""
        self._start()
        return self._merged()

    def _merged(self) -> Iterator[Event]:
        opened_s = time.monotonic()
        told_rate = False
        merged = heapq.merge(self._audio_events, self._video_events, key=lambda event: event.time_s)
        while True:
            with self._reading:
                if self._closed:
                    return
                event = next(merged, None)
            if event is None:
                self._report()
                return
            if event.arrival_s < opened_s:  # decoded by the constructor, perhaps long before the reading began
                event = dataclasses.replace(event, arrival_s=time.monotonic())
            if self._audio and self._audio.resampled_from_hz and not told_rate:
                told_rate = True
                was, now = self._audio.sample_rate_hz, self._audio.resampled_from_hz
                self._notify(f"{self.name}: its sound changes from {was} to {now} Hz; resampled to {was} Hz")
            self.stats.count(event)
            yield event

    def _report(self) -> None:
        """Say at the end, in one line for each fault, what was wrong with the file."""
        stats = self.stats
        if stats.damaged_packets or stats.damaged_frames:
            left_out = f"{stats.damaged_frames} frame(s) that depend on damaged data left out"
            self._notify(f"{self.name} is damaged: {stats.damaged_packets} packet(s) skipped, {left_out}")
        if stats.undated_frames:
            self._notify(f"{self.name}: {stats.undated_frames} frame(s) without a presentation time left out")
        if stats.out_of_order:
            self._notify(f"{self.name}: {stats.out_of_order} frame(s) whose time runs backwards left out")
        tracks = [track for track in (self._video, self._audio) if track]
        stated_s, end_s = self._stated_end_s(), max(track.end_s for track in tracks)
        if stated_s is not None and end_s < stated_s - _CUT_SHORT_S:
            self._notify(f"{self.name} is cut short: it announces {stated_s:.1f} s and ends at {end_s:.1f} s")

    def _stated_end_s(self) -> float | None:
        """Presentation time at which the tracks that are read should end, None if the file does not say."""
        container = self._containers[0]
        if container.format.name.split(",")[0] not in _STATED_DURATION_FORMATS:
            return None
        streams = [track.stream for track in (self._video, self._audio) if track]
        ends = [float(((s.start_time or 0) + s.duration) * s.time_base) for s in streams if s.duration]
        if ends:
            return max(ends)
        if self._all_read and self.duration_s:
            return (container.start_time or 0) / av.time_base + self.duration_s
        return None

    def _open_container(self, hwaccel: HWAccel | None = None) -> InputContainer:
        """Open the file; "file:" and the white list prevent that a name or a playlist opens anything else."""
        try:
            container = av.open(f"file:{self.path}", options={"protocol_whitelist": "file"}, hwaccel=hwaccel)
        except av.FFmpegError as error:
            if hwaccel:
                self._on_gpu = False
                container = self._open_container()  # a file that cannot be read at all says so
                why = f"NVDEC cannot be opened ({error.strerror}); it needs an NVIDIA GPU and its driver"
                self._notify(f"{self.name}: decoded by the processor, because {why}")
                return container
            raise _not_media(self.path, error) from error
        self._containers.append(container)
        kind = container.format.name
        if kind == "tty":  # FFmpeg shows a text file as a film of a terminal
            raise SourceError(f"{self.name} is a text file", _EXPECTED)
        if kind == "image2" or kind.endswith("_pipe"):
            raise SourceError(f"{self.name} is a still picture", _EXPECTED)
        return container

    def close(self) -> None:
        self._closed = True
        # FFmpeg crashes the whole process where a container is closed under a thread that reads it.
        with self._reading:
            for container in self._containers:
                container.close()


def checked_path(path: str | os.PathLike[str]) -> Path:
    """The path of a readable file that is not empty; otherwise SourceError with the best hint."""
    path = Path(path).expanduser()
    try:
        if path.is_dir():
            raise SourceError(f"{path} is a directory", _EXPECTED, "name one file in it")
        if not path.exists():
            raise SourceError(f"{path} does not exist", _EXPECTED, _similar_name(path))
        if not path.is_file():
            raise SourceError(f"{path} is not a regular file", _EXPECTED, "for a camera say camera:N")
        with path.open("rb") as file:
            if not file.read(1):
                raise SourceError(f"{path} is empty", _EXPECTED, "copy or record it again")
    except PermissionError as error:
        raise SourceError(f"{path} may not be read (permission denied)", hint=f"chmod u+r {path}") from error
    except (OSError, ValueError) as error:  # a name that is too long or has a NUL, a disk that fails
        raise SourceError(f"{str(path)[:200]!r} cannot be read ({type(error).__name__})", _EXPECTED) from error
    return path


def videos_in(folder: Path) -> list[Path]:
    """The video files anywhere below a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)


def _similar_name(path: Path) -> str:
    """A hint with the file of the same folder whose name is the most similar."""
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist either"
    names = [entry.name for entry in path.parent.iterdir() if entry.is_file()]
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"perhaps {path.parent / close[0]} is meant" if close else "check the path"


def _not_media(path: Path, cause: Exception) -> SourceError:
    """The error for an unreadable file, whose kind is recognised by its first bytes."""
    with path.open("rb") as file:
        head = file.read(4096)
    if head[4:8] == b"ftyp":
        what = f"{path.name} is an MP4 file without its index (moov): the recording or the copy was cut short"
        hint = "copy it again, or rebuild its index with a repair tool such as untrunc"
        return SourceError(what, "a complete file", hint)
    try:
        text = b"\0" not in head and bool(head[:-3].decode("utf-8"))
    except UnicodeDecodeError:
        text = False
    if text:
        return SourceError(f"{path.name} is a text file", _EXPECTED)
    return SourceError(f"{path.name} is not a media file that FFmpeg can read ({type(cause).__name__})", _EXPECTED)


def sample_path() -> Path:
    """The sample clip's path; the LICENSE beside it says where the clip comes from."""
    if not _SAMPLE.is_file():
        raise SourceError("the sample clip is missing from this installation", str(_SAMPLE), "reinstall mma-edge")
    return _SAMPLE
