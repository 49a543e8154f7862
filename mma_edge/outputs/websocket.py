"""Records over a WebSocket: each client gets each record as JSON text, and may send marks."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import WSMsgType, web

from mma_edge.errors import MMAEdgeError
from mma_edge.outputs.follower import QUEUE, Backlog
from mma_edge.sinks import Follower
from mma_edge.types import Emotion
from mma_edge.web.security import RateLimit

PATH = "/ws/records"
MOST_CLIENTS = 32
MESSAGE_BYTES = 4096
"""Largest message of a client."""
MOST_ERRORS = 10
"""Messages of one client that are none; after them it is sent away."""
MARK_CHARACTERS = 500
MARKS_PER_MINUTE = 120
BUFFER_BYTES = 65536
"""So much waits in the connection itself before the queue fills."""
HEARTBEAT_S = 20.0
"""A client that does not answer a ping for half of that is closed: so is one that does not read."""
CLOSE_S = 2.0
SCHEMA = 1
OnMark = Callable[[str], Awaitable[str | None] | str | None]


class RecordsSocket(Follower):
    """What `set_up` adds to a `mma_edge.web.server.WebServer`; the server's gate says who may connect.

    Messages have a `type`: hello (first, and when the run begins: schema, labels, sources), record (the fields of a
    record of `--output`), notice (text), dropped (count: messages that this client was too slow for), error (text: what
    it sent is no message), end. A client sends {"type": "mark", "text": ...}.
    """

    name = PATH

    def __init__(self, on_mark: OnMark | None = None, queue: int = QUEUE) -> None:
        """`on_mark` gets the text of a mark, in the server's thread, and must return at once; what takes time it gives
        to be awaited. Its answer, or the MMAEdgeError that it raises, is why a mark was not kept. It may be set later;
        None: nobody keeps marks.
        """
        self.on_mark = on_mark
        self._marks = RateLimit(MARKS_PER_MINUTE)
        self._queue = queue
        self._lock = threading.Lock()
        self._clients: set[_Client] = set()
        self._hello: dict[str, Any] = {"type": "hello", "schema": SCHEMA, "labels": [], "sources": []}

    @property
    def clients(self) -> int:
        """How many are connected."""
        return len(self._clients)

    def set_up(self, app: web.Application) -> None:
        """Add the route."""
        app.router.add_get(PATH, self._serve)
        app.on_shutdown.append(self._close_all)

    async def _close_all(self, app: web.Application) -> None:
        with self._lock:
            clients = list(self._clients)
        await asyncio.gather(*(client.end() for client in clients))

    def begin(self, running: Any) -> None:
        self._hello |= {"labels": list(running.labels), "sources": list(running.names)}
        self._send(self._hello)  # to those who came before

    def write(self, emotion: Emotion) -> None:
        self._send({"type": "record", **emotion.to_dict()}, emotion.source)

    def notice(self, line: str) -> None:
        self._send({"type": "notice", "text": line})

    def __exit__(self, *exc_info: object) -> None:
        self._send({"type": "end"})

    def _send(self, message: dict[str, Any], source: str | None = None) -> None:
        with self._lock:
            clients = [each for each in self._clients if source is None or each.source in (None, source)]
        if not clients:
            return
        text = json.dumps(message)
        for client in clients:
            client.put(text)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        source = request.query.get("source")
        if source is not None and self._hello["sources"] and source not in self._hello["sources"]:
            raise web.HTTPNotFound(text="there is no such source\n")
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S,
            max_msg_size=MESSAGE_BYTES,
            timeout=CLOSE_S,
            compress=False,
            writer_limit=BUFFER_BYTES,
        )
        if not socket.can_prepare(request):
            raise web.HTTPUpgradeRequired(text="this is a WebSocket\n", headers={"Upgrade": "websocket"})
        if self.clients >= MOST_CLIENTS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_CLIENTS} clients are here already\n")
        client = _Client(socket, source, self._queue)
        with self._lock:
            self._clients.add(client)
        try:
            await socket.prepare(request)
            with contextlib.suppress(ConnectionError):
                await socket.send_str(json.dumps(self._hello))
            sender = asyncio.create_task(client.send())
            try:
                await self._listen(socket)
            finally:
                sender.cancel()
                await asyncio.wait([sender])
        finally:
            with self._lock:
                self._clients.discard(client)
        return socket

    async def _listen(self, socket: web.WebSocketResponse) -> None:
        """Until it closes, or says too much that is no message."""
        errors = 0
        async for message in socket:
            problem = await self._heard(message.data) if message.type is WSMsgType.TEXT else "text is expected"
            if problem:
                errors += 1
                with contextlib.suppress(ConnectionError):
                    await socket.send_str(json.dumps({"type": "error", "text": problem}))
            if errors >= MOST_ERRORS:
                await socket.close(code=1008, message=b"no messages")

    async def _heard(self, text: str) -> str | None:
        """Take a client's message; what is wrong with it, None for nothing."""
        expected = f'expected {{"type": "mark", "text": at most {MARK_CHARACTERS} characters}}'
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return expected
        mark = message.get("text") if isinstance(message, dict) and message.get("type") == "mark" else None
        if not isinstance(mark, str) or not 0 < len(mark) <= MARK_CHARACTERS:
            return expected
        if self.on_mark is None:
            return "nobody keeps marks: no session is recorded"
        if not self._marks.allows():
            return f"more than {MARKS_PER_MINUTE} marks in a minute"
        try:
            problem = self.on_mark(" ".join(mark.split()))
            return await problem if inspect.isawaitable(problem) else problem
        except MMAEdgeError as error:
            return str(error)


class _Client:
    """One connection and what waits for it. It is told what it was too slow for."""

    def __init__(self, socket: web.WebSocketResponse, source: str | None, room: int) -> None:
        self.source = source
        self.backlog: Backlog[str] = Backlog(room)
        self._socket, self._told = socket, 0
        self._loop = asyncio.get_running_loop()
        self._filled = asyncio.Event()
        self._woken = False

    def put(self, text: str) -> None:
        """From any thread; at most one call waits in the loop, whatever the client does."""
        self.backlog.put(text)
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._filled.set)

    async def end(self) -> None:
        """Say goodbye; it has CLOSE_S to answer."""
        await self._socket.close(code=1001, message=b"the run has ended")

    async def send(self) -> None:
        """Send what is there, as fast as the client reads; ends with the connection."""
        with contextlib.suppress(ConnectionError, RuntimeError):  # it is gone; who listens to it sees that, too
            while True:
                await self._filled.wait()
                self._filled.clear()
                self._woken = False  # before it is emptied: what comes from now on wakes again
                while text := self._next():
                    await self._socket.send_str(text)

    def _next(self) -> str | None:
        """The next message, None for none."""
        if count := self.backlog.dropped - self._told:
            self._told += count
            return json.dumps({"type": "dropped", "count": count})
        return self.backlog.take()
