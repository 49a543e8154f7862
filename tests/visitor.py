"""A visitor of a browser source without a browser: a client of its WebSocket, and what it may send, good and bad."""

from __future__ import annotations

import asyncio
import io
import json
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
from PIL import Image

from mma_edge.sources import Source
from mma_edge.sources.browser.messages import HEADER, PICTURE, SOUND

RATE_HZ = 48000
SDP = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n"
BAD = [
    "", "{", "[]", "1", "null", '{"type": 1}', '{"type": "go"}', '{"type": "offer"}', '{"type": "offer", "sdp": 1}',
    "[" * 5000, json.dumps({"type": "offer", "sdp": "x" * 70_000}),
    json.dumps({"type": "offer", "sdp": 3 * SDP}), json.dumps({"type": "offer", "sdp": SDP + "m=application 9 x\r\n"}),
    json.dumps({"type": "offer", "sdp": SDP + "a=candidate:1\r\n" * 100}),
]  # fmt: skip


def jpeg(width: int = 64, height: int = 48, grey: int = 200) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (grey,) * 3).save(file, "JPEG")
    return file.getvalue()


def claimed(width: int, height: int) -> bytes:
    """A small JPEG that says it is large."""
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def picture(time_s: float, content: bytes | None = None) -> bytes:
    return HEADER.pack(PICTURE, 0, round(1e6 * time_s)) + (jpeg() if content is None else content)


def sound(time_s: float, seconds: float = 0.04, rate_hz: int = RATE_HZ) -> bytes:
    return HEADER.pack(SOUND, rate_hz, round(1e6 * time_s)) + bytes(2 * round(seconds * rate_hz))


BAD_MEDIA = [
    b"", b"\1", HEADER.pack(PICTURE, 0, 0), HEADER.pack(7, 0, 0) + b"x", picture(0, b"no JPEG"), picture(1e12),
    picture(0, jpeg()[:200]), picture(0, claimed(65000, 65000)), picture(0, jpeg(8, 8)), sound(0)[:-1],
    sound(0, 0.04, 1000), sound(0, 3.0), HEADER.pack(SOUND, 4_000_000_000, 0) + bytes(100),
]  # fmt: skip


@asynccontextmanager
async def page(source: Source) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """The WebSocket of one visitor."""
    origin = source.link.rstrip("/")
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{origin}/visit", headers={"Origin": origin}, max_msg_size=0) as socket,
    ):
        yield socket


async def heard(socket: aiohttp.ClientWebSocketResponse, kind: str) -> dict:
    """The next message of this type."""
    while True:
        message = await asyncio.wait_for(socket.receive_json(), 10)
        if message["type"] == kind:
            return message


async def seated(socket: aiohttp.ClientWebSocketResponse) -> None:
    await socket.send_json({"type": "start"})
    await heard(socket, "go")


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s
        await asyncio.sleep(0.02)


def visit(source: Source, work: Callable[[aiohttp.ClientWebSocketResponse], Awaitable[object]]) -> None:
    async def run() -> None:
        async with page(source) as socket:
            await work(socket)

    asyncio.run(run())
