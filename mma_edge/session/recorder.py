"""Keeps a run in a session's folder while it goes on: its records, the user's marks, what happened, a manifest."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mma_edge.errors import MMAEdgeError, OutputError
from mma_edge.files import LineFile, replaced, to_json
from mma_edge.session.folder import ENDED, EVENTS, KIND, MANIFEST, MARKS, RUNNING, SCHEMA
from mma_edge.session.manifest import model_of, options_of, privacy_of, source_of, versions
from mma_edge.session.reading import RECORDS
from mma_edge.session.tally import SourceEvent, SourceTally, rounded
from mma_edge.session.video.source import SourceVideo
from mma_edge.sinks.follower import Follower
from mma_edge.sources import Source
from mma_edge.types import AudioChunk, Emotion, Face, Frame

if TYPE_CHECKING:
    from mma_edge.pipeline import StreamOptions
    from mma_edge.recognizer import Recognizer

MANIFEST_S = 2.0
"""The manifest of a crashed session is at most so old."""
CLOSE_S, VIDEO_CLOSE_S = 1.5, 5.0
"""Longest wait at the end for a disk that hangs, and for what encoders still have to do."""
RESERVE_BYTES = 32 << 20
"""A video stops where the disk has no more room than this: a day's records of a face need it."""
MOST_LINES = 10_000
"""So many lines may wait for the disk: an hour of one face."""
_OPTION = "--session"


@dataclass(frozen=True)
class SessionOptions:
    """What a session keeps beside its records."""

    video: bool = True  # an annotated video of each source with pictures
    blur_faces: bool = False  # in the video
    sound: bool = False  # in the video
    name: str = ""  # of the session; "": its folder's


def check_folder(folder: Path) -> None:
    """OutputError unless a session can begin in `folder`: there is none, or it is empty."""
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise OutputError(f"{folder} cannot be read: {error.strerror}", hint=f"choose another {_OPTION}") from error
    if taken:
        raise OutputError(f"{folder} exists and is not empty", "a new folder", f"choose another {_OPTION}")
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        why = "may not be written to" if nearest.is_dir() else "is no folder"
        raise OutputError(f"{folder} cannot be made: {nearest} {why}", hint=f"choose another {_OPTION}")


