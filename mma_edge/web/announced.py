"""A server whose link is told to the user, and to nobody else."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from mma_edge.errors import OutputError, UsageError
from mma_edge.files import state_root
from mma_edge.types import Notify
from mma_edge.web.binding import Binding
from mma_edge.web.certificate import given, made, write_secret
from mma_edge.web.security import Access, new_token
from mma_edge.web.server import WebServer


@dataclass(frozen=True)
class Place:
    """Where a page is to be, and what it proves itself with."""

    binding: Binding
    cert: Path | None = None  # PEM; None beyond this machine: one is made
    key: Path | None = None  # PEM; None: it is in the file of the certificate

    def __post_init__(self) -> None:
        if self.key and not self.cert:
            raise UsageError("--tls-key without --tls-cert", "both", "or one file with certificate and key: --tls-cert")


class AnnouncedServer(WebServer):
    """Serves a page and says where it is; beyond this machine with TLS and a token that is made anew."""

    def __init__(self, place: Place, set_up: Callable[[web.Application], None], notify: Notify, name: str) -> None:
        """`name` begins what is said, and the name of the file that holds a link with a token. MMAEdgeError where
        nothing can listen there, or the certificate does not work."""
        binding = place.binding
        certificate = given(place.cert, place.key) if place.cert else None if binding.loopback else made(binding)
        self._token = None if binding.loopback else new_token()
        self._link_file: Path | None = None
        super().__init__(Access(binding, certificate, self._token), set_up)
        try:
            self._announce(notify, name)
        except BaseException:
            self.close()
            raise
        if certificate and not place.cert:
            notify(f"{name}: this machine signed its own certificate; compare SHA-256 {certificate.fingerprint}")

    def _announce(self, notify: Notify, name: str) -> None:
        """Say where the page is. The token opens it, so it goes to a terminal or a file, but not into a log."""
        link = self.link()
        if self._token:
            secret = self.link(f"token={self._token}")
            self._link_file = path = state_root() / f"browser-{self.port}.link"
            try:
                write_secret(path, f"{secret}\n".encode())
            except OSError as error:
                raise OutputError(f"cannot write {path}: {error.strerror}", "a file for the page's link") from error
            link = secret if sys.stderr.isatty() else f"{link} (the link with its token is in {path})"
        notify(f"{name}: open {link}")

    def close(self) -> None:
        super().close()
        if self._link_file is not None:
            with contextlib.suppress(OSError):
                self._link_file.unlink()
