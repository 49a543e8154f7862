"""Opens a stream of the network with PyAV, and says in one line without the password why that fails."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from dataclasses import dataclass

import av
from av.container import InputContainer

from mma_edge.errors import DependencyError, MMAEdgeError, SourceError
from mma_edge.sources.network.address import ENCRYPTED, Address

OPEN_S = 10.0
"""Longest time for a server to answer."""
READ_S = {"http": 20.0, "https": 20.0}
"""Longest silence of what delivers its data in pieces of several seconds; of the others `PUSHED_READ_S`."""
PUSHED_READ_S = 1.5
"""PyAV ends a read after up to twice this time, so a dead link is seen within five seconds."""
_PROBE_S = 3.0
_SRT_HINT = (
    "pip install 'av<16', which has it, or relay it: srt-live-transmit 'srt://HOST:PORT' udp://127.0.0.1:5000 "
    "and run udp://127.0.0.1:5000"
)


@dataclass(frozen=True)
class Limits:
    """Seconds after which a server counts as silent."""

    open_s: float
    read_s: float

    @classmethod
    def of(cls, scheme: str) -> Limits:
        return cls(OPEN_S, READ_S.get(scheme, PUSHED_READ_S))


def open_container(address: Address, limits: Limits) -> InputContainer:
    """Connect, and find out what the stream holds. MMAEdgeError where that fails; it never holds the password."""
    start_s = time.monotonic()
    try:
        return av.open(
            _with_query(address),
            options=_options(address, limits),
            timeout=(limits.open_s, limits.read_s),
            metadata_errors="ignore",
        )
    except (OSError, ValueError) as error:  # PyAV's errors are OSErrors
        failure = explained(address, error, limits.open_s, time.monotonic() - start_s)
    # Outside the block: the library's text has the address with its password, and must not become this one's context.
    raise failure


def _with_query(address: Address) -> str:
    """The address; UDP takes its options in it. A full buffer costs packets, not the stream."""
    if address.scheme != "udp":
        return address.url
    return address.url + ("&" if "?" in address.url else "?") + "fifo_size=50000&overrun_nonfatal=1"


def _options(address: Address, limits: Limits) -> dict[str, str]:
    """FFmpeg's options. It ignores those that a protocol has not."""
    silence_us = str(round(1e6 * max(limits.open_s, limits.read_s)))
    options = {"flags": "low_delay", "probesize": "500000", "analyzeduration": "1000000"}
    if address.scheme in ("rtsp", "rtsps"):
        options |= {"rtsp_transport": "tcp", "timeout": silence_us}
    else:
        options |= {"rw_timeout": silence_us}
    if address.scheme in ("http", "https"):
        # A playlist may name any address: only the network, never a file. Of a live one the last piece but one comes
        # first, so that the next is always there in time.
        options |= {"protocol_whitelist": "http,https,httpproxy,tcp,tls,crypto", "live_start_index": "-2"}
    if address.scheme in ENCRYPTED:
        options |= {"tls_verify": "1"} | ({"ca_file": file} if (file := ssl.get_default_verify_paths().cafile) else {})
    return options


def explained(address: Address, error: Exception, limit_s: float, took_s: float) -> MMAEdgeError:
    """Why a server did not answer, or stopped."""
    shown, place = address.shown, f"{address.host}:{address.port}"
    if isinstance(error, (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)):
        hint = "check user and password; keep the password in a variable: 'rtsp://USER:${NAME}@HOST/PATH'"
        return SourceError(f"{shown} refuses the login", "a user and password that it knows", hint)
    if isinstance(error, av.error.HTTPNotFoundError):
        hint = "check what follows the host: the camera's manual names it"
        return SourceError(f"{shown} does not exist on that server (404)", "the path of a stream", hint)
    if isinstance(error, av.error.ProtocolNotFoundError):
        if address.scheme == "srt":
            return DependencyError("this PyAV has no SRT", hint=_SRT_HINT)
        return DependencyError(f"this PyAV has no {address.scheme}, or the stream leads to what is not allowed")
    if isinstance(error, ConnectionRefusedError):
        hint = "check host and port, and that the camera or server is on"
        return SourceError(f"{shown} cannot be opened: nothing listens at {place}", "a running server", hint)
    if took_s >= 0.9 * limit_s or isinstance(error, (av.error.ExitError, TimeoutError)):
        hint = "check host, port and firewall, and that the camera or server is on"
        return SourceError(f"{shown} did not answer for {took_s:.0f} s", "a server that sends a stream", hint)
    if reason := _unresolved(address):
        return SourceError(
            f"{shown} cannot be opened: there is no host {address.host} ({reason})", hint="check the name"
        )
    if reason := _distrusted(address):
        hint = "for a camera's own certificate: export SSL_CERT_FILE=camera.pem"
        return SourceError(f"the certificate of {place} is not trusted ({reason})", "one that this machine knows", hint)
    if isinstance(error, av.error.InvalidDataError):
        return SourceError(
            f"{shown} answers, but with nothing that FFmpeg can read", "a media stream", "check its path"
        )
    reason = getattr(error, "strerror", None) or type(error).__name__
    return SourceError(f"{shown} cannot be opened ({address.hide(reason)})", "a media stream", "check the address")


def _unresolved(address: Address) -> str:
    """Why the host's name is none; "" where it is one. FFmpeg says only that something was wrong."""
    try:
        socket.getaddrinfo(address.host or None, address.port)
    except (OSError, UnicodeError) as error:
        return str(getattr(error, "strerror", None) or "not a name")
    return ""


def _distrusted(address: Address) -> str:
    """Why the server's certificate is not trusted; "" where it is, or where that is not the question."""
    if address.scheme not in ENCRYPTED:
        return ""
    with contextlib.suppress(OSError):
        try:
            with socket.create_connection((address.host, address.port), _PROBE_S) as plain:
                ssl.create_default_context().wrap_socket(plain, server_hostname=address.host).close()
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
    return ""
