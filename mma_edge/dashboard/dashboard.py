"""The follower that serves the page."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from aiohttp import web

from mma_edge.dashboard.board import Board
from mma_edge.dashboard.downloads import Downloads
from mma_edge.dashboard.messages import Command, Mark, Start
from mma_edge.dashboard.pictures import Pictures
from mma_edge.dashboard.sessions import Sessions
from mma_edge.dashboard.state import Levels, about, progress
from mma_edge.dashboard.viewers import Viewers
from mma_edge.errors import MMAEdgeError, UsageError, without_passwords
from mma_edge.live.stats import LastMinute
from mma_edge.pipeline import StreamOptions
from mma_edge.recognizer import Recognizer
from mma_edge.sinks.follower import Follower
from mma_edge.types import AudioChunk, Emotion, Face, Frame
from mma_edge.web.announced import AnnouncedServer, Place
from mma_edge.web.security import Page
from mma_edge.web.visitors import Complaints

SOCKET = "/view"
CAMERA = "/visit"
"""Where a browser's camera is mounted, see `mma_edge.sources.browser.source`."""
_PAGE = Path(__file__).resolve().parents[1] / "assets" / "dashboard" / "page.html"
_LEVELS_S, _STATE_EVERY = 0.2, 5
"""How often levels are renewed, and after how many of these times the numbers."""
_MOST_NOTICES = 50
_FAREWELL_S = 0.3
_DISK_THREADS = 4
Routes = Callable[[web.Application], None]


class Dashboard(Follower):
    """Shows a run to whoever opens its page, until the run ends."""

    name = "--web"

    def __init__(
        self,
        place: Place,
        recognizer: Recognizer,
        options: StreamOptions,
        sessions: Path,
        routes: Sequence[Routes] = (),
    ) -> None:
        """Listens at once. `options.notify` takes the link and what visitors do wrong; `sessions` is the folder of the
        sessions that pages begin; `routes` add further paths.

        MMAEdgeError where nothing can listen there, or the certificate does not work.
        """
        self._recognizer, self._options, self._routes = recognizer, options, routes
        self._running: Any = None
        self._started_s = time.monotonic()
        self._notices: deque[dict[str, str]] = deque(maxlen=_MOST_NOTICES)
        self._shown_ms, self._levels = LastMinute(), Levels()
        self.server: AnnouncedServer | None = None
        self.board = Board(self._changed)
        self._complaints = Complaints(self._say)
        self._viewers = Viewers(self.board, self._heed, self._complaints, self._poke, self._was_shown)
        self.sessions = Sessions(sessions, recognizer, options, self.board, self._say)
        self._disk = ThreadPoolExecutor(_DISK_THREADS, "mma-edge-page-disk")
        self._downloads = Downloads(sessions, self._disk)
        self._pictures = Pictures(self._viewers.wanting, self.board.show, self._say)
        try:
            self.server = AnnouncedServer(place, self._set_up, options.notify, "the page")
        except BaseException:
            self._pictures.close()
            raise

    def _set_up(self, app: web.Application) -> None:
        app.router.add_get("/", Page(_PAGE).serve)
        app.router.add_get(SOCKET, self._viewers.serve)
        self._downloads.set_up(app)
        app.on_shutdown.append(self._viewers.close)
        app.cleanup_ctx.append(self._ticking)
        for add in self._routes:
            add(app)

    def begin(self, running: Any) -> None:
        self._running, self._started_s = running, time.monotonic()
        self.board.put("about", about(self._recognizer, self._options, self.server.mounts(CAMERA)))
        self.sessions.begin(running)

    def frame(self, source: str, frame: Frame, faces: Sequence[Face]) -> None:
        self._pictures.put(source, frame, faces)
        self.sessions.tell(lambda recorder: recorder.frame(source, frame, faces))

    def sound(self, source: str, chunk: AudioChunk) -> None:
        self._levels.put(source, chunk)
        self.sessions.tell(lambda recorder: recorder.sound(source, chunk))

    def write(self, emotion: Emotion) -> None:
        self.board.answer(emotion.to_dict())
        self.sessions.tell(lambda recorder: recorder.write(emotion))

    def notice(self, line: str) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._notices.append({"time": now, "text": without_passwords(line)})
        self.board.put("notices", list(self._notices))
        self.sessions.tell(lambda recorder: recorder.notice(line))

    def __exit__(self, *exc_info: object) -> None:
        self._pictures.close()
        with contextlib.suppress(UsageError):  # one of the command line, which ends by itself
            self.sessions.stop()
        self._state()
        self.board.put("ended", True)
        # Viewers learn that the run has ended, and not that a connection was lost.
        end_s = time.monotonic() + _FAREWELL_S
        while self._viewers.count and time.monotonic() < end_s and not self.server.closed:
            time.sleep(0.02)
        self.server.close()
        self._disk.shutdown(wait=False, cancel_futures=True)

    def _say(self, line: str) -> None:
        """To the user at the terminal, and on the page."""
        self._options.notify(f"the page: {line}")
        self.notice(line)

    def _changed(self) -> None:
        if self.server is not None:
            self.server.call(self._viewers.wake)

    def _poke(self) -> None:
        self._pictures.poke()

    def _was_shown(self, age_ms: float) -> None:
        self._shown_ms.add("picture", age_ms)

    async def mark(self, text: str) -> str | None:
        """Mark this moment in the session, in the server's thread; gives why it was not kept."""
        return await self._heed(Mark(text, None))

    async def _heed(self, command: Command) -> str | None:
        """Do what a page asks for; gives why it was not done."""
        loop = asyncio.get_running_loop()
        try:
            if isinstance(command, Mark):
                await loop.run_in_executor(self._disk, self.sessions.mark, command)
            elif isinstance(command, Start):
                await loop.run_in_executor(self._disk, self.sessions.start, command)
            else:
                await loop.run_in_executor(self._disk, self.sessions.stop)
        except MMAEdgeError as error:
            return str(error)
        return None

    async def _ticking(self, app: web.Application) -> Any:
        task = asyncio.ensure_future(self._tick())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _tick(self) -> None:
        """Numbers and levels, while somebody looks."""
        ticks, counted = 0, None
        while True:
            await asyncio.sleep(_LEVELS_S)
            if not self._viewers.count:
                ticks = 0
                continue
            self.board.put("levels", self._levels.take())
            if ticks % _STATE_EVERY == 0:
                self._state()
                if counted is None or counted.done():  # else its disk takes long
                    counted = asyncio.get_running_loop().run_in_executor(self._disk, self.sessions.publish)
            ticks += 1

    def _state(self) -> None:
        if self._running is None:
            return
        shown = self._shown_ms.spread("picture")
        page = {"viewers": self._viewers.count, "picture_ms": shown.to_dict() if shown else None}
        self.board.put("run", progress(self._running, self._started_s) | {"page": page})
