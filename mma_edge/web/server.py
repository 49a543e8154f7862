"""The thread of a web server, with an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Awaitable, Callable

from aiohttp import web

from mma_edge.errors import SourceError, UsageError
from mma_edge.web.binding import bracketed
from mma_edge.web.security import Access, Gate

STOP_S = 2.0
"""The thread ends at the latest after this time."""
_BODY_BYTES = 4096
"""Largest body of a request."""
_CLEANUP_S = 1.0
MOST_CONNECTIONS, IDLE_S = 128, 30.0
"""Connections of all visitors together, one more is closed at once; and how long one stays without a request."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LOG = logging.getLogger("mma_edge.web")
# What a library says about a visitor's bad data is for who sets up logging, not for the terminal.
for _name in ("mma_edge.web", "aiohttp", "aiortc", "aioice"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


class _Entrance(asyncio.Protocol):
    """Hands a connection on to aiohttp's server, unless it is one too many: aiohttp sets no limit."""

    def __init__(self, server: web.Server) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.Transport) -> None:
        if len(self._server.connections) >= MOST_CONNECTIONS:
            transport.abort()
            return
        protocol = self._server()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


class WebServer:
    """Serves an application until it is closed. The constructor returns once it listens."""

    def __init__(self, access: Access, set_up: Callable[[web.Application], None]) -> None:
        """`set_up` adds routes; it runs in the server's thread. SourceError where it cannot listen there."""
        self._access, self._set_up = access, set_up
        self._mounted: dict[str, Handler] = {}
        self._socket = self._listening()
        self.port: int = self._socket.getsockname()[1]
        self.loop = asyncio.new_event_loop()
        self._stop_asked = asyncio.Event()
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="web-server", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            raise self._error

    def link(self, fragment: str = "") -> str:
        """The address of the page, with what only the page itself gets to see behind a #."""
        place = f"{bracketed(self._access.binding.reachable)}:{self.port}"
        return f"{self._access.scheme}://{place}/" + (f"#{fragment}" if fragment else "")

    def mount(self, path: str, handler: Handler) -> None:
        """Answer GET of a further path, from any thread; UsageError where it is taken."""
        if self._mounted.setdefault(path, handler) is not handler:
            raise UsageError(f"two sources share the page's {path}", "one", "leave all browsers but one out")

    def unmount(self, path: str) -> None:
        self._mounted.pop(path, None)

    def mounts(self, path: str) -> bool:
        return path in self._mounted

    async def _mounted_get(self, request: web.Request) -> web.StreamResponse:
        handler = self._mounted.get(request.path)
        if handler is None:
            raise web.HTTPNotFound
        return await handler(request)

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Run a function in the server's thread, soon; after the end nothing happens."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(function, *args)

    def close(self) -> None:
        """End the thread and all connections. Safe to call twice."""
        self.call(self._stop_asked.set)
        self._thread.join(STOP_S)

    @property
    def closed(self) -> bool:
        return not self._thread.is_alive()

    def _listening(self) -> socket.socket:
        binding = self._access.binding
        family = socket.AF_INET6 if ":" in binding.address else socket.AF_INET
        try:
            return socket.create_server((binding.address, binding.port), family=family, backlog=64)
        except (OSError, OverflowError) as error:
            reason = os.strerror(error.errno) if getattr(error, "errno", None) else error
            what = f"cannot listen on {bracketed(binding.address)}:{binding.port} ({reason})"
            raise SourceError(what, "an address of this machine and a free port", "0 takes any free port") from error

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.set_exception_handler(lambda _, context: _LOG.error("%s", context, exc_info=context.get("exception")))
        try:
            self.loop.run_until_complete(self._serve())
        except BaseException as error:  # the constructor raises it
            self._error = error
        finally:
            with contextlib.suppress(Exception):
                self._end_tasks()
            self._socket.close()
            self.loop.close()
            self._started.set()

    async def _serve(self) -> None:
        app = web.Application(client_max_size=_BODY_BYTES)
        Gate(self._access, self.port).install(app)
        self._set_up(app)
        app.router.add_get("/{path:.+}", self._mounted_get)
        runner = web.AppRunner(app, access_log=None, logger=_LOG, shutdown_timeout=_CLEANUP_S, keepalive_timeout=IDLE_S)
        await runner.setup()
        context = self._access.certificate and self._access.certificate.context
        handshake_s = IDLE_S if context else None
        listening = await self.loop.create_server(
            lambda: _Entrance(runner.server), sock=self._socket, ssl=context, ssl_handshake_timeout=handshake_s
        )
        try:
            self._started.set()
            await self._stop_asked.wait()
        finally:
            listening.close()
            await runner.cleanup()

    def _end_tasks(self) -> None:
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.wait(tasks, timeout=_CLEANUP_S / 2) if tasks else asyncio.sleep(0))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
