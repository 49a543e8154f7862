"""Headless Chromium that looks at the page and says when a flash is shown."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path

import aiohttp

from mma_edge.child import Program
from mma_edge.errors import BackendError

_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio",
    "--remote-debugging-port=0", "--window-size=1280,900",
)  # fmt: skip
_START_S, _CALL_S = 30.0, 20.0
# Of each picture that is shown: when, its facts, and how bright its corner is.
_WATCH = """(() => {
  window.seen = [];
  const canvas = document.querySelector('canvas'), paper = canvas.getContext('2d', { willReadFrequently: true });
  canvas.addEventListener('shown', event => {
    const [red] = paper.getImageData(canvas.width / 40, canvas.height / 40, 1, 1).data;
    seen.push([Date.now() / 1000, event.detail.arrived, event.detail.time_s, red]);
  });
})()"""


def executable() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser(AbstractContextManager):
    """One page, until the block ends."""

    def __init__(self, program: str, link: str) -> None:
        """BackendError where it does not show the page."""
        self._home = tempfile.TemporaryDirectory(prefix="mma-bench-", ignore_cleanup_errors=True)
        command = [program, *_FLAGS, f"--user-data-dir={self._home.name}", link]
        self._program = Program(lambda pipe: command)
        self._loop = asyncio.new_event_loop()
        self._session: aiohttp.ClientSession | None = None
        self._number = 0
        try:
            self._loop.run_until_complete(self._attach(link))
            self._until("document.querySelector('canvas') && document.querySelector('canvas').width > 100")
            self.run(_WATCH)
        except BaseException:
            self.close()
            raise

    def seen(self) -> list[list[float]]:
        """Of each picture since the start: when it was shown, when it arrived (both wall clock), its time, brightness
        of the corner."""
        return self.run("seen")

    def run(self, script: str) -> object:
        return self._loop.run_until_complete(asyncio.wait_for(self._run(script), _CALL_S))

    def close(self) -> None:
        if self._session is not None:
            self._loop.run_until_complete(self._session.close())
        self._loop.close()
        self._program.close()
        self._home.cleanup()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _until(self, condition: str) -> None:
        end_s = time.monotonic() + _START_S
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > end_s:
                raise BackendError(f"the page showed no picture in {_START_S:g} s")
            time.sleep(0.1)

    async def _attach(self, link: str) -> None:
        """Chromium writes into its folder where it can be driven."""
        place = Path(self._home.name) / "DevToolsActivePort"
        end_s = time.monotonic() + _START_S
        self._session = aiohttp.ClientSession()
        while time.monotonic() < end_s:
            with contextlib.suppress(OSError, ValueError, IndexError, aiohttp.ClientError):
                port = int(place.read_text().split()[0])
                async with self._session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    pages = [each for each in await answer.json() if each["url"].startswith(link)]
                self._socket = await self._session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0)
                return
            await asyncio.sleep(0.1)
        raise BackendError(f"Chromium did not open the page in {_START_S:g} s")

    async def _run(self, script: str) -> object:
        self._number += 1
        params = {"expression": script, "returnByValue": True}
        await self._socket.send_json({"id": self._number, "method": "Runtime.evaluate", "params": params})
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == self._number:
                # Without a result the page was just being loaded.
                return message.get("result", {}).get("result", {}).get("value")
