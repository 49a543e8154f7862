"""Addresses of streams, whose passwords are never shown."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, quote, urlsplit

from mma_edge.errors import UsageError, without_passwords

PORTS = {
    "rtsp": 554, "rtsps": 322, "rtmp": 1935, "rtmps": 443, "http": 80, "https": 443, "udp": None, "tcp": None,
    "srt": None,
}  # fmt: skip
"""The schemes that are understood, with their usual ports; None: the address must name one."""
ENCRYPTED = ("rtsps", "rtmps", "https")

_EXPECTED = "an address such as 'rtsp://user:${CAM_PASSWORD}@192.168.1.20/stream'"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class Address:
    """Where a stream is. Only `url` and `secrets` hold the password, and no `repr` shows them."""

    shown: str  # for messages and records: without login, query and the values of variables
    scheme: str
    host: str  # "" where any will do (udp)
    port: int
    url: str = field(repr=False)  # for FFmpeg alone
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(
        cls,
        text: str,
        environment: Mapping[str, str] = os.environ,
        ports: Mapping[str, int | None] = PORTS,
        expected: str = _EXPECTED,
    ) -> Address:
        """Read an address in which ${NAME} stands for the value of an environment variable.

        Args:
            ports: the schemes that are understood; an address of something else than a stream has others.
            expected: an example of one, for messages.

        Raises:
            UsageError: an unknown scheme or variable, no host, or a port that is none.
        """
        shown, scheme = without_passwords(text), text.partition(":")[0].lower()
        if "://" not in text:
            raise UsageError(f"the address has one slash after {scheme}:", expected)
        if scheme not in ports:
            close = difflib.get_close_matches(scheme, ports, n=1)
            other = "other streams: gst:PIPELINE" if ports is PORTS else f"an example: {expected}"
            hint = f"perhaps {close[0]}:// is meant" if close else other
            raise UsageError(f"{scheme}:// addresses are not understood", f"one of {', '.join(ports)}", hint)
        url, secrets = _expanded(text, environment)
        parts = _split(url)
        if parts is None:
            hint = "write @ : / ? and # in a password as %40 %3A %2F %3F and %23"
            raise UsageError(f"{shown} cannot be read as an address", expected, hint)
        port = parts.port or ports[scheme]
        if not parts.hostname and scheme != "udp":
            raise UsageError(f"{shown} names no host", expected)
        if port is None:
            raise UsageError(f"{shown} names no port", f"{scheme}://HOST:PORT")
        secrets = {*secrets, parts.password or "", parts.query}
        # The longest first: one may be a part of another. Of one or two signs, text without them would say nothing.
        hidden = sorted((secret for secret in secrets if len(secret) > 2), key=len, reverse=True)
        return cls(shown, scheme, parts.hostname or "", port, url, tuple(hidden))

    def hide(self, text: str) -> str:
        """A library's text without this address's secrets."""
        text = text.replace(self.url, self.shown)
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return without_passwords(text)


def is_address(text: str) -> bool:
    """Whether it begins as an address does, of a known scheme or not."""
    return bool(_SCHEME.match(text)) or text.partition(":/")[0].lower() in PORTS


def _split(url: str) -> SplitResult | None:
    """None for what is no address. The library's own error would show the password."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # looked at here: it raises for a text that is no number
        return parts
    except ValueError:
        return None


def _expanded(text: str, environment: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """The address with the variables' values, and these as they may appear in messages."""
    secrets: list[str] = []
    login_end = text.rfind("@")

    def value(match: re.Match) -> str:
        name = match[1]
        if not environment.get(name):
            what = f"the address names ${{{name}}}, which is not set"
            raise UsageError(what, "an environment variable", f"export {name}=...")
        plain = environment[name]
        # In a login every sign is allowed; FFmpeg decodes it again.
        put = quote(plain, safe="") if match.start() < login_end else plain
        secrets.extend((plain, put))
        return put

    return _VARIABLE.sub(value, text), tuple(secrets)
