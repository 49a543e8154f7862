"""Headless Chromium whose camera and microphone are files, driven through its DevTools port."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import wave
from pathlib import Path

import aiohttp
import numpy as np
from rtsp_server import FPS, SIZE, beep, picture

EXECUTABLE = shutil.which("chromium")
_PATIENCE_S = 60.0
_FLAGS = (
    "--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio",
    "--remote-debugging-port=0", "--use-fake-device-for-media-stream", "--autoplay-policy=no-user-gesture-required",
)  # fmt: skip


def write_devices(folder: Path, seconds: float) -> tuple[Path, Path]:
    """A camera's pictures and a microphone's sound, flashes and beeps that begin together each second."""
    camera, microphone = folder / "camera.y4m", folder / "microphone.wav"
    width, height = SIZE
    with open(camera, "wb") as file:
        # Chromium takes no other name of this pixel format.
        file.write(f"YUV4MPEG2 W{width} H{height} F{FPS}:1 Ip A1:1 C420\n".encode())
        for number in range(round(seconds * FPS)):
            luma = np.full(width * height, picture(number / FPS)[0, 0, 0], np.uint8)
            file.write(b"FRAME\n" + luma.tobytes() + bytes([128]) * (width * height // 2))
    with wave.open(str(microphone), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48000)
        file.writeframes((32767 * beep(0.0, round(48000 * seconds), 48000)).astype("<i2").tobytes())
    return camera, microphone


class Chromium:
    """One browser with one page. Ended, with all its processes, by `kill` or the `with` block."""

    def __init__(
        self,
        url: str,
        devices: tuple[Path, Path] | None = None,
        *,
        allow: bool = True,  # camera and microphone, without asking
        insecure: bool = False,  # certificates that nobody has signed
        flags: tuple[str, ...] = (),
    ) -> None:
        self._home = tempfile.mkdtemp(prefix="chromium-")
        flags = [*_FLAGS, *flags, f"--user-data-dir={self._home}"]
        flags += ["--no-sandbox"] if os.geteuid() == 0 else []
        flags += ["--use-fake-ui-for-media-stream"] if allow else ["--deny-permission-prompts"]
        flags += ["--ignore-certificate-errors"] if insecure else []
        if devices:
            camera, microphone = devices
            flags += [f"--use-file-for-fake-video-capture={camera}", f"--use-file-for-fake-audio-capture={microphone}"]
        self._process = subprocess.Popen(
            [EXECUTABLE, *flags, "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._loop = asyncio.new_event_loop()
        self._number = 0
        try:
            self._loop.run_until_complete(self._attach())
            self.call("Page.enable")
            self.call("Page.navigate", url=url)
            self.until("document.readyState === 'complete' && location.href !== 'about:blank'")
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    async def _attach(self) -> None:
        for line in self._process.stderr:
            if found := re.search(r"DevTools listening on ws://(\S+?)/", line):
                break
        else:
            raise RuntimeError("Chromium ended at once")
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://{found[1]}/json/list") as answer:
            pages = [each for each in await answer.json() if each["type"] == "page"]
        self._socket = await self._session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0)

    def call(self, method: str, **params: object) -> dict:
        """One command of the DevTools protocol."""
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, params), _PATIENCE_S))

    async def _call(self, method: str, params: dict) -> dict:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(message["error"]["message"])
                return message["result"]

    def run(self, script: str) -> object:
        """The value of a script in the page, run as if the user had clicked."""
        options = {"userGesture": True, "awaitPromise": True, "returnByValue": True}
        result = self.call("Runtime.evaluate", expression=script, **options)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, script: str, seconds: float = _PATIENCE_S) -> None:
        """Wait until the script's value is true; meanwhile the page may still be loading."""
        tried = f"(() => {{ try {{ return Boolean({script}); }} catch (error) {{ return false; }} }})()"
        end_s = time.monotonic() + seconds
        while True:
            with contextlib.suppress(RuntimeError):  # the page that was asked is gone
                if self.run(tried):
                    return
            assert time.monotonic() < end_s, f"{script}: {self.run('document.body.innerText')}"
            time.sleep(0.05)

    def until_says(self, text: str, seconds: float = _PATIENCE_S) -> None:
        """Wait until the page's status has this text in it."""
        self.until(f"document.getElementById('status').textContent.includes({json.dumps(text)})", seconds)

    def status(self) -> str:
        return self.run("document.getElementById('status').textContent")

    def click(self, name: str) -> None:
        self.run(f"document.getElementById('{name}').click()")

    def screenshot(self, path: Path, width: int, height: int, scheme: str) -> None:
        """What a window of this size shows, "light" or "dark"."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        time.sleep(0.3)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def pause(self, paused: bool) -> None:
        """Stop all its processes where they are, or let them go on."""
        os.killpg(self._process.pid, signal.SIGSTOP if paused else signal.SIGCONT)

    def kill(self) -> None:
        """As a crash would: no farewell."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stderr.close()
        if not self._loop.is_closed():
            if hasattr(self, "_session"):
                self._loop.run_until_complete(self._session.close())
            self._loop.close()
        shutil.rmtree(self._home, ignore_errors=True)
