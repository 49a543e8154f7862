"""Viewers without a browser, which come and go."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
import time
from contextlib import AbstractContextManager

import aiohttp

from mma_edge.dashboard.board import HEADER
from mma_edge.dashboard.dashboard import SOCKET
from mma_edge.dashboard.viewers import MAX_VIEWERS

STAY_S = (1.0, 12.0)
_PAUSE_S = 1.0


class Visitors(AbstractContextManager):
    """Keeps up to `most` viewers coming and going until the block ends; every second one leaves without a farewell."""

    def __init__(self, link: str, most: int = MAX_VIEWERS, stay_s: tuple[float, float] = STAY_S) -> None:
        self._link, self._most, self._stay_s = link.rstrip("/"), most, stay_s
        self.visits, self.inside = 0, 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._thread.join()

    async def _run(self) -> None:
        await asyncio.gather(*(self._come_and_go(random.Random(number)) for number in range(self._most)))

    async def _come_and_go(self, chance: random.Random) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(aiohttp.ClientError, OSError, asyncio.TimeoutError):
                async with aiohttp.ClientSession() as session:
                    origin = {"Origin": self._link}
                    async with session.ws_connect(self._link + SOCKET, headers=origin, max_msg_size=0) as socket:
                        await self._look(socket, time.monotonic() + chance.uniform(*self._stay_s))
                        if chance.random() < 0.5:
                            socket._response.connection.transport.abort()  # as a browser that is killed
            if not self._ended.is_set():
                await asyncio.sleep(chance.uniform(0.0, _PAUSE_S))

    async def _look(self, socket: aiohttp.ClientWebSocketResponse, until_s: float) -> None:
        self.visits += 1
        self.inside += 1
        try:
            while time.monotonic() < until_s and not self._ended.is_set():
                message = await socket.receive(timeout=5.0)
                if message.type == aiohttp.WSMsgType.BINARY:
                    number = HEADER.unpack_from(message.data)[1]
                    await socket.send_str(json.dumps({"type": "ack", "number": number}))
                elif message.type != aiohttp.WSMsgType.TEXT:
                    return
        finally:
            self.inside -= 1
