"""Promises of the page that shows a run: what viewers get, and that none of them holds up the records."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from conftest import failure_line
from dashboard_viewer import FACES, Message, Model, Viewer, dashboard, emotion, frame, view
from live_sources import PacedSource
from PIL import Image
from test_web import ask

from mma_edge.cli import main
from mma_edge.dashboard import board as boards
from mma_edge.dashboard import pictures
from mma_edge.dashboard.board import Board
from mma_edge.dashboard.dashboard import Dashboard
from mma_edge.dashboard.pictures import LONGEST_SIDE, PERIOD_S
from mma_edge.dashboard.state import about, progress
from mma_edge.errors import OutputError
from mma_edge.live import FilesPipeline
from mma_edge.pipeline import StreamOptions
from mma_edge.pipeline.neutral import NeutralReference
from mma_edge.sources import CaptureOptions, open_source
from mma_edge.web.announced import Place
from mma_edge.web.binding import Binding

pytestmark = pytest.mark.wall_clock


@pytest.fixture
def notes() -> list[str]:
    return []


def test_a_picture_comes_with_the_boxes_found_in_it_and_answers_as_they_are_recorded(
    tmp_path: Path, notes: list[str]
) -> None:
    with dashboard(tmp_path, notes) as page:
        answers = [emotion(4.0), emotion(4.5, share=0.6), emotion(4.5, track=None)]

        async def look(viewer: Viewer) -> None:
            first = await viewer.take()
            assert first.news["about"]["labels"] == ["happy", "sad"] and first.news["about"]["precision"] == "fp32"
            assert first.news["about"]["camera"] is False
            for answer in answers:
                page.write(answer)
            page.frame("cam", frame(4.51), FACES)
            got: list[dict] = []
            while True:
                message = await viewer.take()
                got += message.news.get("answers", [])
                if "frames" in message.news:
                    break
            (shown,) = message.news["frames"]
            assert shown["time_s"] == 4.51 and shown["size"] == [1280, 720] and shown["faces"][0]["track_id"] == 1
            assert shown["faces"][0]["box"] == [100, 50, 300, 250]
            assert Image.open(io.BytesIO(message.jpegs["cam"])).size == (LONGEST_SIDE, 360)
            assert got == [answer.to_dict() for answer in answers]

        view(page, look)


def test_who_comes_later_gets_the_last_minutes_at_once(tmp_path: Path, notes: list[str]) -> None:
    with dashboard(tmp_path, notes) as page:
        for number in range(20):
            page.write(emotion(number / 2))
        page.notice("cam: something happened")

        async def look(viewer: Viewer) -> None:
            first = await viewer.take()
            assert [record["end_s"] for record in first.news["answers"]] == [number / 2 for number in range(20)]
            assert first.news["notices"][0]["text"] == "cam: something happened"

        view(page, look, look)


def test_answers_are_kept_for_minutes_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    board = Board(lambda: None, lambda: now[0])
    for _ in range(2 * int(boards.KEPT_S)):
        now[0] += 1.0
        board.answer({"end_s": now[0]})
    assert abs(len(json.loads(board.since(0).text)["answers"]) - boards.KEPT_S) <= 1
    for _ in range(2 * boards.MOST_ANSWERS):
        board.answer({})
    assert len(json.loads(board.since(0).text)["answers"]) == boards.MOST_ANSWERS
    assert board.since(board.since(0).version) is None


def test_a_slow_viewer_gets_the_newest_picture_and_delays_nobody(tmp_path: Path, notes: list[str]) -> None:
    taken: dict[str, list[float]] = {"fast": [], "slow": []}
    longest_s = 0.0
    with dashboard(tmp_path, notes) as page:

        def run() -> None:
            nonlocal longest_s
            for number in range(50):
                start_s = time.monotonic()
                page.frame("cam", frame(number / 25, size=(320, 240)), FACES)
                page.write(emotion(number / 25))
                longest_s = max(longest_s, time.monotonic() - start_s)
                time.sleep(0.04)

        async def fast(viewer: Viewer) -> None:
            running = asyncio.get_running_loop().run_in_executor(None, run)
            while not running.done():
                for shown in (await viewer.take()).news.get("frames", []):
                    taken["fast"].append(shown["time_s"])

        async def slow(viewer: Viewer) -> None:
            """Never says that it has shown the first picture, for a second."""
            first = await viewer.take(ack=False)
            await asyncio.sleep(1.0)
            await viewer.ack(first.number)
            second = await viewer.take()
            taken["slow"] += [shown["time_s"] for shown in second.news["frames"]]

        view(page, fast, slow)
    assert len(taken["fast"]) >= 15 and taken["fast"] == sorted(taken["fast"])
    assert len(taken["slow"]) == 1 and taken["slow"][0] > 0.5
    assert longest_s < 0.05, "the source's thread waited"  # for the slow one: a second


def test_a_picture_is_made_once_for_all_viewers_and_none_while_nobody_looks(
    tmp_path: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[float] = []
    real = pictures._shown
    monkeypatch.setattr(pictures, "_shown", lambda *args: made.append(args[1].time_s) or real(*args))
    with dashboard(tmp_path, notes) as page:
        for number in range(5):
            page.frame("cam", frame(number / 25), FACES)
            time.sleep(0.02)
        assert made == []

        async def look(viewer: Viewer) -> None:
            shown = await viewer.until(lambda message: "frames" in message.news)
            assert shown.news["frames"][0]["time_s"] == 0.16

        view(page, *[look] * 8)
        assert made == [0.16]


def test_of_a_fast_camera_a_dozen_pictures_a_second_are_shown(tmp_path: Path, notes: list[str]) -> None:
    with dashboard(tmp_path, notes) as page:
        count = 0

        async def look(viewer: Viewer) -> None:
            nonlocal count
            end_s = time.monotonic() + 1.5
            while time.monotonic() < end_s:
                page.frame("cam", frame(time.monotonic(), size=(160, 120)), [])
                count += "frames" in (await viewer.take()).news

        view(page, look)
    assert 10 <= count <= 1.5 / PERIOD_S + 2


def test_two_sources_each_have_their_picture_and_their_numbers(tmp_path: Path, notes: list[str]) -> None:
    with dashboard(tmp_path, notes, left=PacedSource(), right=PacedSource(fps=0, sound=True)) as page:
        page.frame("left", frame(1.0), FACES)

        async def look(viewer: Viewer) -> None:
            seen: dict = {}
            while not {"run", "frames"} <= set(seen):
                seen |= (await viewer.take()).news
            assert seen["run"]["sources"]["left"]["video"] and not seen["run"]["sources"]["right"]["video"]
            assert seen["run"]["page"]["viewers"] == 1

        view(page, look)


def test_sessions_begin_are_named_and_marked_on_the_page_and_can_be_downloaded(
    tmp_path: Path, notes: list[str]
) -> None:
    with dashboard(tmp_path, notes) as page:

        async def keep(viewer: Viewer) -> None:
            await viewer.tell(type="mark", text="too early", key=None)
            await viewer.hears("no session goes on")
            await viewer.tell(type="start", name="Tag 1: Ärger / ../x", video=False, blur_faces=False, sound=False)
            running = await viewer.until(lambda message: message.news.get("session"))
            assert running.news["session"]["name"] == "Tag 1: Ärger / ../x"
            assert running.news["session"]["id"].endswith("_Tag-1-Arger-x")
            await viewer.tell(type="start", name="", video=False, blur_faces=False, sound=False)
            await viewer.hears("a session goes on")
            page.frame("cam", frame(4.0), FACES)
            page.write(emotion(4.5))
            await viewer.tell(type="mark", text="smiles", key="1")
            marked = await viewer.until(lambda message: message.news.get("marks"))
            assert marked.news["marks"][0]["text"] == "smiles" and marked.news["marks"][0]["times_s"] == {"cam": 4.0}
            await viewer.tell(type="stop")
            done = await viewer.until(lambda message: message.news.get("sessions"))
            (kept,) = done.news["sessions"]
            assert kept["state"] == "ended" and {file["name"] for file in kept["files"]} >= {"records.jsonl"}

        view(page, keep)
        (folder,) = (tmp_path / "sessions").iterdir()
        assert json.loads((folder / "records.jsonl").read_text()) == emotion(4.5).to_dict()
        whole = ask(page.server, f"/sessions/{folder.name}")
        archive = zipfile.ZipFile(io.BytesIO(whole.data))
        assert archive.testzip() is None
        assert archive.read(f"{folder.name}/records.jsonl") == (folder / "records.jsonl").read_bytes()
        one = ask(page.server, f"/sessions/{folder.name}/marks.jsonl")
        assert one.text == (folder / "marks.jsonl").read_text() and "attachment" in one.headers["Content-Disposition"]


def test_a_session_whose_disk_fails_ends_and_the_run_and_the_page_go_on(tmp_path: Path, notes: list[str]) -> None:
    with dashboard(tmp_path, notes) as page:

        async def keep(viewer: Viewer) -> None:
            await viewer.tell(type="start", name="", video=False, blur_faces=False, sound=False)
            await viewer.until(lambda message: message.news.get("session"))

            def full(answer: object) -> None:
                raise OutputError("its disk is full")

            page.sessions._recorder.write = full
            page.write(emotion(4.5))
            seen: dict = {}
            while not ("notices" in seen and seen.get("session", 1) is None):
                seen |= (await viewer.take()).news
            assert "its disk is full" in seen["notices"][-1]["text"]
            page.write(emotion(5.0))
            await viewer.until(lambda message: message.news.get("answers"))

        view(page, keep)
    assert sum("its disk is full" in line for line in notes) == 1


def test_viewers_are_told_that_the_run_has_ended(tmp_path: Path, notes: list[str]) -> None:
    ended: list[Message] = []
    with dashboard(tmp_path, notes) as page:

        async def look(viewer: Viewer) -> None:
            await viewer.take()
            entered.set()
            ended.append(await viewer.until(lambda message: message.news.get("ended")))

        entered = threading.Event()
        looking = threading.Thread(target=view, args=(page, look))
        looking.start()
        assert entered.wait(5)
    looking.join(5)
    assert ended


def test_a_browser_as_source_sends_by_the_page_that_shows_it(tmp_path: Path, notes: list[str]) -> None:
    with dashboard(tmp_path, notes, begun=False) as page:
        capture = CaptureOptions(server=page.server)
        with open_source("browser", notes.append, capture=capture) as source:
            assert page.server.mounts("/visit") and source.link == page.server.link()
            assert not any("browser: open" in line for line in notes)
            assert ask(page.server, "/visit").status == 400  # a WebSocket is expected there
        assert not page.server.mounts("/visit") and ask(page.server, "/visit").status == 404


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["serve", "camera", "--web", "nowhere"], "no place to listen"),
        (["run", "sample", "--sessions", "x"], "--sessions without a page"),
        (["serve", "--tls-key", "key.pem", "sample"], "--tls-key without --tls-cert"),
        (["serve", "cam=browser:9000"], "beside a page that shows the run"),
    ],
)
def test_a_wrong_command_line_is_one_line(command: list[str], said: str, capsys: pytest.CaptureFixture) -> None:
    assert main(command) != 0
    assert said in failure_line(capsys)


def test_of_files_there_are_numbers_too(tmp_path: Path, notes: list[str]) -> None:
    with FilesPipeline(Model(), {"sample.mp4": "sample"}, StreamOptions()) as running:
        answers = len(list(running))
        state = progress(running, time.monotonic())
    assert state["answers"] == answers > 5 and state["sources"]["sample.mp4"]["frames"] == 195
    assert state["sources"]["sample.mp4"]["video"] and not state["sources"]["sample.mp4"]["live"]
    json.dumps(state, allow_nan=False)


def test_the_page_knows_whether_answers_are_relative_to_a_person_at_rest() -> None:
    model = Model()
    reference = NeutralReference("abc", model.labels, {"video": np.zeros(2)}, {"video": 5}, {"seconds": float("nan")})
    told = [about(model, StreamOptions(neutral=neutral), camera=False) for neutral in (None, reference)]
    assert [each["neutral"] for each in told] == [None, "relative to a person at rest"]
    json.dumps(told, allow_nan=False)


def test_others_add_paths_to_the_pages_server(tmp_path: Path, notes: list[str]) -> None:
    async def more(request: web.Request) -> web.Response:
        return web.Response(text="more")

    place, options = Place(Binding(port=0)), StreamOptions(notify=notes.append)
    with Dashboard(place, Model(), options, tmp_path, [lambda app: app.router.add_get("/more", more)]) as page:
        assert ask(page.server, "/more").text == "more" and ask(page.server, "/less").status == 404
        assert ask(page.server, "/more", Host="evil.example").status == 421
