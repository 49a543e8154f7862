"""The browser of a visitor as a source: a page on this machine sends its camera and microphone."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from pathlib import Path

from aiohttp import web

from mma_edge.errors import OutputError, UsageError
from mma_edge.files import state_root
from mma_edge.sources.base import SourceStats
from mma_edge.sources.browser.intake import Intake
from mma_edge.sources.browser.visit import Visits
from mma_edge.sources.live import FRAMES_KEPT, BufferedSource, LiveBuffer
from mma_edge.types import Emotion, Notify, ignore_notice
from mma_edge.web.binding import Binding
from mma_edge.web.certificate import given, made, write_secret
from mma_edge.web.security import Access, Page, new_token
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
        binding: Binding,
        notify: Notify = ignore_notice,  # takes the address of the page, and who comes and goes
        audio: bool = True,
        *,
        cert: Path | None = None,  # PEM; None beyond this machine: one is made
        key: Path | None = None,  # PEM; None: it is in the file of the certificate
        name: str = "browser",  # for messages and records
    ) -> None:
        """MMAEdgeError where nothing can listen there, or the certificate does not work."""
        if key and not cert:
            raise UsageError("--tls-key without --tls-cert", "both", "or one file with certificate and key: --tls-cert")
        self.name, self.has_audio, self.stats = name, audio, SourceStats()
        self._notify = notify
        self._buffer = LiveBuffer(self.stats, FRAMES_KEPT)
        self._visits = Visits(Intake(self._buffer, self.stats), audio)
        self._faces: dict[int | None, Emotion] = {}
        self._lock = threading.Lock()
        self._link_file: Path | None = None
        self._told_sync, self._in_step_s = False, time.monotonic()
        certificate = given(cert, key) if cert else None if binding.loopback else made(binding)
        token = None if binding.loopback else new_token()
        self._server = WebServer(Access(binding, certificate, token), self._set_up)
        try:
            self._announce(binding, token, certificate.fingerprint if certificate and not cert else "")
        except BaseException:
            self.close()
            raise

    def _set_up(self, app: web.Application) -> None:
        app.router.add_get("/", Page(_PAGE).serve)
        app.router.add_get(SOCKET, self._visits.serve)
        app.on_shutdown.append(self._visits.close)

    def _announce(self, binding: Binding, token: str | None, fingerprint: str) -> None:
        """Say where the page is. The token opens it, so it goes to a terminal or a file, but not into a log."""
        link = self._server.link()
        if token:
            secret = self._server.link(f"token={token}")
            self._link_file = path = state_root() / f"browser-{self._server.port}.link"
            try:
                write_secret(path, f"{secret}\n".encode())
            except OSError as error:
                raise OutputError(f"cannot write {path}: {error.strerror}", "a file for the page's link") from error
            link = secret if sys.stderr.isatty() else f"{link} (the link with its token is in {path})"
        self._notify(f"{self.name}: open {link}")
        if fingerprint:
            self._notify(f"{self.name}: this machine signed its own certificate; compare SHA-256 {fingerprint}")

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
        """Hang up and end the server, within 2 s."""
        self._closed = True
        self._server.close()
        if self._link_file is not None:
            with contextlib.suppress(OSError):
                self._link_file.unlink()
