"""Over HTTP: GET /healthz is 200 while a run is healthy, 503 where it is not; GET /metrics is for Prometheus."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from http import HTTPStatus

from mma_edge.errors import OutputError, UsageError
from mma_edge.service.watch import Health

_EXPECTED = "a port of this machine such as 8080, or ADDRESS:PORT"
_HOST = re.compile(r"(localhost|[0-9.]+|\[[0-9a-fA-F:.]+\])(:[0-9]+)?")
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_CLIENTS = 4
"""More at once are sent away: a probe asks, and goes."""
CLIENT_S = 3.0
"""Longest time for one client to ask and to take the answer."""


def health_address(text: str) -> tuple[str, int]:
    """Address and port of `--health`: "8080" and ":8080" are 127.0.0.1's. UsageError for what is neither."""
    match = re.fullmatch(r"(?:(?:\[([0-9a-fA-F:.]+)\]|([^:\s\[\]]*)):)?([0-9]{1,5})", text)
    if not match or int(match[3]) > 65535:
        raise UsageError(f"--health {text}", _EXPECTED, "others on the network may ask with 0.0.0.0:PORT")
    return match[1] or match[2] or "127.0.0.1", int(match[3])


class HealthServer(AbstractContextManager):
    """Answers until its `with` block ends. It tells names of sources and counts, never an address's password."""

    def __init__(
        self, address: tuple[str, int], health: Callable[[], Health], metrics: Callable[[], str] | None = None
    ) -> None:
        """Listen at (address, port), port 0 for any; `metrics` gives the text of /metrics. OutputError where that is
        not possible."""
        try:
            self._server = _Server(address, health, metrics)
        except (OSError, UnicodeError) as error:
            place = "{}:{}".format(*address)
            reason = getattr(error, "strerror", None) or str(error)
            hint = "choose another port, or an address of this machine"
            raise OutputError(f"--health cannot listen at {place} ({reason})", "a free port", hint) from error
        self.port: int = self._server.server_address[1]
        self.place = f"[{address[0]}]:{self.port}" if ":" in address[0] else f"{address[0]}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="mma-edge-health", daemon=True)
        self._thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(http.server.ThreadingHTTPServer):
    """Few clients at a time, each for a short time."""

    daemon_threads = True
    block_on_close = False

    def __init__(
        self, address: tuple[str, int], health: Callable[[], Health], metrics: Callable[[], str] | None
    ) -> None:
        self.health, self.metrics = health, metrics
        self.free = threading.BoundedSemaphore(MOST_CLIENTS)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

    def process_request(self, request: socket.socket, client_address: tuple) -> None:
        if not self.free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: socket.socket, client_address: tuple) -> None:
        # A limit for the whole visit, not for each read: one byte now and then must not hold the place.
        timer = threading.Timer(CLIENT_S, _cut, (request,))
        timer.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            timer.cancel()
            self.free.release()

    def handle_error(self, request: socket.socket, client_address: tuple) -> None:
        """A client that went away is no news."""


def _cut(request: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it may have gone
        request.shutdown(socket.SHUT_RDWR)


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = CLIENT_S
    server_version, sys_version = "mma-edge", ""

    def do_GET(self) -> None:
        # A page of another site can have its own name lead here, and then read the answer.
        if not _HOST.fullmatch(self.headers.get("Host", "localhost")):
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, {"expected": "localhost, or an IP address"})
            return
        path, metrics = self.path.partition("?")[0], self.server.metrics
        if path == "/metrics" and metrics:
            self._send(HTTPStatus.OK, metrics().encode(), METRICS_TYPE)
            return
        if path != "/healthz":
            self._answer(HTTPStatus.NOT_FOUND, {"expected": "/healthz or /metrics" if metrics else "/healthz"})
            return
        health = self.server.health()
        self._answer(HTTPStatus.OK if health.healthy else HTTPStatus.SERVICE_UNAVAILABLE, health.to_dict())

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, status: HTTPStatus, body: dict) -> None:
        self._send(status, json.dumps(body).encode() + b"\n", "application/json")

    def _send(self, status: HTTPStatus, data: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(data)))):
            self.send_header(name, value)
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *unused: object) -> None:
        """A probe every few seconds must not fill the log."""
