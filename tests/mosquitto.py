"""A broker of its own for a test: Debian's mosquitto on 127.0.0.1, to be killed, frozen and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

PROGRAM = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
needs_mosquitto = pytest.mark.skipif(PROGRAM is None, reason="mosquitto is not installed: apt-get install mosquitto")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Mosquitto:
    """Not started yet; use it in a `with` block."""

    def __init__(self, folder: Path, *lines: str, password: str = "") -> None:
        """`lines` of its configuration beside the listener's; with a `password` it wants that, of the user "me"."""
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        config = [f"listener {self.port} 127.0.0.1", *lines]
        if os.geteuid() == 0:
            config.append("user root")  # it would become one who may not read the test's folder
        if password:
            file = folder / "passwords"
            subprocess.run(["mosquitto_passwd", "-b", "-c", file, "me", password], check=True, capture_output=True)
            config += ["allow_anonymous false", f"password_file {file}"]
        else:
            config.append("allow_anonymous true")
        self._config.write_text("\n".join(config) + "\n")
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> Mosquitto:
        return self

    def start(self) -> Mosquitto:
        self._process = subprocess.Popen(
            [PROGRAM, "-c", self._config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(self._listens)
        return self

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def __exit__(self, *exc_info: object) -> None:
        self.kill()


class Listener:
    """A client of the broker that keeps what it hears: all, and the newest that the broker keeps of each topic."""

    def __init__(self, port: int, set_up: Callable[[paho.Client], None] = lambda client: None) -> None:
        self.heard: list[tuple[str, str]] = []
        self.client = paho.Client(CallbackAPIVersion.VERSION2)
        self.client.on_message = lambda client, data, message: self.heard.append(
            (message.topic, message.payload.decode())
        )
        subscribed = threading.Event()
        self.client.on_subscribe = lambda *unused: subscribed.set()
        set_up(self.client)
        self.client.connect("127.0.0.1", port)
        self.client.subscribe("#", 1)
        self.client.loop_start()
        assert subscribed.wait(5)

    def kept(self) -> dict[str, str]:
        """The newest of each topic."""
        return dict(self.heard)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()
        self.client._reset_sockets()  # those that it wakes its own thread with


def wait_for(true: Callable[[], bool], seconds: float = 10.0) -> None:
    until_s = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until_s, "it does not come"
        time.sleep(0.02)
