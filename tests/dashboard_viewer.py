"""A viewer of the dashboard without a browser, and a dashboard on sources and a model made for tests."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import numpy as np
from live_sources import LABELS, PacedSource, SlowModel

from mma_edge.dashboard.board import HEADER
from mma_edge.dashboard.dashboard import SOCKET, Dashboard
from mma_edge.live import LivePipeline
from mma_edge.pipeline import StreamOptions
from mma_edge.types import Emotion, Face, Frame
from mma_edge.web.announced import Place
from mma_edge.web.binding import Binding

PATIENCE_S = 10.0


class Model(SlowModel):
    """A model with a name and an engine, as a `mma_edge.recognizer.Recognizer` has."""

    precision, backend = "fp32", "cpu"
    engine = SimpleNamespace(details="made for tests")
    bundle = SimpleNamespace(name="toy", manifest={"temperature": 1.0, "license": {"name": "none"}})


@contextmanager
def dashboard(folder: Path, notes: list[str], begun: bool = True, **sources: PacedSource) -> Iterator[Dashboard]:
    """A page of a run that does not go on by itself: what it shows is told by the test."""
    before = set(threading.enumerate())
    options = StreamOptions(notify=notes.append)
    with (
        Dashboard(Place(Binding(port=0)), Model(), options, folder / "sessions") as page,
        LivePipeline(Model(), sources or {"cam": PacedSource()}, options) as running,
    ):
        if begun:
            page.begin(running)
        yield page
    until_s = time.monotonic() + 3
    while left := [each for each in set(threading.enumerate()) - before if "disk" not in each.name]:
        assert time.monotonic() < until_s, left
        time.sleep(0.02)


@dataclass
class Message:
    """One of the server's, taken apart."""

    number: int
    news: dict
    jpegs: dict[str, bytes] = field(default_factory=dict)  # by source

    @classmethod
    def of(cls, data: bytes) -> Message:
        _, number, length = HEADER.unpack_from(data)
        at = HEADER.size + length
        message = cls(number, json.loads(data[HEADER.size : at]))
        for frame in message.news.get("frames", []):
            message.jpegs[frame["source"]] = data[at : at + frame["bytes"]]
            at += frame["bytes"]
        assert at == len(data)
        return message


class Viewer:
    """The WebSocket of a page."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.said: list[str] = []

    async def take(self, ack: bool = True) -> Message:
        """The next message; what is said meanwhile is kept."""
        while True:
            message = await self.socket.receive(timeout=PATIENCE_S)
            if message.type == aiohttp.WSMsgType.BINARY:
                taken = Message.of(message.data)
                if ack:
                    await self.ack(taken.number)
                return taken
            assert message.type == aiohttp.WSMsgType.TEXT, message
            self.said.append(json.loads(message.data)["text"])

    async def ack(self, number: int) -> None:
        await self.tell(type="ack", number=number)

    async def tell(self, **message: object) -> None:
        await self.socket.send_str(json.dumps(message))

    async def until(self, condition: Callable[[Message], object]) -> Message:
        """Take messages until one is as wanted."""
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            if condition(message := await self.take()):
                return message
        raise AssertionError("it did not come")

    async def hears(self, text: str) -> None:
        """Wait until this was said."""
        end_s = time.monotonic() + PATIENCE_S
        while not any(text in line for line in self.said):
            assert time.monotonic() < end_s, self.said
            await self.take()


def view(page: Dashboard, *acts: Callable[[Viewer], Awaitable[None]]) -> None:
    """Let as many viewers do something, all at the same time."""

    async def one(session: aiohttp.ClientSession, act: Callable[[Viewer], Awaitable[None]]) -> None:
        link = page.server.link().rstrip("/")
        async with session.ws_connect(f"{link}{SOCKET}", headers={"Origin": link}, max_msg_size=0) as socket:
            await act(Viewer(socket))

    async def all_of_them() -> None:
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(one(session, act) for act in acts))

    asyncio.run(all_of_them())


def frame(time_s: float, grey: int = 90, size: tuple[int, int] = (1280, 720)) -> Frame:
    return Frame(np.full((size[1], size[0], 3), grey, np.uint8), time_s, time.monotonic())


def emotion(end_s: float, track: int | None = 1, source: str = "cam", share: float = 0.75) -> Emotion:
    box = None if track is None else (100.0, 50.0, 300.0, 250.0)
    shares = np.float32([1 - share, share])
    return Emotion(end_s - 4, end_s, track, box, ("video",), LABELS, shares, 12.0, 0.05, source=source)


FACES = [Face(1, (100.0, 50.0, 300.0, 250.0), 0.99)]
