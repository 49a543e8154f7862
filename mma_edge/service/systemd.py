"""Tells systemd how this service fares, as sd_notify(3) does: one datagram per message, without a library."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

USEC_PER_S = 1_000_000


class Notifier:
    """Sends to the socket that systemd named; where it named none, everything here does nothing."""

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        """`address` is a path, or a name in the abstract namespace after an @. `watchdog_s`: systemd ends a service
        that has not said for so long that it is alive; None: it does not."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = watchdog_s

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Notifier:
        """What systemd put into the environment (Type=notify, WatchdogSec=). A socket that is no Unix socket, and a
        watchdog of another process, are left alone."""
        address = environment.get("NOTIFY_SOCKET", "")
        if not hasattr(socket, "AF_UNIX") or not address.startswith(("/", "@")):
            return cls()
        usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
        ours = usec.isdigit() and int(usec) > 0 and pid in ("", str(os.getpid()))
        return cls(address, int(usec) / USEC_PER_S if ours else None)

    def ready(self) -> None:
        """The sources are open and the model is loaded."""
        self._send("READY=1")

    def status(self, line: str) -> None:
        """One line for `systemctl status`."""
        self._send("STATUS=" + " ".join(line.split()))

    def alive(self) -> None:
        """For the watchdog."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # systemd that does not listen, or not in time, must neither end nor hold up a run.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            channel.sendto(message.encode(), self._address)
