"""Sessions that a page begins and ends: one at a time, each in a folder of its own whose name this side makes."""

from __future__ import annotations

import json
import re
import threading
import time
import unicodedata
from collections import deque
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from mma_edge.dashboard.board import Board
from mma_edge.dashboard.messages import Mark, Start
from mma_edge.errors import MMAEdgeError, UsageError
from mma_edge.pipeline import StreamOptions
from mma_edge.recognizer import Recognizer
from mma_edge.session.folder import MANIFEST
from mma_edge.session.recorder import SessionOptions, SessionRecorder
from mma_edge.types import Notify
from mma_edge.web.security import RateLimit

STARTS_PER_MINUTE, MARKS_PER_MINUTE = 10, 300
MOST_SHOWN, MOST_MARKS = 50, 100
"""Newest sessions and marks that pages list."""
_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}")
_FILE = re.compile(r"[0-9A-Za-z][\w.-]{0,99}", re.ASCII)
_MANIFEST_BYTES = 1 << 20
"""A larger one is not of this program."""


class Sessions:
    """What pages ask for is done by threads that may wait for the disk; what the run tells goes on at once."""

    def __init__(self, folder: Path, recognizer: Recognizer, options: StreamOptions, board: Board, say: Notify) -> None:
        """`folder` is made with the first session. `say` takes why a session ended by itself."""
        self.folder = folder
        self._recognizer, self._options, self._board, self._say = recognizer, options, board, say
        self._running: Any = None
        self._starts, self._marks_left = RateLimit(STARTS_PER_MINUTE), RateLimit(MARKS_PER_MINUTE)
        self._changing = threading.Lock()  # by who starts and stops
        self._lock = threading.Lock()  # of the next one; held for moments
        self._recorder: SessionRecorder | None = None
        self._given = False  # by the command line, which feeds it and ends it
        self._marks: deque[dict[str, Any]] = deque(maxlen=MOST_MARKS)

    def begin(self, running: Any) -> None:
        self._running = running
        self.publish()
        self.publish_kept()

    def adopt(self, recorder: SessionRecorder) -> None:
        """Marks go to this one, which others feed and end."""
        self._recorder, self._given = recorder, True

    def start(self, start: Start) -> None:
        """Begin a session; MMAEdgeError where that cannot be."""
        with self._changing:
            if self._recorder is not None:
                raise UsageError("a session goes on", "one at a time", "stop it first")
            if self._running is None:
                raise UsageError("the run has not begun", hint="try again")
            if not self._starts.allows():
                raise UsageError(f"more than {STARTS_PER_MINUTE} sessions in a minute", hint="wait for a minute")
            chosen = SessionOptions(start.video, start.blur_faces, start.sound, start.name)
            recorder = SessionRecorder(self._new_folder(start.name), chosen, self._recognizer, self._options)
            recorder.begin(self._running)
            self._marks.clear()
            with self._lock:
                self._recorder = recorder
        self.publish()

    def stop(self) -> None:
        """End the session, if there is one of a page's."""
        with self._changing:
            with self._lock:
                if self._given:
                    raise UsageError("this session is the command line's", hint="it ends with the run")
                recorder, self._recorder = self._recorder, None
            if recorder is not None:
                recorder.close()
        self.publish()
        self.publish_kept()

    def mark(self, mark: Mark) -> None:
        """Mark this moment; MMAEdgeError where there is no session."""
        if not self._marks_left.allows():
            raise UsageError(f"more than {MARKS_PER_MINUTE} marks in a minute", hint="this one was not kept")
        with self._lock:
            if self._recorder is None:
                raise UsageError("no session goes on", hint="start one: marks are kept in it")
            self._marks.append(self._recorder.mark(mark.text, mark.key))
        self.publish()

    def tell(self, what: Callable[[SessionRecorder], None]) -> None:
        """Hand on what the run tells; a session that cannot take it ends, and that is said."""
        with self._lock:
            recorder = None if self._given else self._recorder
            if recorder is None:
                return
            try:
                what(recorder)
                return
            except MMAEdgeError as error:
                reason, self._recorder = error, None
        # Closing waits for the disk, which this thread must not.
        threading.Thread(target=self._abandon, args=(recorder, reason), daemon=True).start()

    def _abandon(self, recorder: SessionRecorder, reason: MMAEdgeError) -> None:
        recorder.close()
        self._say(f"the session {recorder.folder.name} has ended: {reason}")
        self.publish()
        self.publish_kept()

    def publish(self) -> None:
        """Show pages the session that goes on."""
        recorder = self._recorder
        if recorder is None:
            self._board.put("marks", [])
            self._board.put("session", None)
            return
        session = {"id": recorder.folder.name, "name": recorder.options.name, "given": self._given}
        self._board.put("marks", list(self._marks))
        self._board.put("session", session | recorder.status())

    def publish_kept(self) -> None:
        """Show pages what was kept, the newest first."""
        self._board.put("sessions", kept(self.folder))

    def _new_folder(self, name: str) -> Path:
        """Date and time, and of the name what a path may hold everywhere."""
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
        plain = re.sub(r"[^0-9A-Za-z]+", "-", plain).strip("-")[:40]
        stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}" + (f"_{plain}" if plain else "")
        folder = self.folder / stem
        return folder if not folder.exists() else self.folder / f"{stem}_{time.time_ns() % 1000:03d}"


def kept(root: Path) -> list[dict[str, Any]]:
    """The newest sessions in a folder: id, name, started, state, run_s, and its files with their bytes."""
    try:
        ids = sorted((path.name for path in root.iterdir() if _ID.fullmatch(path.name)), reverse=True)
    except OSError:
        return []
    found = []
    for name in ids:
        if (folder := session_folder(root, name)) and (manifest := _manifest(folder)):
            facts = {key: manifest.get(key) for key in ("name", "started", "state", "run_s")}
            files = [{"name": path.name, "bytes": path.stat().st_size} for path in session_files(folder)]
            found.append({"id": name, **facts, "files": files})
        if len(found) == MOST_SHOWN:
            break
    return found


def session_folder(root: Path, name: str) -> Path | None:
    """The session of this id; None for all that is none, such as a path or a link to elsewhere."""
    if not _ID.fullmatch(name):
        return None
    folder = root / name
    return folder if not folder.is_symlink() and (folder / MANIFEST).is_file() else None


def session_files(folder: Path) -> list[Path]:
    """What may be downloaded: plain files right in the session's folder."""
    paths = (path for path in folder.iterdir() if _FILE.fullmatch(path.name))
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


def _manifest(folder: Path) -> dict[str, Any] | None:
    path = folder / MANIFEST
    try:
        if path.stat().st_size > _MANIFEST_BYTES:
            return None
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return manifest if isinstance(manifest, dict) else None
