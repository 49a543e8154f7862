"""Who may use a server: the right Host, the right Origin, the token; and what its answers tell a browser to refuse."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from mma_edge.errors import UsageError
from mma_edge.web.binding import Binding
from mma_edge.web.certificate import Certificate

LOGIN = "/login"
_OPEN = ("/", LOGIN)
"""Paths that need no login: the page, which holds no secret, and what takes the token."""
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(self)",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_POLICY = (
    "default-src 'none'; img-src 'self' data: blob:; media-src 'self' blob:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_LINKED = re.compile(r'<(script) src="([^"]+)"></script>|<link rel="(style)sheet" href="([^"]+)">')
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


@dataclass(frozen=True)
class Access:
    """Who may come in. Beyond this machine nobody without the token, and nothing that is not encrypted."""

    binding: Binding
    certificate: Certificate | None = None
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.binding.loopback and not (self.certificate and self.token):
            what = f"listening on {self.binding.address} without TLS and a token"
            raise UsageError(what, "both, because other machines reach it", "listen on 127.0.0.1 only")

    @property
    def scheme(self) -> str:
        return "https" if self.certificate else "http"


def new_token() -> str:
    """256 bits, made anew for each start: an old link opens nothing."""
    return secrets.token_urlsafe(32)


class Gate:
    """Checks every request before anything else looks at it."""

    def __init__(self, access: Access, port: int) -> None:
        self._access = access
        self._cookie = f"mma-edge-{port}"  # browsers keep the cookies of a host's ports together
        self._session = secrets.token_urlsafe(32)

    def install(self, app: web.Application) -> None:
        """Guard an application. Its pages are to be made by `Page`."""
        app.middlewares.append(self._guard)
        app.on_response_prepare.append(_add_headers)
        app.router.add_post(LOGIN, self._login)

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        access, hosts = self._access, request.headers.getall("Host", [])
        names = access.certificate.names if access.certificate else ()
        if len(hosts) != 1 or not access.binding.answers_to(hosts[0], names):
            raise web.HTTPMisdirectedRequest(text="this server has another name\n")
        changes = request.method not in ("GET", "HEAD") or "Upgrade" in request.headers
        if changes and not self._own_page(request, f"{access.scheme}://{hosts[0]}"):
            raise web.HTTPForbidden(text="only the server's own page may do this\n")
        if request.path not in _OPEN and not self._known(request):
            raise web.HTTPUnauthorized(text="open the link that mma-edge made\n")
        return await handler(request)

    def _own_page(self, request: web.Request, own: str) -> bool:
        """Whether a request that changes something comes from the server's own page, or from no page at all: a browser
        names the origin of each WebSocket and of what a page sends, and lets no page of another site show a token."""
        origins = request.headers.getall("Origin", [])
        if origins:
            return origins == [own]
        socket = request.method == "GET" and request.headers["Upgrade"].lower() == "websocket"
        return self._shows_token(request) or (socket and self._access.binding.loopback)

    def _known(self, request: web.Request) -> bool:
        shown = request.cookies.get(self._cookie, "").encode("utf-8", "surrogateescape")
        own = not self._access.token or hmac.compare_digest(shown, self._session.encode())
        return own or self._shows_token(request)

    def _shows_token(self, request: web.Request) -> bool:
        """Whether it has the header that programs without a cookie send: Authorization: Bearer TOKEN."""
        shown, token = request.headers.getall("Authorization", []), self._access.token
        if len(shown) != 1 or not token or not shown[0].startswith("Bearer "):
            return False
        text = shown[0].removeprefix("Bearer ").encode("utf-8", "surrogateescape")
        return hmac.compare_digest(text, token.encode())

    async def _login(self, request: web.Request) -> web.Response:
        """Take the token, in the body, and give a cookie for it: no address that anybody logs holds the token. Who has
        the cookie already, or needs none, may come in, too."""
        shown, token = await request.read(), self._access.token
        response = web.Response(status=204)
        if token and hmac.compare_digest(shown, token.encode()):
            encrypted = self._access.certificate is not None
            response.set_cookie(self._cookie, self._session, httponly=True, samesite="Strict", secure=encrypted)
        elif not self._known(request):
            raise web.HTTPUnauthorized(text="the link is of an earlier start\n")
        return response


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Content-Security-Policy", _POLICY)
    response.headers.pop("Server", None)


class Page:
    """A page that is served as one document, whose own scripts and styles are the only ones that a browser will run.

    Scripts and style sheets that the file links to, by paths relative to it, are put in their places.
    """

    def __init__(self, path: Path) -> None:
        def joined(link: re.Match[str]) -> str:
            kind = link[1] or link[3]
            return f"<{kind}>{(path.parent / (link[2] or link[4])).read_text(encoding='utf-8')}</{kind}>"

        self._text = _LINKED.sub(joined, path.read_text(encoding="utf-8"))
        allowed: dict[str, list[str]] = {"script": [], "style": []}
        for kind, text in _INLINE.findall(self._text):
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            allowed[kind].append(f"'sha256-{digest}'")
        # A sound processor (AudioWorklet) is a script of its own; the page makes it from its own text.
        self._policy = (
            f"{_POLICY}; script-src {' '.join(allowed['script'])} blob:; style-src {' '.join(allowed['style'])}"
        )

    async def serve(self, request: web.Request) -> web.Response:
        """The handler of its path."""
        headers = {"Content-Security-Policy": self._policy}
        return web.Response(text=self._text, content_type="text/html", headers=headers)


class RateLimit:
    """At most so many in a minute."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._times: deque[float] = deque(maxlen=per_minute)
        self._clock = clock

    def allows(self) -> bool:
        """Whether one more is allowed; it then counts."""
        now_s = self._clock()
        if len(self._times) == self._times.maxlen and now_s - self._times[0] < 60:
            return False
        self._times.append(now_s)
        return True
