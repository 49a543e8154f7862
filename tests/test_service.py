"""A run as a service: systemd hears how it fares, /healthz says it, a stuck thread and a suspend are noticed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import one_line

from mma_edge.errors import OutputError, UsageError
from mma_edge.service import HealthServer, Notifier, Watch, health_address
from mma_edge.service.health import MOST_CLIENTS
from mma_edge.service.watch import SILENT_S, STUCK_S

UNIT = Path(__file__).parents[1] / "docs" / "mma-edge.service"
unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="systemd is Linux's")


@dataclass
class Worker:
    """A thread's progress."""

    name: str = "engine"
    waiting: bool = True
    since_s: float = 0.0
    ended: bool = False


@dataclass
class Camera:
    """A source's progress."""

    name: str = "camera:0"
    last_frame_s: float | None = None
    last_sound_s: float | None = None
    answers: int = 0
    error: str | None = None


class Clocks:
    """This machine's, for a test to move."""

    def __init__(self) -> None:
        self.monotonic_s, self.slept_s = 1000.0, 50.0

    def boot(self) -> float:
        return self.monotonic_s + self.slept_s

    def monotonic(self) -> float:
        return self.monotonic_s


class Systemd:
    """The other end of $NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        """All that came since the last call."""
        messages = []
        try:
            while True:
                messages.append(self._socket.recv(4096).decode())
        except BlockingIOError:
            return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Systemd, str]]:
    if request.param == "abstract" and not sys.platform.startswith("linux"):
        pytest.skip("abstract sockets are Linux's")
    address = f"@mma-edge-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    server = Systemd(address)
    yield server, address
    server.close()


@unix
def test_systemd_hears_the_beginning_the_watchdog_the_state_and_the_end(systemd: tuple[Systemd, str]) -> None:
    server, address = systemd
    notifier = Notifier.of({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000", "WATCHDOG_PID": str(os.getpid())})
    with Watch([Worker()], [Camera(answers=7)], notifier=notifier):
        time.sleep(0.5)
    heard = server.heard()
    assert heard[0] == "READY=1" and heard[-1] == "STOPPING=1"
    assert heard.count("WATCHDOG=1") >= 3
    assert any(line.startswith("STATUS=1 of 1 sources deliver, 7 answers") for line in heard)


@unix
@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "1000000"},
        {"NOTIFY_SOCKET": "vsock:2:1234"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "none"},
    ],
    ids=str,
)
def test_without_systemd_or_with_one_that_does_not_listen_nothing_happens(environment: dict) -> None:
    notifier = Notifier.of(environment)
    for tell in (notifier.ready, notifier.alive, notifier.stopping, lambda: notifier.status("two\nlines")):
        tell()


@unix
def test_a_watchdog_of_another_process_is_left_alone() -> None:
    assert Notifier.of({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}).watchdog_s is None
    assert Notifier.of({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "30000000"}).watchdog_s == 30.0


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


class Heard(Notifier):
    """A notifier that keeps what it would send."""

    def __init__(self) -> None:
        super().__init__("", None)
        self.sent: list[str] = []

    def _send(self, message: str) -> None:
        self.sent.append(message)


def test_a_stuck_thread_ends_the_watchdogs_signs_and_is_said_once_with_all_stacks(
    clocks: Clocks, capfd: pytest.CaptureFixture
) -> None:
    worker, heard, said = Worker(since_s=clocks.monotonic_s), Heard(), []
    watch = Watch([worker], [Camera()], said.append, notifier=heard, clock=clocks.monotonic, boot=clocks.boot)

    def pass_time(seconds: int) -> int:
        """How many signs of life there were."""
        heard.sent.clear()
        for _ in range(seconds):
            clocks.monotonic_s += 1.0
            watch.look()
        return heard.sent.count("WATCHDOG=1")

    assert pass_time(200) == 200  # it waits for work: that is no standstill
    worker.waiting, worker.since_s = False, clocks.monotonic_s
    assert pass_time(200) == STUCK_S
    assert len(said) == 1 and "engine is stuck" in said[0] and not watch.health().healthy
    assert "test_service.py" in capfd.readouterr().err
    worker.since_s = clocks.monotonic_s  # it got on
    assert pass_time(5) == 5
    worker.ended = True
    assert pass_time(200) == 200


def test_a_process_that_was_stopped_is_not_stuck(clocks: Clocks) -> None:
    """As by SIGSTOP, or a debugger: nothing had time, the watch neither."""
    worker, heard = Worker(waiting=False, since_s=clocks.monotonic_s), Heard()
    watch = Watch([worker], [Camera()], notifier=heard, clock=clocks.monotonic, boot=clocks.boot)
    clocks.monotonic_s += 1000.0
    watch.look()
    assert "WATCHDOG=1" in heard.sent and watch.health().stuck == ()


def test_a_suspend_is_noticed_once_and_a_jump_of_the_wall_clock_not_at_all(
    clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept, said = [], []
    watch = Watch([], [Camera()], said.append, slept.append, clock=clocks.monotonic, boot=clocks.boot)
    wall_s = time.time()
    for jump_s in (0.0, 3600.0, -3600.0):
        monkeypatch.setattr(time, "time", lambda jump_s=jump_s: wall_s + jump_s)
        clocks.monotonic_s += 1.0
        clocks.slept_s += 0.5  # less than what counts
        watch.look()
    assert slept == [] and said == []
    clocks.slept_s += 7200.0
    for _ in range(3):
        clocks.monotonic_s += 1.0
        watch.look()
    assert slept == [7200.0] and len(said) == 1 and watch.health().suspends == 1


def test_a_run_is_healthy_as_long_as_one_source_delivers(clocks: Clocks) -> None:
    one, two = Camera("one"), Camera("two", error="it was unplugged")
    watch = Watch([], [one, two], clock=clocks.monotonic, boot=clocks.boot)
    clocks.monotonic_s += SILENT_S - 1
    assert watch.health().healthy  # it has just begun
    clocks.monotonic_s += 2
    assert not watch.health().healthy
    two.last_sound_s = clocks.monotonic_s - 5
    health = watch.health()
    assert health.healthy and health.to_dict()["sources"]["two"] == {"silent_s": 5.0, "error": "it was unplugged"}
    assert health.line().startswith("1 of 2 sources deliver")


def answer(port: int, path: str = "/healthz", **headers: str) -> tuple[int, dict]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_healthz_says_503_when_nothing_delivers_and_nothing_else_is_served(clocks: Clocks) -> None:
    camera = Camera(last_frame_s=clocks.monotonic_s)
    watch = Watch([], [camera], clock=clocks.monotonic, boot=clocks.boot)
    with HealthServer(("127.0.0.1", 0), watch.health) as server:
        assert answer(server.port) == (200, watch.health().to_dict())
        assert answer(server.port, "/healthz?x")[0] == 200
        assert answer(server.port, "/")[0] == 404
        assert answer(server.port, Host="evil.example:80")[0] == 421
        clocks.monotonic_s += SILENT_S + 1
        status, body = answer(server.port)
        assert status == 503 and body["healthy"] is False
        with pytest.raises(OutputError, match="cannot listen") as caught:
            HealthServer(("127.0.0.1", server.port), watch.health)
        one_line(caught.value)


def test_clients_that_hold_the_line_do_not_keep_others_away_for_long(
    clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mma_edge.service.health.CLIENT_S", 0.5)
    watch = Watch([], [Camera()], clock=clocks.monotonic, boot=clocks.boot)
    threads = threading.active_count()
    with HealthServer(("127.0.0.1", 0), watch.health) as server:
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2 * MOST_CLIENTS)]
        for client in held:
            client.sendall(b"GET /heal")
        time.sleep(0.3)
        assert threading.active_count() <= threads + 1 + 2 * MOST_CLIENTS
        time.sleep(0.7)
        assert answer(server.port)[0] == 200
        for client in held:
            client.close()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("8080", ("127.0.0.1", 8080)),
        (":8080", ("127.0.0.1", 8080)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("[::1]:80", ("::1", 80)),
        ("localhost:80", ("localhost", 80)),
    ],
)
def test_an_address_is_of_this_machine_unless_it_says_otherwise(text: str, place: tuple[str, int]) -> None:
    assert health_address(text) == place


@pytest.mark.parametrize("text", ["", "host", "70000", "host:", "::1:80", "http://host:80", "127.0.0.1:80/healthz"])
def test_what_is_no_address_is_one_line(text: str) -> None:
    with pytest.raises(UsageError, match="--health") as caught:
        health_address(text)
    one_line(caught.value)


def test_an_address_of_another_machine_is_one_line() -> None:
    with pytest.raises(OutputError, match="cannot listen") as caught:
        HealthServer(("203.0.113.7", 0), lambda: None)
    one_line(caught.value)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no SIGUSR1 on this system")
def test_sigusr1_writes_every_stack_and_the_process_goes_on() -> None:
    program = """
