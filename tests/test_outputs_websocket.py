"""`/ws/records`: each client gets each record, a slow one is told what it lost, and none holds up the run."""

from __future__ import annotations

import asyncio
import http.server
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from chromium import EXECUTABLE, Chromium

from mma_edge.errors import OutputError
from mma_edge.outputs import websocket
from mma_edge.outputs.websocket import MOST_CLIENTS, MOST_ERRORS, PATH, RecordsSocket
from mma_edge.types import Emotion
from mma_edge.web.binding import Binding
from mma_edge.web.certificate import made
from mma_edge.web.security import Access, Page
from mma_edge.web.server import WebServer

pytestmark = pytest.mark.wall_clock

LABELS = ("happy", "sad")


class Running:
    labels, names = LABELS, ("left", "right")


def answer(number: int, source: str = "left") -> Emotion:
    return Emotion(number, number + 4.0, 1, None, ("audio",), LABELS, np.array([0.9, 0.1]), 12.0, source=source)


@contextmanager
def served(records: RecordsSocket, access: Access | None = None) -> Iterator[WebServer]:
    threads = set(threading.enumerate())
    server = WebServer(access or Access(Binding(port=0)), records.set_up)
    try:
        yield server
    finally:
        server.close()
        assert server.closed and set(threading.enumerate()) <= threads and records.clients == 0


@pytest.fixture
def records() -> Iterator[RecordsSocket]:
    with RecordsSocket() as socket_:
        socket_.begin(Running())
        yield socket_


def visit(server: WebServer, what: Callable[[aiohttp.ClientWebSocketResponse], Awaitable[Any]], query: str = "") -> Any:
    """Connect as a program does, without an origin."""

    async def connect() -> Any:
        async with aiohttp.ClientSession() as session, session.ws_connect(address(server) + query) as client:
            return await what(client)

    return asyncio.run(connect())


def address(server: WebServer) -> str:
    return f"http://127.0.0.1:{server.port}{PATH}"


