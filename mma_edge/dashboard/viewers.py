"""Who has the page open, and what each of them has seen: a message goes out when the last one was shown.

So a slow viewer gets fewer pictures, each the newest of its moment, and nothing waits for it or is kept for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable

from aiohttp import WSMsgType, web

from mma_edge.dashboard.board import Board
from mma_edge.dashboard.messages import MAX_BYTES, Ack, Command, read_command
from mma_edge.web.visitors import MAX_BAD, BadMessageError, Complaints, until_first

MAX_VIEWERS = 8
_HEARTBEAT_S = 5.0
"""A browser that does not answer for one and a half of this is gone."""
_CLOSE_S = 0.5
Heed = Callable[[Command], Awaitable[str | None]]
"""Does what a viewer asks for; gives what to tell it, None where all went well."""


class Viewers:
    """All open pages. To be used in the server's thread, but for `wanting` and `count`."""

    def __init__(
        self, board: Board, heed: Heed, complaints: Complaints, on_want: Callable[[], None], on_shown: Callable
    ) -> None:
        """`on_want` is called when a viewer begins to wait for news, `on_shown` with the age in ms of a picture when a
        viewer has said that it shows it."""
        self.board, self.heed, self.complaints = board, heed, complaints
        self.on_want, self.on_shown = on_want, on_shown
        self._open: set[Viewer] = set()

    @property
    def count(self) -> int:
        return len(self._open)

    def wanting(self) -> bool:
        """Whether a viewer waits for news."""
        return any(viewer.wanting for viewer in tuple(self._open))

    def wake(self) -> None:
        """There is news."""
        for viewer in self._open:
            viewer.wake.set()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """The handler of the page's WebSocket."""
        if self.count >= MAX_VIEWERS:
            raise web.HTTPServiceUnavailable(text="too many pages are open\n")
        socket = web.WebSocketResponse(heartbeat=_HEARTBEAT_S, max_msg_size=MAX_BYTES, compress=False, timeout=_CLOSE_S)
        viewer = Viewer(socket, self)
        self._open.add(viewer)  # before it is prepared, which takes turns with others
        try:
            await socket.prepare(request)
            viewer.want()
            await viewer.run()
        finally:
            self._open.discard(viewer)
            with contextlib.suppress(Exception):
                await socket.close()
        return socket

    async def close(self, app: web.Application) -> None:
        """End all."""
        for viewer in list(self._open):
            viewer.gone.set()


class Viewer:
    """One open page."""

    def __init__(self, socket: web.WebSocketResponse, viewers: Viewers) -> None:
        self._socket, self._viewers = socket, viewers
        self.wanting = False
        self.wake, self.gone = asyncio.Event(), asyncio.Event()
        self._seen = 0  # version of the board
        self._number = 0  # of the last message
        self._arrival_s: float | None = None  # of the picture in it
        self._bad = 0

    def want(self) -> None:
        """Ready for a message."""
        self.wanting = True
        self.wake.set()
        self._viewers.on_want()

    async def run(self) -> None:
        """Until the page is closed, or is not to stay."""
        await until_first(self._receive(), self._send(), self.gone.wait())

    async def _send(self) -> None:
        while True:
            await self.wake.wait()
            self.wake.clear()
            news = self._viewers.board.since(self._seen) if self.wanting else None
            if news is None:
                continue
            self.wanting = False
            self._seen, self._arrival_s = news.version, news.arrival_s
            self._number += 1
            # Without a limit of its own: asyncio's `wait_for` may lose a cancellation before Python 3.12, and who reads
            # nothing does not answer the heartbeat either.
            await self._socket.send_bytes(news.message(self._number))

    async def _receive(self) -> None:
        async for message in self._socket:
            try:
                if message.type != WSMsgType.TEXT:
                    raise BadMessageError("what is no text message, or one that is too large")
                await self._heed(read_command(message.data))
            except BadMessageError as error:
                self._viewers.complaints.add(str(error))
                self._bad += 1
                if self._bad > MAX_BAD:
                    return
                await self._say(str(error))

    async def _heed(self, command: Command) -> None:
        if not isinstance(command, Ack):
            if text := await self._viewers.heed(command):
                await self._say(text)
            return
        if self.wanting or command.number != self._number:
            raise BadMessageError("an ack of what it was not sent")
        if self._arrival_s is not None:
            self._viewers.on_shown(1000 * (time.monotonic() - self._arrival_s))
        self.want()

    async def _say(self, text: str) -> None:
        with contextlib.suppress(ConnectionError):  # it is gone: `_receive` ends
            await self._socket.send_str(json.dumps({"type": "said", "text": text}))
