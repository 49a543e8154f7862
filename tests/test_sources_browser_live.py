"""Promises of the browser source with a real browser: headless Chromium with files as its camera and microphone.

Run by: pytest -m live. MMA_EDGE_BROWSER_KILLS=100 kills as many browsers (default 20).
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from aioice.ice import get_host_addresses
from chromium import EXECUTABLE, Chromium, write_devices
from test_sources_live import in_step

from mma_edge.sources import Source, open_source
from mma_edge.sources.sync.measure import paired, watch

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(EXECUTABLE is None, reason="Chromium is not installed"),
    pytest.mark.skipif(
        not get_host_addresses(use_ipv4=True, use_ipv6=True),
        reason="this machine has no network but loopback, which aiortc does not use",
    ),
]

KILLS = int(os.environ.get("MMA_EDGE_BROWSER_KILLS", "20"))
NOTICED_S = 30.0
SAMPLED_MS = 80
"""The WebSocket road sends every second or third picture of 40 ms: a flash of two may be seen one late."""


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_devices(tmp_path_factory.mktemp("devices"), 60)


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def source(notes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    monkeypatch.setenv("MMA_EDGE_STATE", str(tmp_path / "state"))
    with open_source("browser:0", notes.append) as opened:
        yield opened


@contextlib.contextmanager
def read(source: Source) -> Iterator[None]:
    """Somebody takes the events."""
    reader = threading.Thread(target=lambda: [None for _ in source.events()])
    reader.start()
    yield
    source.close()
    reader.join()


def until(condition: Callable[[], object], seconds: float) -> float:
    """Wait; the seconds that it took."""
    start_s = time.monotonic()
    while not condition():
        assert time.monotonic() < start_s + seconds
        time.sleep(0.02)
    return time.monotonic() - start_s


def sends(browser: Chromium, road: str = "WebRTC") -> None:
    browser.click("start")
    browser.until_says(f"({road})", 30)


def delivering(source: Source, sound_s: float = 0.3) -> bool:
    frames, enough_s = source.stats.frames + 5, source.stats.audio_s + sound_s
    until(lambda: source.stats.frames > frames and source.stats.audio_s >= enough_s, 20)
    return True


def test_webrtc_sound_and_picture_are_in_step_after_the_first_reports(
    source: Source, devices: tuple[Path, Path], notes: list[str]
) -> None:
    with Chromium(source.link, devices) as browser:
        sends(browser)
        assert in_step(source, 16.0, since_s=6.0)
        assert source.sync == "stamps"
        assert browser.status() == "Sending camera and microphone (WebRTC)."
    assert not any("no common clock" in line for line in notes)


def test_where_udp_is_blocked_the_page_falls_back_by_itself_and_stays_in_step(
    source: Source, devices: tuple[Path, Path]
) -> None:
    flags = (
        "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
        "--webrtc-ip-handling-policy=disable_non_proxied_udp",
    )
    with Chromium(source.link, devices, flags=flags) as browser:
        start_s = time.monotonic()
        sends(browser, "WebSocket")
        assert time.monotonic() - start_s < 10
        seen = watch(source, 14.0, enough=None)
    flashes = seen.flashes()
    late = [1000 * (heard - shown) for shown, heard in paired(flashes[flashes > 2], seen.sounds())]
    # A busy machine sends fewer pictures, and passes over flashes between two of them.
    assert len(late) >= 3 and max(map(abs, late)) <= SAMPLED_MS and abs(sum(late) / len(late)) < 40
    assert 3 < source.stats.frames / 14 < 16


def test_killed_browsers_are_noticed_and_leave_neither_thread_nor_descriptor(
    source: Source, devices: tuple[Path, Path], notes: list[str]
) -> None:
    process = psutil.Process()

    def used() -> tuple[int, int]:
        return process.num_threads(), process.num_fds()

    with read(source):
        before, after, longest_s = (0, 0), (0, 0), 0.0
        for number in range(KILLS + 1):
            with Chromium(source.link, devices) as browser:
                sends(browser)
                assert delivering(source, sound_s=0.0)
                browser.kill()
            longest_s = max(longest_s, until(lambda: not source._visits.open, NOTICED_S))
            if number == 0:
                before = used()
        until(lambda: used() <= before, 10)
        after = used()
        until(lambda: sum("is gone" in line for line in notes) > KILLS, 2)  # the last one is told within a tick
    assert after <= before, (before, after)
    assert longest_s < 2 and sum("is gone" in line for line in notes) == KILLS + 1


def test_twenty_page_loads_leave_neither_thread_nor_descriptor(source: Source, devices: tuple[Path, Path]) -> None:
    process = psutil.Process()
    with read(source), Chromium(source.link, devices) as browser:
        for number in range(21):
            sends(browser)
            if number == 0:
                assert delivering(source)
                before = process.num_threads(), process.num_fds()
            browser.call("Page.navigate", url=source.link)
            browser.until(
                "document.readyState === 'complete' && document.getElementById('status').textContent === 'Ready.'"
            )
        sends(browser)
        assert delivering(source)
        until(lambda: (process.num_threads(), process.num_fds()) <= before, 10)


def test_a_frozen_browser_is_noticed_and_goes_on_when_it_thaws(source: Source, devices: tuple[Path, Path]) -> None:
    with read(source), Chromium(source.link, devices) as browser:
        sends(browser)
        assert delivering(source)
        browser.pause(True)
        assert until(lambda: not source._visits.open and source._visits.seat is None, NOTICED_S) < 15
        browser.pause(False)
        assert delivering(source)
        browser.pause(True)  # nor is it waited for
        start_s = time.monotonic()
        source.close()
        assert time.monotonic() - start_s < 2 and source._server.closed


def test_a_second_visitor_is_told_and_sends_when_the_first_stops(source: Source, devices: tuple[Path, Path]) -> None:
    with read(source), Chromium(source.link, devices) as first, Chromium(source.link, devices) as second:
        sends(first)
        second.click("start")
        second.until_says("Another browser is sending", 20)
        first.click("stop")
        assert first.status() == "Stopped."
        second.until_says("Sending", 20)
        assert delivering(source)


def test_a_browser_that_refuses_the_camera_says_what_to_do(source: Source) -> None:
    with Chromium(source.link, allow=False) as browser:
        browser.click("start")
        browser.until_says("may not use camera", 20)
        assert browser.run("document.getElementById('start').hidden") is False
        until(lambda: source._visits.seat is None, 5)


def test_a_page_that_is_not_a_secure_context_says_so(source: Source) -> None:
    with Chromium(source.link) as browser:
        browser.call(
            "Page.addScriptToEvaluateOnNewDocument",
            source="Object.defineProperty(window, 'isSecureContext', {value: false})",
        )
        browser.call("Page.reload")
        browser.until_says("not encrypted", 20)


def test_beyond_this_machine_the_link_opens_the_page_and_the_token_goes_nowhere_else(
    devices: tuple[Path, Path], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    command = [sys.executable, "-m", "mma_edge.cli", "run", "browser:0.0.0.0:0", "--backend", "cpu"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"MMA_EDGE_STATE": str(state)},
    ) as process:
        try:
            until(lambda: list(state.glob("*.link")), 60)
            (path,) = state.glob("*.link")
            link = path.read_text().strip()
            assert path.stat().st_mode & 0o777 == 0o600 and link.startswith("https://")
            token = link.partition("#token=")[2]
            local = re.sub(r"//[^/]+:", "//127.0.0.1:", link)
            with Chromium(local.partition("#")[0], devices, insecure=True) as stranger:
                stranger.click("start")
                stranger.until_says("link with a token", 20)
            with Chromium(local, devices, insecure=True) as browser:
                sends(browser)
                assert token not in browser.run("location.href + document.cookie")
                time.sleep(1)
        finally:
            process.terminate()
            said = process.communicate(timeout=20)[0]
    assert process.returncode == 0, said
    assert token not in said and str(path) in said and "SHA-256" in said
    assert not path.exists()


def test_the_page_shows_the_answers_to_who_is_in_the_picture(source: Source, devices: tuple[Path, Path]) -> None:
    import numpy as np

    from mma_edge.types import Emotion

    with read(source), Chromium(source.link, devices) as browser:
        sends(browser)
        assert delivering(source)
        share = np.float32([0.75, 0.25])
        source.show(Emotion(0, 4, 3, (16.0, 12.0, 80.0, 60.0), ("video", "audio"), ("happy", "sad"), share, 9.0))
        browser.until("document.querySelectorAll('#faces li').length === 1", 10)
        text = browser.run("document.getElementById('faces').innerText")
        assert "Face 3: happy 75 %" in text and "face and voice" in text
        widths = browser.run("[...document.querySelectorAll('.bar i')].map(bar => bar.style.width)")
        assert widths == ["75%", "25%"]
        names = browser.run("[...document.querySelectorAll('button:not([hidden])')].map(button => button.textContent)")
        assert names == ["Stop"] and browser.run("document.querySelector('.box').innerText") == "Face 3: happy"
