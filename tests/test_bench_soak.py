"""Promises of `mma-bench soak`: slope and thirds are right, the result is read back, a link fails as it is told to."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_bench_report import latency_result

from mma_benchmarks.cli import main
from mma_benchmarks.report import save
from mma_benchmarks.result import read_result
from mma_benchmarks.soak.measure import slope_per_h, thirds
from mma_benchmarks.soak.schema import Disturbance, Soak, SoakSample, SoakSettings
from mma_benchmarks.soak.stream import Link
from mma_edge.errors import DataError

SAMPLES = [
    SoakSample(10.0 * n, 300 + n / 360, 16, 13 + (n > 50), 2 * n, n // 30, None if n < 3 else 50.0, 90.0 + n, 1.5)
    for n in range(91)
]
AGES = [(0.5 * n + 7.1, 100.0 if n < 1200 else 300.0) for n in range(1800)]


def test_a_mebibyte_an_hour_is_found_and_each_third_has_its_own_answers() -> None:
    assert slope_per_h(SAMPLES) == pytest.approx(1.0)
    first, middle, last = thirds(SAMPLES, AGES, began_s=7.0)
    assert (first.answers, middle.answers, last.answers) == (600, 600, 600)
    assert (first.age_p95_ms, last.age_p95_ms) == (100.0, 300.0)
    assert (first.descriptors, last.descriptors) == (13, 14) and first.memory_mib < last.memory_mib


def test_a_third_without_answers_has_no_age() -> None:
    (first, *_) = thirds(SAMPLES, [], began_s=0.0)
    assert first.answers == 0 and first.age_p95_ms is None


@pytest.fixture
def soak() -> Soak:
    return Soak(
        settings=SoakSettings(15.0, 60.0, 10.0, 120.0, 0.5, [480, 320]),
        thirds=thirds(SAMPLES, AGES, 7.0),
        memory_slope_mib_per_h=1.0,
        cpu_share=0.2,
        reconnects=3,
        notices=6,
        exit_code=0,
        children_left=0,
        disturbances=[Disturbance(60.0, "the link is cut", 0.0, 2.5), Disturbance(120.0, "the link is cut", 0.0, None)],
        samples=SAMPLES,
    )


def test_what_is_written_is_read_back_and_shown(soak: Soak, tmp_path: Path) -> None:
    result = dataclasses.replace(latency_result(), kind="soak", results=soak)
    path, markdown, page = save(result, tmp_path)
    assert read_result(path) == result
    assert "| the link is cut | 2 | 2.5 | 2.5 | 1 |" in markdown.read_text() and "<svg" in page.read_text()
    assert main(["report", str(path), str(path), "--output", str(tmp_path / "both")]) == 0
    data = json.loads(path.read_text())
    data["results"]["thirds"].pop()
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match="not three thirds"):
        read_result(path)


@contextlib.contextmanager
def echo() -> Iterator[int]:
    """A server that sends back what it gets; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while data := client.recv(100):
                client.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_a_link_leads_on_is_cut_is_silent_and_sends_away() -> None:
    with echo() as port, Link(port) as link:

        def connect() -> socket.socket:
            client = socket.create_connection(("127.0.0.1", link.port))
            client.settimeout(0.3)
            return client

        with connect() as client:
            client.sendall(b"one")
            assert client.recv(10) == b"one"
            link.flows.clear()
            client.sendall(b"two")
            with pytest.raises(TimeoutError):
                client.recv(10)
            link.flows.set()
            assert client.recv(10) == b"two"
            link.cut()
            assert client.recv(10) == b""
        link.up = False
        with connect() as client, contextlib.suppress(ConnectionError):
            assert client.recv(10) == b""


@pytest.mark.parametrize(
    ("argv", "text"),
    [(["--minutes", "0.1"], "--minutes"), (["--every", "5"], "--every"), (["--minutes", "nan"], "--minutes")],
)
def test_bad_input_is_one_line(argv: list[str], text: str, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    assert main(["soak", *argv, "--output", str(tmp_path)]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.live
def test_half_a_minute_of_a_real_stream(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    code = main(["soak", "--minutes", "0.5", "--every", "15", "--backend", "cpu", "--output", str(tmp_path)])
    if code == 11:
        pytest.skip(capsys.readouterr().err)
    (path,) = tmp_path.glob("*.json")
    soak = read_result(path).results
    assert code == 0 and soak.exit_code == 0 and soak.children_left == 0
    (only,) = soak.disturbances
    assert only.back_s is not None and soak.reconnects == 1 and soak.notices == 2
    assert sum(third.answers for third in soak.thirds) > 20
    assert str(tmp_path) not in path.read_text().replace(f"--output {tmp_path}", "")