class SessionRecorder(Follower):
    """Follows a run into a folder that it makes; may begin in mid-run. See docs/sessions.md for the format.

    Nothing that it is told waits for the disk: a thread of its own writes. `mark`, `status` and `close` may be called
    from any thread. A recorder that never began leaves nothing behind.
    """

    name = _OPTION

    def __init__(
        self, folder: str | os.PathLike[str], options: SessionOptions, recognizer: Recognizer, stream: StreamOptions
    ) -> None:
        """Makes the folder and its files; OutputError where it exists and is not empty, or cannot be written."""
        self.folder, self.options = Path(folder), options
        check_folder(self.folder)
        self._model, self._stream = model_of(recognizer), stream
        self._running: Any = None
        self._tallies: dict[str, SourceTally] = {}
        self._videos: dict[str, SourceVideo] = {}
        self._lines: queue.Queue[tuple[str, str] | None] = queue.Queue(MOST_LINES)
        self._error: MMAEdgeError | None = None
        self._closing, self._closed = threading.Lock(), False
        self._ended: str | None = None
        self._started, self._start_s = _now(), time.monotonic()
        self._made = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._files: dict[str, LineFile] = {}
            for name in (RECORDS, MARKS, EVENTS):
                self._files[name] = LineFile(self.folder / name, what=name.removesuffix(".jsonl"), option=_OPTION)
            self._write_manifest()
        except OSError as error:
            self._remove()
            hint = f"choose another {_OPTION}"
            raise OutputError(f"cannot write {self.folder}: {error.strerror or error}", hint=hint) from error
        except MMAEdgeError:
            self._remove()
            raise
        # A daemon: a disk that hangs must not keep the program alive.
        self._thread = threading.Thread(target=self._run, name="mma-edge-session", daemon=True)

    def begin(self, running: Any) -> None:
        self._running = running
        # Of files, those before the one that is read now have ended.
        for pipeline in running.pipelines if hasattr(running, "sources") else running.pipelines[-1:]:
            self._tally(pipeline.name)
        self._thread.start()

    def frame(self, source: str, frame: Frame, faces: Sequence[Face]) -> None:
        if self._ended is not None:
            return  # of a thread that did not hear of the end
        self._event(self._tally(source).frame(frame))
        if source in self._videos:
            self._videos[source].frame(frame, faces)

    def sound(self, source: str, chunk: AudioChunk) -> None:
        if self._ended is not None:
            return
        self._event(self._tally(source).sound(chunk))
        if source in self._videos:
            self._videos[source].sound(chunk)

    def write(self, emotion: Emotion) -> None:
        record = emotion.to_dict()
        self._put(RECORDS, record)
        if emotion.source in self._videos:
            self._videos[emotion.source].answer(record)

    def notice(self, line: str) -> None:
        source = next((name for name in tuple(self._tallies) if line.startswith((f"{name}:", f"{name} "))), None)
        self._event(SourceEvent("notice", line, source))

    def mark(self, text: str, key: str | None = None) -> dict[str, Any]:
        """Note that something happened now; returns what is kept of it."""
        times_s = {name: rounded(tally.last_s) for name, tally in tuple(self._tallies.items())}
        mark = {**self._clock(), "times_s": times_s, "key": key, "text": text}
        self._put(MARKS, mark)
        return mark

    def status(self) -> dict[str, Any]:
        """Seconds since the start, how many records and marks were written, bytes of the folder."""
        sizes = []
        with contextlib.suppress(OSError):
            sizes = [path.stat().st_size for path in self.folder.iterdir()]
        return {
            "seconds": round(time.monotonic() - self._start_s, 1),
            "records": self._files[RECORDS].count,
            "marks": self._files[MARKS].count,
            "bytes": sum(sizes),
        }

    def summary(self) -> str:
        """What was kept, in one line."""
        return f"session in {self.folder}. {self._privacy()['statement']}"

    def __exit__(self, *exc_info: object) -> None:
        self.close(exc_info[1] if len(exc_info) > 1 else None)

    def close(self, error: object = None) -> None:
        """End the session, once what waits is written; `error` is what ended the run."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            if self._running is None:
                self._remove()
                return
            self._close_videos()
            self._end_sources(error if isinstance(error, MMAEdgeError) else None)
            self._ended = _now()
            with contextlib.suppress(queue.Full):
                self._lines.put(None, timeout=CLOSE_S)
            self._thread.join(CLOSE_S)

    def _tally(self, source: str) -> SourceTally:
        """The counters of a source, which may come in mid-run."""
        if source not in self._tallies:
            pipeline = next(pipeline for pipeline in self._running.pipelines if pipeline.name == source)
            if not pipeline.source.live:  # files come one after the other
                for tally in self._tallies.values():
                    self._end(tally, None)
            self._tallies[source] = SourceTally.of(source, pipeline.source)
            if self.options.video and pipeline.source.has_video:
                self._videos[source] = self._video(pipeline.source)
        return self._tallies[source]

    def _video(self, source: Source) -> SourceVideo:
        path = self.folder / f"video-{len(self._videos) + 1}.mp4"
        sound = self.options.sound and source.has_audio
        labels = self._model["labels"]
        return SourceVideo(path, labels, source.live, sound, self.options.blur_faces, self._say)

    def _say(self, line: str) -> None:
        """Tell the user, and keep it."""
        self._stream.notify(line)
        with contextlib.suppress(MMAEdgeError):
            self.notice(line)

    def _close_videos(self) -> None:
        until_s = time.monotonic() + VIDEO_CLOSE_S
        for video in self._videos.values():
            video.close(0)  # all at the same time
        for video in self._videos.values():
            video.close(max(0.0, until_s - time.monotonic()))

    def _event(self, event: SourceEvent | None) -> None:
        if event is not None:
            self._put(EVENTS, self._clock() | event.to_dict())

    def _clock(self) -> dict[str, Any]:
        return {"time": _now(), "run_s": rounded(time.monotonic() - self._start_s)}

    def _put(self, file: str, value: dict[str, Any]) -> None:
        """Hand a line to the thread that writes."""
        if self._error is not None:
            raise self._error
        if self._ended is not None:
            return
        try:
            self._lines.put_nowait((file, json.dumps(value) + "\n"))
        except queue.Full:
            what = f"{self.folder} takes nothing: {MOST_LINES} lines wait for its disk"
            self._error = OutputError(what, hint=f"choose another {_OPTION}")
            raise self._error from None

    def _run(self) -> None:
        """Write lines as they come, and the manifest every MANIFEST_S, until the end."""
        next_s, going = time.monotonic() + MANIFEST_S, True
        while going:
            with contextlib.suppress(queue.Empty):
                item = self._lines.get(timeout=max(0.0, next_s - time.monotonic()))
                going = item is not None
                self._append(*item or (EVENTS, ""))
            if going and time.monotonic() >= next_s:
                next_s = time.monotonic() + MANIFEST_S
                with contextlib.suppress(MMAEdgeError):  # it is said to whoever comes next
                    self._look()
                with contextlib.suppress(OSError):  # the old one stays; the next time there may be room
                    self._write_manifest()
        for file in self._files.values():
            file.close()
        try:
            self._write_manifest()
        except OSError as error:
            self._stream.notify(f"{self.folder / MANIFEST} says that the session still runs: {error.strerror}")

    def _append(self, file: str, line: str) -> None:
        if self._error is None and line:
            try:
                self._files[file].append(line)
            except MMAEdgeError as error:
                self._error = error

    def _look(self) -> None:
        """Drops, sources that ended, and a disk that is nearly full."""
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(self.folder).free
            for video in tuple(self._videos.values()) if free < RESERVE_BYTES else ():
                video.close(0, f"only {free >> 20} MiB are left on its disk")
        ends = {each.name: each.error for each in getattr(self._running, "sources", ()) if each.thread.ended}
        for tally in tuple(self._tallies.values()):
            self._event(tally.drops())
            if tally.name in ends:
                self._end(tally, ends[tally.name])

    def _end_sources(self, error: MMAEdgeError | None) -> None:
        """At the end of the session; in mid-run its sources go on."""
        going = {each.name for each in getattr(self._running, "sources", ()) if not each.thread.ended}
        with contextlib.suppress(MMAEdgeError):  # of a disk that is full: the follower ends anyway
            for tally in tuple(self._tallies.values()):
                why = self._running.failures.get(tally.name, error)
                self._end(tally, why and str(why), "the session ended" if tally.name in going else "it ended")

    def _end(self, tally: SourceTally, error: str | None, text: str = "it ended") -> None:
        """Nothing more comes of a source."""
        if tally.ended:
            tally.error = tally.error or error
            return
        tally.ended, tally.error = True, error
        if tally.name in self._videos:
            self._videos[tally.name].close(0)
        self._event(tally.drops(last=True))
        self._event(SourceEvent("end", error or text, tally.name, None, tally.last_s))

    def _write_manifest(self) -> None:
        with replaced(self.folder / MANIFEST) as aside:
            aside.write_text(to_json(self._manifest()), encoding="utf-8")

    def _manifest(self) -> dict[str, Any]:
        return {
            "kind": KIND,
            "schema": SCHEMA,
            "name": self.options.name or self.folder.resolve().name,
            "state": ENDED if self._ended else RUNNING,
            "started": self._started,
            "ended": self._ended,
            "run_s": rounded(time.monotonic() - self._start_s),
            "versions": versions(),
            "model": self._model,
            "options": options_of(self._stream),
            "sources": {name: source_of(tally, self._videos.get(name)) for name, tally in tuple(self._tallies.items())},
            "privacy": self._privacy(),
        }

    def _privacy(self) -> dict[str, Any]:
        begun = [video for video in tuple(self._videos.values()) if video.start_s is not None]
        return privacy_of(begun, self.options.blur_faces)

    def _remove(self) -> None:
        """Leave nothing of what was made."""
        for file in getattr(self, "_files", {}).values():
            file.close()
        with contextlib.suppress(OSError):
            for name in (RECORDS, MARKS, EVENTS, MANIFEST):
                (self.folder / name).unlink(missing_ok=True)
            for path in self._made:
                path.rmdir()


def _now() -> str:
    """The time of day, ISO 8601 in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