import os, signal, threading
from mma_edge.service import allow_stack_dumps
allow_stack_dumps()
def deep_inside():
    threading.Event().wait(20)
threading.Thread(target=deep_inside, daemon=True).start()
os.kill(os.getpid(), signal.SIGUSR1)
print("goes on")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "goes on\n" and "deep_inside" in done.stderr and done.stderr.count("hread 0x") >= 2


def directives(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", "["))]
    return [tuple(line.split("=", 1)) for line in lines]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (apt: systemd)")
@pytest.mark.parametrize(
    ("spoil", "good"),
    [(lambda text: text, True), (lambda text: text.replace("WatchdogSec", "WatchdogSecs"), False)],
    ids=["as it is", "spoiled"],
)
def test_systemd_knows_every_line_of_the_unit(tmp_path: Path, spoil: Callable[[str], str], good: bool) -> None:
    unit = tmp_path / UNIT.name
    text = UNIT.read_text()
    command = dict(directives(text))["ExecStart"].split()[0]
    unit.write_text(spoil(text.replace(command, sys.executable)))  # that program is there
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    complaints = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (complaints == []) == good, done.stderr


def test_the_unit_restarts_what_may_get_better_and_its_watchdog_is_faster_than_its_patience() -> None:
    unit = dict(directives(UNIT.read_text()))
    assert unit["Type"] == "notify" and unit["Restart"] == "on-failure"
    never = set(map(int, unit["RestartPreventExitStatus"].split()))
    assert never.isdisjoint({1, 3, 4}) and {2, 5, 6, 11} <= never  # devices and streams come back
    assert "--overwrite" not in unit["ExecStart"]
    assert 2 <= int(unit["WatchdogSec"]) <= STUCK_S


def test_each_row_of_the_guide_names_tests_that_are_there() -> None:
    guide = (UNIT.parent / "service.md").read_text()
    rows = guide.split("| what goes wrong")[1].split("## What is unproven")[0].splitlines()[2:]
    cells = [re.sub(r"\(.*?\)|`.*?`", "", row.split("|")[3]) for row in rows if row.startswith("|")]
    named = [part.strip().partition(": ") for cell in cells for part in cell.split(";") if "test_" in part]
    assert len(cells) >= 18 and len(named) >= 22
    for file, _, words in named:
        names = re.findall(r"def (test_\w+)", Path(__file__).with_name(f"{file}.py").read_text())
        for word in filter(None, words.split(", ")):
            assert any(word.strip() in name for name in names), f"{file}: {word}"
