"""Where a server listens, and which names it answers to."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from mma_edge.errors import UsageError

LOOPBACK, PORT = "127.0.0.1", 8765
_FORMS = re.compile(r"(\[[^\]]*\]|[^:\[\]]+)?(?::([0-9]{1,5}))?")
_HOST_HEADER = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?")
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Binding:
    """An address and a port of this machine; port 0 takes any that is free."""

    address: str = LOOPBACK
    port: int = PORT

    @classmethod
    def of(cls, text: str) -> Binding:
        """Read "", "PORT", "ADDRESS" or "ADDRESS:PORT", an IPv6 address in brackets; UsageError for others."""
        match = _FORMS.fullmatch(f":{text}" if text.isdigit() else text)
        address = (match[1] or LOOPBACK).strip("[]") if match else ""
        try:
            ipaddress.ip_address(LOOPBACK if address == "localhost" else address)
            port = int(match[2] or PORT)
            if port > 65535:
                raise ValueError
        except ValueError:
            expected = "a port, an IP address of this machine, or ADDRESS:PORT"
            raise UsageError(f"'{text}' is no place to listen", expected, "0.0.0.0:8765 listens everywhere") from None
        return cls(LOOPBACK if address == "localhost" else address, port)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return ipaddress.ip_address(self.address).is_loopback

    @property
    def everywhere(self) -> bool:
        return ipaddress.ip_address(self.address).is_unspecified

    @property
    def reachable(self) -> str:
        """The address to write into a link: of all addresses the one that other machines most likely reach."""
        return (outgoing_address() or LOOPBACK) if self.everywhere else self.address

    def answers_to(self, host: str, names: tuple[str, ...] = ()) -> bool:
        """Whether a Host header may name this server; `names` are further names, "*.example.org" included.

        Without this a page of a foreign site could let its own name lead to this machine (DNS rebinding) and read what
        only this machine may read. An address as such cannot be made to lead elsewhere.
        """
        match = _HOST_HEADER.fullmatch(host.lower())
        if not match:
            return False
        name = match[1].strip("[]")
        if name in _LOCAL_NAMES:
            return True
        if self.loopback:
            return name in names
        try:
            ipaddress.ip_address(name)
            return True
        except ValueError:
            own = (*machine_names(), *names)
            return name in own or "*." + name.partition(".")[2] in own


def bracketed(address: str) -> str:
    """An address as links have it."""
    return f"[{address}]" if ":" in address else address


def machine_names() -> tuple[str, ...]:
    """What this machine calls itself, and what its neighbours call it (mDNS)."""
    name = socket.gethostname().lower()
    short = name.partition(".")[0]
    return tuple(dict.fromkeys((name, short, f"{short}.local"))) if name else ()


def outgoing_address() -> str:
    """The address from which this machine reaches others; "" without a network. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address that no machine has (RFC 5737)
            return probe.getsockname()[0]
        except OSError:
            return ""
