"""Each attack on the page is refused: foreign names and pages, old tokens, paths, floods, too many viewers."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import numpy as np
import psutil
import pytest
from dashboard_viewer import FACES, Model, Viewer, dashboard, emotion, frame, view
from live_sources import PacedSource
from test_web import ask

from mma_edge.dashboard.dashboard import Dashboard
from mma_edge.dashboard.messages import MAX_BYTES, read_command
from mma_edge.dashboard.viewers import MAX_VIEWERS
from mma_edge.live import LivePipeline
from mma_edge.pipeline import StreamOptions
from mma_edge.session.folder import MANIFEST
from mma_edge.sources import named_sources
from mma_edge.types import Frame
from mma_edge.web.announced import Place
from mma_edge.web.binding import Binding
from mma_edge.web.visitors import MAX_BAD, BadMessageError

pytestmark = pytest.mark.wall_clock

START = {"type": "start", "name": "", "video": False, "blur_faces": False, "sound": False}
BAD = [
    "", "{", "[]", "1", "null", "[" * 3000, '{"type": 1}', '{"type": "go"}', '{"type": "ack"}',
    '{"type": "ack", "number": "1"}', '{"type": "ack", "number": true}', '{"type": "ack", "number": 1e999}',
    '{"type": "ack", "number": -1}', json.dumps(START | {"name": "x" * 81}), json.dumps(START | {"name": None}),
    json.dumps(START | {"video": "yes"}), '{"type": "start"}', '{"type": "mark"}',
    '{"type": "mark", "text": "x", "key": "0"}', '{"type": "mark", "text": "x", "key": "12"}',
    '{"type": "mark", "text": "x", "key": []}', json.dumps({"type": "mark", "text": "x" * 501, "key": None}),
]  # fmt: skip
SOCKET_HEADERS = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
}


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def page(tmp_path: Path, notes: list[str]) -> Iterator[Dashboard]:
    with dashboard(tmp_path, notes) as opened:
        yield opened


def keep(root: Path, name: str = "2026-01-01_00-00-00") -> Path:
    """A session in the folder of sessions, and a secret beside it."""
    folder = root / "sessions" / name
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_text('{"name": "n", "started": "2026-01-01T00:00:00Z", "state": "ended", "run_s": 1}')
    (folder / "records.jsonl").write_text("{}\n")
    (root / "secret.txt").write_text("secret")
    (root / "sessions" / "secret.txt").write_text("secret")
    return folder


@pytest.mark.parametrize("path", ["/", "/view", "/sessions/2026-01-01_00-00-00", "/visit", "/none"])
def test_a_foreign_name_for_this_machine_opens_nothing(page: Dashboard, path: str, tmp_path: Path) -> None:
    keep(tmp_path)
    for host in ("evil.example", "127.0.0.1.evil.example", f"evil.example:{page.server.port}"):
        assert ask(page.server, path, Host=host).status == 421
        assert ask(page.server, path, Host=host, Origin=f"http://{host}", **SOCKET_HEADERS).status == 421


@pytest.mark.parametrize("origin", [None, "null", "https://evil.example", "http://localhost:1", "http://127.0.0.1"])
def test_a_foreign_page_neither_looks_on_nor_posts(page: Dashboard, origin: str | None) -> None:
    foreign = {} if origin is None else {"Origin": origin}
    assert ask(page.server, "/login", "POST", **foreign).status == 403
    if foreign:  # every browser names the origin of a WebSocket
        assert ask(page.server, "/view", **SOCKET_HEADERS, **foreign).status == 403
    own = {"Origin": page.server.link().rstrip("/")}
    assert ask(page.server, "/view", "POST", **own).status == 405
    assert ask(page.server, "/sessions/x", "DELETE", **own).status in (404, 405)


def test_beyond_this_machine_nothing_but_the_empty_page_is_there_without_the_token_of_this_start(
    tmp_path: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMA_EDGE_STATE", str(tmp_path / "state"))
    name = keep(tmp_path).name
    tokens = []
    for _ in range(2):
        options = StreamOptions(notify=notes.append)
        with Dashboard(Place(Binding("0.0.0.0", 0)), Model(), options, tmp_path / "sessions") as page:
            own = {"Origin": f"https://127.0.0.1:{page.server.port}"}
            (link,) = (tmp_path / "state").glob("*.link")
            tokens.append(link.read_text().strip().partition("#token=")[2])
            assert ask(page.server, "/").status == 200 and name not in ask(page.server, "/").text
            for path in ("/view", f"/sessions/{name}", f"/sessions/{name}/records.jsonl"):
                assert ask(page.server, path, **own).status == 401
                assert ask(page.server, path, **own, **SOCKET_HEADERS).status == 401
            for old in ("", "x" * 43, *tokens[:-1]):
                assert ask(page.server, "/login", "POST", old, **own).status == 401
            answer = ask(page.server, "/login", "POST", tokens[-1], **own)
            cookie = answer.headers["Set-Cookie"].split(";")[0]
            assert ask(page.server, f"/sessions/{name}/records.jsonl", Cookie=cookie).text == "{}\n"
    assert len(set(tokens)) == 2 and not any(token in line for token in tokens for line in notes)


@pytest.mark.parametrize(
    "path",
    [
        "/sessions/..", "/sessions/../secret.txt", "/sessions/%2e%2e", "/sessions/%2e%2e%2fsecret.txt",
        "/sessions/2026-01-01_00-00-00/..%2f..%2fsecret.txt", "/sessions/2026-01-01_00-00-00/%2e%2e",
        "/sessions/2026-01-01_00-00-00/..%5csecret.txt", "/sessions//etc/passwd", "/sessions/%2fetc%2fpasswd",
        "/sessions/secret.txt", "/sessions/2026-01-01_00-00-00%00", "/sessions/2026-01-01_00-00-00/link.txt",
        "/sessions/linked", "/sessions/linked/secret.txt", "/sessions/2026-01-01_00-00-00/folder",
        "/sessions/2026-01-01_00-00-00/.hidden", "/sessions/" + "a" * 5000,
    ],
)  # fmt: skip
def test_no_path_of_a_client_leads_out_of_a_session(page: Dashboard, tmp_path: Path, path: str) -> None:
    folder = keep(tmp_path)
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / ".hidden").write_text("secret")
    (folder / "folder").mkdir()
    (tmp_path / MANIFEST).write_text("{}")
    (tmp_path / "sessions" / "linked").symlink_to(tmp_path)
    answer = ask(page.server, path)
    assert answer.status in (400, 404) and "secret" not in answer.text and "root:" not in answer.text
    whole = ask(page.server, "/sessions/2026-01-01_00-00-00")
    assert whole.status == 200 and b"secret" not in whole.data and b"records.jsonl" in whole.data


def test_a_name_given_to_a_session_is_never_a_path(page: Dashboard, tmp_path: Path) -> None:
    names = ["../../evil", "/etc/evil", "..", "C:\\evil", "a\0b", "\u202eevil", "x" * 80, ".", "con", "%2e%2e"]

    async def keep_all(viewer: Viewer) -> None:
        for name in names:
            await viewer.tell(**START | {"name": name})
            await viewer.until(lambda message: message.news.get("session"))
            await viewer.tell(type="stop")
            await viewer.until(lambda message: message.news.get("session", 1) is None)

    view(page, keep_all)
    folders = list((tmp_path / "sessions").iterdir())
    assert len(folders) == len(names) and list(tmp_path.iterdir()) == [tmp_path / "sessions"]
    assert all((folder / MANIFEST).is_file() for folder in folders)


def test_a_thousand_malformed_messages_are_said_once_a_kind_and_leave_nothing(
    page: Dashboard, notes: list[str], capfd: pytest.CaptureFixture
) -> None:
    sent = 0

    async def bother(viewer: Viewer) -> None:
        nonlocal sent
        await viewer.take()
        texts = [*BAD, b"bytes", "x" * (MAX_BYTES + 1)]
        start = sent
        while sent < start + 50:
            text = texts[sent % len(texts)]
            sent += 1
            try:
                await (viewer.socket.send_bytes(text) if isinstance(text, bytes) else viewer.socket.send_str(text))
            except (ConnectionError, aiohttp.ClientError):
                return
        while (await viewer.socket.receive(timeout=5)).type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            pass

    process = psutil.Process()
    used: list[tuple[int, int]] = []
    for _ in range(40):
        view(page, bother)
        used.append((process.num_threads(), process.num_fds()))
    assert sent >= 1000
    told = [line for line in notes if "a visitor sent" in line]
    assert 5 < len(told) == len(set(told)) == len(page._complaints.counts)
    assert sum(page._complaints.counts.values()) > 40 * 3
    until_s = time.monotonic() + 5
    while page._viewers.count or process.num_fds() > used[0][1]:
        assert time.monotonic() < until_s, "a viewer is left"
        time.sleep(0.02)

    async def look(viewer: Viewer) -> None:
        await viewer.take()

    view(page, look)
    assert capfd.readouterr() == ("", "")


def test_who_sends_nothing_good_is_shown_out(page: Dashboard) -> None:
    async def bother(viewer: Viewer) -> None:
        for _ in range(MAX_BAD + 1):
            await viewer.socket.send_str("{")
        while (await viewer.socket.receive(timeout=5)).type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            pass
        assert viewer.socket.closed

    view(page, bother)


def test_a_thousand_malformed_requests_are_survived_and_written_nowhere(
    page: Dashboard, notes: list[str], capfd: pytest.CaptureFixture
) -> None:
    host = f"Host: 127.0.0.1:{page.server.port}\r\n".encode()
    before = len(notes)
    junk = [
        b"\x16\x03\x01\x00", b"GET\r\n\r\n", b"\0" * 99, b"GET /view HTTP/9.9\r\n\r\n",
        b"POST /login HTTP/1.1\r\n" + host + b"Content-Length: -1\r\n\r\n",
        b"GET /view HTTP/1.1\r\n" + host + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"GET /sessions/%ff%fe/%00 HTTP/1.1\r\n" + host + b"\r\n", b"GET / HTTP/1.1\r\n" + host + b"X: " + b"x" * 9000,
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n" + host + b"\r\nzz",
        b"DELETE /sessions/x HTTP/1.1\r\n" + host + b"\r\n",
    ]  # fmt: skip
    for number in range(1000):
        with socket.create_connection(("127.0.0.1", page.server.port)) as plain:
            plain.sendall(junk[number % len(junk)])
    assert ask(page.server, "/").status == 200
    assert capfd.readouterr() == ("", "") and len(notes) == before


def test_more_pages_than_there_is_room_for_are_refused_and_the_others_stay(page: Dashboard) -> None:
    refused, inside, done = 0, 0, 0

    async def look(viewer: Viewer) -> None:
        nonlocal refused, inside, done
        await viewer.take()
        inside += 1
        while inside < MAX_VIEWERS:
            await asyncio.sleep(0.01)
        own = page.server.link().rstrip("/")
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with aiohttp.ClientSession() as session:
                await session.ws_connect(f"{own}/view", headers={"Origin": own})
        refused += caught.value.status == 503
        page.write(emotion(time.monotonic()))
        await viewer.until(lambda message: message.news.get("answers"))
        done += 1
        while done < MAX_VIEWERS:
            await asyncio.sleep(0.01)

    view(page, *[look] * MAX_VIEWERS)
    assert refused == MAX_VIEWERS
    view(page, *[lambda viewer: viewer.take()])


def test_viewers_that_read_nothing_hold_up_neither_the_run_nor_each_other_and_cost_no_memory(page: Dashboard) -> None:
    noise = bytes(os.urandom(640 * 360 * 3))
    picture = np.frombuffer(noise, np.uint8).reshape(360, 640, 3)  # a JPEG of some 300 KiB
    process, longest_s, got = psutil.Process(), 0.0, 0

    async def deaf(viewer: Viewer) -> None:
        """Takes nothing out of its socket."""
        viewer.socket._response.connection.transport.pause_reading()
        await asyncio.sleep(2.5)
        viewer.socket._response.connection.transport.resume_reading()

    async def runs(viewer: Viewer) -> None:
        nonlocal longest_s, got
        before = 0
        for number in range(50):
            start_s = time.monotonic()
            page.frame("cam", Frame(picture, number / 25, start_s), FACES)
            page.write(emotion(number / 25))
            longest_s = max(longest_s, time.monotonic() - start_s)
            got += len((await viewer.take()).news.get("answers", []))
            await asyncio.sleep(0.02)
            if number == 10:
                gc.collect()
                before = process.memory_info().rss
        assert process.memory_info().rss - before < 30e6

    view(page, runs, *[deaf] * 5)
    assert longest_s < 0.05 and got >= 45


def test_marks_and_sessions_come_no_faster_than_a_person_makes_them(page: Dashboard, tmp_path: Path) -> None:
    async def hurry(viewer: Viewer) -> None:
        for _ in range(30):
            await viewer.tell(**START)
            await viewer.tell(type="stop")
        await viewer.hears("sessions in a minute")
        for _ in range(310):
            await viewer.tell(type="mark", text="x", key="1")
        await viewer.hears("marks in a minute")

    view(page, hurry)
    assert len(list((tmp_path / "sessions").iterdir())) <= 11


def test_no_password_of_a_source_is_in_any_message(tmp_path: Path, notes: list[str]) -> None:
    said = "rtsp://user:pa55word@127.0.0.1/x?key=pa55word"
    model = Model()
    options = StreamOptions(notify=notes.append)
    (name,) = named_sources([said])
    with (
        Dashboard(Place(Binding(port=0)), model, options, tmp_path / "sessions") as page,
        LivePipeline(model, {name: PacedSource(dies_s=0.0)}, options) as running,
    ):
        page.begin(running)
        page.notice(f"{said} does not answer")
        page.write(emotion(4.0, source=name))
        running.sources[0].error = f"cannot open {said}"

        async def look(viewer: Viewer) -> None:
            got = ""
            while '"run"' not in got or '"answers"' not in got or '"notices"' not in got:
                got += json.dumps((await viewer.take()).news)
            assert "pa55word" not in got and "127.0.0.1/x" in got

        view(page, look)


@pytest.mark.parametrize("text", [text for text in BAD if "-1" not in text])  # that one is read, and then refused
def test_what_no_page_sends_is_not_understood(text: str) -> None:
    with pytest.raises(BadMessageError):
        read_command(text)


def test_a_frame_of_no_size_ends_nothing_and_is_said_once(page: Dashboard, notes: list[str]) -> None:
    async def look(viewer: Viewer) -> None:
        await viewer.take()
        for _ in range(2):
            page.frame("cam", Frame(np.zeros((0, 0, 3), np.uint8), 0.0, time.monotonic()), [])
            await asyncio.sleep(0.2)
        page.frame("cam", frame(1.0), FACES)
        assert await viewer.until(lambda message: message.jpegs)

    view(page, look)
    assert sum("a picture cannot be shown" in line for line in notes) == 1
