"""The annotated video of one source, written beside a run by a thread that never holds it up."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mma_edge.errors import first_line
from mma_edge.session.video.blur import AHEAD_S, FacesAround, blur
from mma_edge.session.video.drawing import Drawing
from mma_edge.session.video.movie import Movie, MovieOptions
from mma_edge.types import AudioChunk, Face, Frame, Picture

BEHIND_S, MOST_FRAMES = 0.5, 64
"""A live frame that waited longer for the encoder is left out, as is one that finds so many waiting."""
MOST_BYTES, LEAST_FRAMES = 192 << 20, 4
"""No more frames wait than have room in so many bytes as RGB, but always so few."""
MOST_WAITING = 2000
"""Blocks of sound and answers, where the disk hangs."""
FILE_FRAMES, FILE_WAIT_S = 16, 10.0
"""The reader of a file waits while so many frames wait for the encoder, but no longer than this."""
STALE_S = 2.0
"""An answer is shown for so long after the end of its window, in presentation time."""
SOUND_LATE_S = 1.0
"""Sound that is not there so long after its picture is taken for missing."""
PART_S = 3600.0
"""The video of a live source goes on in another file after so long: the index of one is in memory until it is closed,
20 MB an hour."""
_SOUND_KEPT_S = 10.0

Stopped = Callable[[str], None]
"""Takes in one line why a video goes on no more."""


class SourceVideo:
    """Takes what a run shows of one source, and writes it as it comes: boxes of each frame with the newest answers."""

    def __init__(
        self,
        path: Path,
        labels: Sequence[str],
        live: bool,
        sound: bool,
        blur_faces: bool,
        stopped: Stopped,
    ) -> None:
        """`live`: frames are left out where the encoder is late; else whoever brings them waits."""
        self.path, self.sound_wanted = path, sound
        self.parts: list[tuple[Path, float]] = []  # files that have begun; PTS of their first picture: their time 0
        self.dropped = 0  # frames that the encoder had no time for
        self.stopped_by: str | None = None
        self._live, self._blur, self._stopped = live, blur_faces, stopped
        self._part_s = PART_S if live else math.inf
        self._drawing = Drawing(labels)
        self._answers: dict[int | None, dict[str, Any]] = {}  # the newest ones
        self._movie: Movie | None = None
        self._waiting: deque[Any] = deque()
        self._frames = 0  # of what waits
        self._changed = threading.Condition()
        self._closing = False
        self._held: deque[tuple[Picture, Frame, Sequence[Face], dict]] = deque()  # until later faces are known
        self._around = FacesAround()
        self._early: deque[AudioChunk] = deque()  # sound before the first picture
        # A daemon: an encoder or disk that hangs must not keep the program alive.
        self._thread = threading.Thread(target=self._run, name=f"mma-edge-{path.stem}", daemon=True)
        self._thread.start()

    @property
    def start_s(self) -> float | None:
        """PTS of the first picture, None before it."""
        return self.parts[0][1] if self.parts else None

    def frame(self, frame: Frame, faces: Sequence[Face]) -> None:
        """The next frame, by the source's thread."""
        # The source's thread goes on with its picture at the same time.
        picture = frame.picture.twin() if hasattr(frame.picture, "twin") else frame.picture
        with self._changed:
            most = max(LEAST_FRAMES, MOST_BYTES // max(1, math.prod(picture.shape)))
            most = min(most, MOST_FRAMES if self._live else FILE_FRAMES)
            if not self._live and not self._changed.wait_for(lambda: self._frames < most or self._closing, FILE_WAIT_S):
                self._live = True  # a disk that hangs is not waited for again and again
            if self._closing:
                return
            if self._frames >= most:
                self.dropped += 1
            else:
                self._frames += 1
                self._waiting.append((frame, picture, tuple(faces), time.monotonic()))
                self._changed.notify_all()

    def sound(self, chunk: AudioChunk) -> None:
        """The next sound, by the same thread."""
        if self.sound_wanted:
            self._put(chunk)

    def answer(self, record: dict[str, Any]) -> None:
        """The newest answer about a face or the voice, as `Emotion.to_dict` gives it."""
        self._put(record)

    def close(self, limit_s: float, why: str = "") -> None:
        """Write what waits and end the file; waits for it for `limit_s` at most. `why` it ends before its time."""
        with self._changed:
            if why and not self._closing:
                self._waiting.clear()
                self.stopped_by = why
            self._closing = True
            self._changed.notify_all()
        self._thread.join(limit_s)

    def _put(self, item: AudioChunk | dict) -> None:
        with self._changed:
            if not self._closing and len(self._waiting) < MOST_WAITING:
                self._waiting.append(item)
                self._changed.notify_all()

    def _take(self) -> Any:
        """What came next; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if not self._waiting:
                return None
            item = self._waiting.popleft()
            if isinstance(item, tuple):
                self._frames -= 1
                self._changed.notify_all()
            return item

    def _run(self) -> None:
        try:
            while (item := self._take()) is not None:
                self._write(item)
            while self._held:
                self._draw(*self._held.popleft())
        except Exception as error:  # whatever it is, the run goes on
            known = isinstance(error, OSError) and error.strerror
            self.stopped_by = known or f"{type(error).__name__}: {first_line(error)}"
        finally:
            with self._changed:
                self._closing = True
                self._waiting.clear()
                self._changed.notify_all()
            with contextlib.suppress(OSError, ValueError):  # of a full disk: what was written can be played
                if self._movie is not None:
                    self._movie.close()
            if self.stopped_by:
                name = self.parts[-1][0].name if self.parts else self.path.name
                self._stopped(f"no more {name}: {self.stopped_by}; records go on")

    def _write(self, item: Any) -> None:
        if isinstance(item, dict):
            self._answers[item["track_id"]] = item
        elif isinstance(item, AudioChunk):
            self._hear(item)
        else:
            frame, picture, faces, put_s = item
            if self._live and time.monotonic() - put_s > BEHIND_S:
                self.dropped += 1
                return
            self._see(picture, frame, faces)

    def _see(self, picture: Picture, frame: Frame, faces: Sequence[Face]) -> None:
        answers = self._current(frame.time_s)
        if not self._blur:
            self._draw(picture, frame, faces, answers)
            return
        self._around.add(frame.time_s, faces)
        self._held.append((picture, frame, faces, answers))
        while self._held[0][1].time_s < frame.time_s - AHEAD_S:
            self._draw(*self._held.popleft())

    def _draw(self, picture: Picture, frame: Frame, faces: Sequence[Face], answers: dict) -> None:
        image = np.array(picture)  # one of its own, to be drawn on
        if self._movie is None or frame.time_s - self.parts[-1][1] >= self._part_s:
            self._begin_part(image.shape[1::-1], frame.time_s)
        if self._blur:
            blur(image, self._around.at(frame.time_s))
        self._drawing(image, faces, answers)
        time_s = frame.time_s - self.parts[-1][1]
        self._movie.picture(image, time_s)
        if self.sound_wanted:
            self._movie.silence(time_s - SOUND_LATE_S)

    def _begin_part(self, size: tuple[int, int], start_s: float) -> None:
        """Begin the first file, or end one and begin the next."""
        if self._movie is not None:
            movie, self._movie = self._movie, None
            movie.close()
        number = len(self.parts) + 1
        path = self.path if number == 1 else self.path.with_stem(f"{self.path.stem}-{number:03d}")
        self._movie = Movie(path, size, MovieOptions(crash_safe=True), self.sound_wanted)
        self.parts.append((path, start_s))
        for chunk in self._early:
            self._hear(chunk)
        self._early.clear()

    def _current(self, time_s: float) -> dict[int | None, dict]:
        """The newest answers, of faces that are still looked at; the voice alone is shown only without a face."""
        self._answers = {track: answer for track, answer in self._answers.items() if time_s - answer["end_s"] < STALE_S}
        several = len(self._answers) > 1
        return {track: answer for track, answer in self._answers.items() if track is not None or not several}

    def _hear(self, chunk: AudioChunk) -> None:
        if self._movie is None:
            self._early.append(chunk)
            while self._early[-1].time_s - self._early[0].time_s > _SOUND_KEPT_S:
                self._early.popleft()
        elif chunk.end_s > self.parts[-1][1]:
            self._movie.sound(chunk, chunk.time_s - self.parts[-1][1])
