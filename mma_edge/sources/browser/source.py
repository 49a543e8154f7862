"""The browser of a visitor as a source: a page on this machine sends its camera and microphone."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from aiohttp import web

from mma_edge.sources.base import SourceStats
from mma_edge.sources.browser.intake import Intake
from mma_edge.sources.browser.visit import Visits
from mma_edge.sources.live import FRAMES_KEPT, BufferedSource, LiveBuffer
from mma_edge.types import Emotion, Notify, ignore_notice
from mma_edge.web.announced import AnnouncedServer, Place
from mma_edge.web.security import Page
from mma_edge.web.server import WebServer

SOCKET = "/visit"
_PAGE = Path(__file__).resolve().parents[2] / "assets" / "browser" / "page.html"
_SHOWN_S = 2.0
"""Answers older than the newest by more than this are of faces that are gone."""
_NO_SYNC_S = 15.0
"""After so long without reports of the browser it is said that arrival aligns picture and sound."""


class BrowserSource(BufferedSource):
    """Picture and sound of one visitor at a time; `events` waits for the next. `time_s` counts from its first call."""

    has_video = True

    def __init__(
        self,
        place: Place | WebServer,
        notify: Notify = ignore_notice,  # takes the address of the page, and who comes and goes
        audio: bool = True,
        name: str = "browser",  # for messages and records
    ) -> None:
        """At a place of its own, or on a server whose page sends by `SOCKET`; it stays open when the source is closed.

        MMAEdgeError where nothing can listen there, or the certificate does not work.
        """
        self.name, self.has_audio, self.stats = name, audio, SourceStats()
        self._notify = notify
        self._buffer = LiveBuffer(self.stats, FRAMES_KEPT)
        self._visits = Visits(Intake(self._buffer, self.stats), audio)
        self._faces: dict[int | None, Emotion] = {}
        self._lock = threading.Lock()
        self._told_sync, self._in_step_s = False, time.monotonic()
        self._shares = isinstance(place, WebServer)
        if isinstance(place, WebServer):
            self._server = place
            place.mount(SOCKET, self._visits.serve)
        else:
            self._server = AnnouncedServer(place, self._set_up, notify, name)

    def _set_up(self, app: web.Application) -> None:
        app.router.add_get("/", Page(_PAGE).serve)
        app.router.add_get(SOCKET, self._visits.serve)
        app.on_shutdown.append(self._visits.close)

    @property
    def link(self) -> str:
        """The address of the page, without its token."""
        return self._server.link()

    @property
    def sync(self) -> str:
        """What aligns picture and sound: "stamps" of the browser, or "arrival"."""
        return "arrival" if self._visits.intake.clock.by_arrival else "stamps"

    def _watch(self) -> None:
        """Say what happened since the last time."""
        while self._visits.notices:
            self._notify(f"{self.name}: {self._visits.notices.popleft()}")
        self.stats.reopened = max(0, self._visits.begun - 1)
        now_s = time.monotonic()
        if self.sync != "arrival":
            self._in_step_s = now_s
        elif not self._told_sync and now_s - self._in_step_s > _NO_SYNC_S:
            self._told_sync = True
            self._notify(f"{self.name}: its picture and sound have no common clock, so their arrival aligns them")

    def show(self, emotion: Emotion) -> None:
        """Send an answer to the visitor. May be called by any thread; never waits."""
        with self._lock:
            self._faces[emotion.track_id] = emotion
            newest_s = max(each.end_s for each in self._faces.values())
            self._faces = {track: each for track, each in self._faces.items() if newest_s - each.end_s <= _SHOWN_S}
            faces = [self._face(each) for each in self._faces.values()]
        self._server.call(self._visits.show, json.dumps({"type": "emotions", "faces": faces}))

    def _face(self, emotion: Emotion) -> dict[str, object]:
        """What the page shows of an answer; the box as shares of the picture's sides."""
        record, (width, height) = emotion.to_dict(), self._visits.intake.size
        sides = (max(1, width), max(1, height)) * 2
        box = emotion.box and [value / side for value, side in zip(emotion.box, sides, strict=True)]
        return {
            **{name: record[name] for name in ("track_id", "modalities", "label", "probabilities")},
            "confidence": emotion.confidence,
            "box": box,
        }

    def close(self) -> None:
        """Hang up, and end the server that is the source's own, within 2 s."""
        self._closed = True
        if self._shares:
            self._server.unmount(SOCKET)
            self._server.call(self._visits.leave)
        else:
            self._server.close()
