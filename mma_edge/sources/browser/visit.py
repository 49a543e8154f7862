"""Visitors: who has the page open, who of them sends, and what they are told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque

from aiohttp import WSMsgType, web

from mma_edge.sources.browser.intake import Intake
from mma_edge.sources.browser.messages import MAX_BYTES, read_media, read_text
from mma_edge.sources.browser.peer import Peer
from mma_edge.web.security import RateLimit
from mma_edge.web.visitors import MAX_BAD, BadMessageError, Complaints, until_first

MAX_VISITS = 8
OFFERS_PER_MINUTE = 30
_HEARTBEAT_S = 5.0
"""A browser that does not answer for one and a half of this is gone."""
_SILENT_S, _BEGIN_S = 10.0, 60.0
"""Longest time without a picture or sound of who sends; the same before the first: a question is asked meanwhile."""
_TICK_S, _PICTURE_S = 0.5, 3.0
_CLOSE_S = 0.5
"""Longest wait for a page's own farewell."""


class Visits:
    """All open pages of one source. To be used in the server's thread, but for what is read of it."""

    def __init__(self, intake: Intake, audio: bool) -> None:
        self.intake, self.audio = intake, audio
        self.offers = RateLimit(OFFERS_PER_MINUTE)
        self.open: set[Visit] = set()
        self.seat: Visit | None = None  # who sends
        self.notices: deque[str] = deque(maxlen=16)  # for the source to say
        self.complaints = Complaints(self.notices.append)
        self.begun = 0  # visitors that sent something

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """The handler of the page's WebSocket."""
        if len(self.open) >= MAX_VISITS:
            raise web.HTTPServiceUnavailable(text="too many pages are open\n")
        socket = web.WebSocketResponse(heartbeat=_HEARTBEAT_S, max_msg_size=MAX_BYTES, compress=False, timeout=_CLOSE_S)
        await socket.prepare(request)
        visit = Visit(socket, self)
        self.open.add(visit)
        try:
            await visit.run()
        finally:
            self.open.discard(visit)
            await visit.end()
        return socket

    def show(self, emotions: str) -> None:
        """Send the newest answers to who sends, as soon as it can take them."""
        if self.seat is not None:
            self.seat.show(emotions)

    async def close(self, app: web.Application) -> None:
        """End all visits."""
        self.leave()

    def leave(self) -> None:
        """Ask all visits to end soon."""
        for visit in list(self.open):
            visit.leave()


class Visit:
    """One open page."""

    def __init__(self, socket: web.WebSocketResponse, visits: Visits) -> None:
        self._socket, self._visits = socket, visits
        self._peer: Peer | None = None
        self._bad = 0
        self._seated_s = 0.0
        self._road = ""  # by which it sends
        self._told = False
        self._emotions: str | None = None
        self._wake = asyncio.Event()
        self._gone = asyncio.Event()

    async def run(self) -> None:
        """Until the page is closed, or is not to stay."""
        await until_first(self._receive(), self._send(), self._watch(), self._gone.wait())

    async def end(self) -> None:
        """Free the seat and all that belongs to it, and hang up."""
        await self._stand_up()
        with contextlib.suppress(Exception):
            await self._socket.close()

    def leave(self) -> None:
        """Ask it to end soon."""
        self._gone.set()

    def show(self, emotions: str) -> None:
        """Newer answers replace those that are not sent yet."""
        self._emotions = emotions
        self._wake.set()

    async def _receive(self) -> None:
        async for message in self._socket:
            try:
                if message.type == WSMsgType.TEXT:
                    await self._heed(message.data)
                elif message.type == WSMsgType.BINARY:
                    await self._take(message.data)
                elif message.type == WSMsgType.ERROR:  # it has hung up already
                    raise BadMessageError("what is no WebSocket message, or one that is too large")
            except BadMessageError as error:
                self._visits.complaints.add(str(error))
                self._bad += 1
                if self._bad > MAX_BAD:
                    return
                await self._say(type="refused", text=str(error))

    async def _heed(self, text: str) -> None:
        request = read_text(text)
        if request.type == "stop":
            await self._stand_up()
        elif request.type == "start":
            await self._start()
        elif self._visits.seat is not self:
            raise BadMessageError("an offer before it was asked for one")
        elif not self._visits.offers.allows():
            raise BadMessageError(f"more than {OFFERS_PER_MINUTE} offers in a minute")
        else:
            await self._close_peer()
            self._peer = Peer(self._visits.intake, self._visits.audio, self.leave)
            await self._say(type="answer", sdp=await self._peer.answer(request.sdp))
            self._road = "WebRTC"

    async def _start(self) -> None:
        if self._visits.seat not in (None, self):
            await self._say(type="taken")
            return
        self._visits.seat = self
        self._seated_s = time.monotonic()
        await self._say(type="go", audio=self._visits.audio)

    async def _take(self, data: bytes) -> None:
        """Picture or sound of the WebSocket road."""
        visits = self._visits
        if visits.seat is not self:
            raise BadMessageError("a picture or sound before it was asked for one")
        media = read_media(data)
        if self._road != "WebSocket":
            await self._close_peer()
            self._road = "WebSocket"
            visits.intake.begin(one_clock=True)
        if media.is_picture:
            visits.intake.picture(media.data, media.stamp_s)
        elif visits.audio:
            visits.intake.sound(media.data, media.rate_hz, media.stamp_s)

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._emotions is not None:
                emotions, self._emotions = self._emotions, None
                await self._socket.send_str(emotions)  # waits for a page that reads slowly

    async def _say(self, **message: object) -> None:
        with contextlib.suppress(ConnectionError):  # it is gone: `_receive` ends
            await self._socket.send_str(json.dumps(message))

    async def _watch(self) -> None:
        """Ends for who has the seat and sends nothing: another may want it."""
        ticks = 0  # for which something has come
        while True:
            await asyncio.sleep(_TICK_S)
            visits = self._visits
            if visits.seat is not self:
                ticks = 0
                continue
            sent = visits.intake.last_arrival_s > self._seated_s
            if sent:
                ticks += 1
                self._tell(ticks)
            since_s = max(self._seated_s, visits.intake.last_arrival_s)
            if time.monotonic() - since_s > (_SILENT_S if sent else _BEGIN_S):
                return

    def _tell(self, ticks: int) -> None:
        """Say what comes, once; sound alone when no picture has followed it."""
        visits = self._visits
        width, height = visits.intake.size
        if not self._told and (width or ticks * _TICK_S > _PICTURE_S):
            self._told = True
            visits.begun += 1
            visits.notices.append(f"a visitor sends {f'{width}x{height}' if width else 'sound alone'} by {self._road}")

    async def _stand_up(self) -> None:
        visits = self._visits
        if visits.seat is self:
            if visits.intake.last_arrival_s > self._seated_s:
                visits.notices.append("the visitor is gone: waiting for the next")
            visits.seat = None
        self._road, self._told = "", False
        await self._close_peer()

    async def _close_peer(self) -> None:
        peer, self._peer = self._peer, None
        if peer is not None:
            await peer.close()