async def heard(client: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    return json.loads(await client.receive_str(timeout=5))


def test_a_client_gets_a_hello_and_then_each_record_of_its_source(records: RecordsSocket) -> None:
    async def listen(client: aiohttp.ClientWebSocketResponse) -> list[dict[str, Any]]:
        messages = [await heard(client)]
        for number in range(5):
            records.write(answer(number))
            records.write(answer(number, "right"))
        records.notice("a camera is back")
        records.__exit__()
        while messages[-1]["type"] != "end":
            messages.append(await heard(client))
        return messages

    with served(records) as server:
        hello, *others = visit(server, listen)
        assert hello == {"type": "hello", "schema": 1, "labels": ["happy", "sad"], "sources": ["left", "right"]}
        assert [each["type"] for each in others] == ["record"] * 10 + ["notice", "end"]
        assert others[1] == {"type": "record", **answer(0, "right").to_dict()}
        _, *others = visit(server, listen, "?source=right")
        assert [each["start_s"] for each in others if each["type"] == "record"] == list(range(5))
        assert all(each.get("source") in (None, "right") for each in others)
        with pytest.raises(aiohttp.WSServerHandshakeError, match="404"):
            visit(server, listen, "?source=none")


def test_who_is_slow_is_told_what_it_lost_and_the_newest_are_kept() -> None:
    records = RecordsSocket(queue=50)
    records.begin(Running())
    written = 4000

    async def listen(client: aiohttp.ClientWebSocketResponse) -> tuple[int, list[float]]:
        await heard(client)
        start_s = time.monotonic()
        for number in range(written):
            records.write(answer(number))
        assert time.monotonic() - start_s < 5
        lost, got = 0, []
        while not got or got[-1] < written - 1:
            message = await heard(client)
            if message["type"] == "dropped":
                lost += message["count"]
            else:
                got.append(message["start_s"])
        return lost, got

    with served(records) as server:
        lost, got = visit(server, listen)
    assert lost + len(got) == written and lost > 0 and got == sorted(set(got))


def test_a_client_that_never_reads_is_closed_and_its_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "HEARTBEAT_S", 0.5)
    records = RecordsSocket(queue=50)
    records.begin(Running())
    with served(records) as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(
            f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        until_s = time.monotonic() + 5
        while records.clients == 0 and time.monotonic() < until_s:
            time.sleep(0.01)
        assert records.clients == 1
        (one,) = records._clients
        slowest_s = 0.0
        while records.clients and time.monotonic() < until_s + 10:
            start_s = time.monotonic()
            for _ in range(100):
                records.write(answer(0))
            slowest_s = max(slowest_s, time.monotonic() - start_s)
            assert len(one.backlog) <= 50
            time.sleep(0.02)
        assert records.clients == 0 and slowest_s < 1


def test_a_mark_reaches_whoever_keeps_marks_and_what_is_none_is_an_error(records: RecordsSocket) -> None:
    marks: list[str] = []

    async def talk(client: aiohttp.ClientWebSocketResponse) -> list[dict[str, Any]]:
        await heard(client)
        await client.send_str('{"type": "mark", "text": "first"}')
        answers = [await heard(client)]
        records.on_mark = marks.append
        await client.send_str('{"type": "mark", "text": " she\\n laughs "}')
        records.on_mark = marks.append
        for bad in ("{", "[]", '{"type": "mark"}', '{"type": "mark", "text": ""}', "[" * 3000, "null"):
            await client.send_str(bad)
            answers.append(await heard(client))
        await client.send_bytes(b"\0")
        return [*answers, await heard(client)]

    with served(records) as server:
        answers = visit(server, talk)
        assert {each["type"] for each in answers} == {"error"} and len(answers) == 8
        assert "nobody keeps marks" in answers[0]["text"] and marks == ["she laughs"]

        def full(text: str) -> None:
            raise OutputError("the disk is full", hint="free some")

        records.on_mark = full

        async def once(client: aiohttp.ClientWebSocketResponse) -> str:
            await heard(client)
            await client.send_str('{"type": "mark", "text": "x"}')
            return (await heard(client))["text"]

        assert "disk is full" in visit(server, once)

        async def slowly(text: str) -> str:
            await asyncio.sleep(0.05)
            return f"no session keeps {text}"

        records.on_mark = slowly
        assert visit(server, once) == "no session keeps x"
        records.on_mark = marks.append
        monotonous = [visit(server, lambda client: flood(client, 50)) for _ in range(3)]
        assert any("marks in a minute" in text for texts in monotonous for text in texts)
        assert len(marks) <= websocket.MARKS_PER_MINUTE + 1


async def flood(client: aiohttp.ClientWebSocketResponse, count: int) -> list[str]:
    await heard(client)
    for _ in range(count):
        await client.send_str('{"type": "mark", "text": "x"}')
    await asyncio.sleep(0.2)
    texts = []
    while not client.closed:
        try:
            texts.append(json.loads(await client.receive_str(timeout=0.2))["text"])
        except (asyncio.TimeoutError, TypeError, aiohttp.WSMessageTypeError):
            break
    return texts


def test_a_thousand_messages_that_are_none_end_their_client_only(
    records: RecordsSocket, capfd: pytest.CaptureFixture
) -> None:
    async def shout(client: aiohttp.ClientWebSocketResponse) -> int | None:
        for number in range(100):
            try:
                await client.send_str("no" * (number % 50))
            except (ConnectionError, aiohttp.ClientError):
                break
        while (await client.receive(timeout=5)).type is aiohttp.WSMsgType.TEXT:
            pass
        return client.close_code

    async def too_long(client: aiohttp.ClientWebSocketResponse) -> int | None:
        await heard(client)
        await client.send_str("x" * 5000)
        await client.receive(timeout=5)
        return client.close_code

    with served(records) as server:
        assert {visit(server, shout) for _ in range(10)} == {1008} and MOST_ERRORS < 100
        assert visit(server, too_long) == 1009
        assert visit(server, heard)["type"] == "hello"
    assert capfd.readouterr() == ("", "")


def test_clients_come_and_go_and_there_are_never_too_many(records: RecordsSocket) -> None:
    async def crowd() -> None:
        async with aiohttp.ClientSession() as session:
            clients = [await session.ws_connect(address(server)) for _ in range(MOST_CLIENTS)]
            with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                await session.ws_connect(address(server))
            for client in clients:
                await client.close()

    with served(records) as server:
        for _ in range(3):
            asyncio.run(crowd())
            until_s = time.monotonic() + 5
            while records.clients and time.monotonic() < until_s:
                records.write(answer(0))
                time.sleep(0.01)
            assert records.clients == 0


def test_beyond_this_machine_a_program_needs_the_token_and_a_page_its_own_origin(
    records: RecordsSocket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMA_EDGE_STATE", str(tmp_path / "state"))
    binding, token = Binding("0.0.0.0", 0), "t" * 43

    async def status(**headers: str) -> int:
        async with aiohttp.ClientSession() as session:
            try:
                url = f"https://127.0.0.1:{server.port}{PATH}"
                async with session.ws_connect(url, ssl=False, headers=headers) as client:
                    return 101 if (await heard(client))["type"] == "hello" else 0
            except aiohttp.WSServerHandshakeError as error:
                return error.status

    with served(records, Access(binding, made(binding), token)) as server:
        right = {"Authorization": f"Bearer {token}"}
        assert asyncio.run(status(**right)) == 101
        assert asyncio.run(status()) == 403
        assert asyncio.run(status(Authorization=f"Bearer {token[:-1]}")) == 403
        assert asyncio.run(status(Origin="https://evil.example", **right)) == 403
        assert asyncio.run(status(Host="evil.example", **right)) == 421
        assert asyncio.run(status(Origin=f"https://127.0.0.1:{server.port}")) == 401


@pytest.mark.live
@pytest.mark.skipif(EXECUTABLE is None, reason="Chromium is not installed")
def test_a_browser_on_the_servers_own_page_hears_the_records_and_on_another_page_nothing(
    records: RecordsSocket, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text("<!doctype html><title>t</title>")
    marks: list[str] = []
    records.on_mark = marks.append

    def set_up(app: web.Application) -> None:
        records.set_up(app)
        app.router.add_get("/", Page(tmp_path / "index.html").serve)

    other = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=other.serve_forever, daemon=True).start()
    server = WebServer(Access(Binding(port=0)), set_up)
    script = f"""new Promise((done) => {{
        const socket = new WebSocket("ws://127.0.0.1:{server.port}{PATH}"), heard = []
        socket.onerror = () => done(["refused"])
        socket.onmessage = ({{data}}) => {{
            heard.push(JSON.parse(data))
            if (heard.length == 1) socket.send(JSON.stringify({{type: "mark", text: "hello from a page"}}))
            if (heard.length == 2) done([heard[0].type, heard[1].label])
        }}
    }})"""
    try:
        with Chromium(server.link()) as browser:
            over = threading.Event()
            ticking = threading.Thread(target=tick, args=(records, over))
            ticking.start()
            assert browser.run(script) == ["hello", "happy"] and marks == ["hello from a page"]
            browser.call("Page.navigate", url=f"http://127.0.0.1:{other.server_address[1]}/")
            browser.until(f"location.port === '{other.server_address[1]}'")
            assert browser.run(script) == ["refused"]
            over.set()
            ticking.join()
    finally:
        other.shutdown()
        other.server_close()
        server.close()


def tick(records: RecordsSocket, over: threading.Event) -> None:
    while not over.wait(0.05):
        records.write(answer(0))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *unused: object) -> None:
        """Not into the output of the tests."""
