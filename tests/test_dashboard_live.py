"""Promises of the page in a real browser: headless Chromium looks at a real stream. Run by: pytest -m live.

MMA_EDGE_SCREENSHOTS=DIR keeps pictures of the page.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aioice.ice import get_host_addresses
from chromium import EXECUTABLE, Chromium, write_devices
from rtsp_server import RTSPServer

import mma_edge

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(EXECUTABLE is None, reason="Chromium is not installed"),
]
WATCH = """window.errors = [];
addEventListener('error', event => errors.push(event.message));
addEventListener('unhandledrejection', event => errors.push(String(event.reason)));
addEventListener('securitypolicyviolation', event => errors.push(`${event.violatedDirective} ${event.blockedURI}`));"""
RECORDS = "[...document.querySelectorAll('.card')].map(card => JSON.parse(card.dataset.record))"
CARD = """(() => { const card = document.querySelector('.card');
  return {text: card.innerText, label: card.querySelector('.label').textContent,
  shares: [...card.querySelectorAll('.shares dd:nth-of-type(even)')].map(each => each.textContent),
  record: JSON.parse(card.dataset.record)}; })()"""


@contextlib.contextmanager
def served(*arguments: object, web: str = "0") -> Iterator[tuple[str, subprocess.Popen]]:
    """`mma-edge serve` in a process of its own, and the link that it prints."""
    command = [sys.executable, "-m", "mma_edge.cli", "serve", *map(str, arguments), "--web", web, "--backend", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            for line in process.stdout:
                if found := re.search(r"open (http\S+)", line):
                    break
            else:
                raise AssertionError("it did not say where its page is")
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield found[1], process
        finally:
            if process.poll() is None:
                process.terminate()
            assert process.wait(20) in (0, 130)


@contextlib.contextmanager
def looking(link: str, devices: tuple[Path, Path] | None = None, insecure: bool = False) -> Iterator[Chromium]:
    """A browser that notes what goes wrong in the page; nothing may."""
    with Chromium(link, devices, insecure=insecure) as browser:
        browser.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        browser.call("Page.reload")
        browser.until("window.errors && document.readyState === 'complete'")
        yield browser
        errors = [each for each in browser.run("errors") if "ResizeObserver loop" not in each]
        assert errors == []


def keep(browser: Chromium, name: str, width: int = 1440, height: int = 900, scheme: str = "light") -> None:
    if folder := os.environ.get("MMA_EDGE_SCREENSHOTS"):
        browser.screenshot(Path(folder) / f"{name}.png", width, height, scheme)


def test_the_page_shows_what_the_records_say(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with (
        served("sample", "--realtime", "--output", output, "--sessions", tmp_path / "kept") as (link, process),
        looking(link) as browser,
    ):
        browser.until("document.querySelector('.card') && document.querySelector('canvas').width > 300", 20)
        browser.until(f"{RECORDS}[0].end_s >= 4")
        shown = browser.run(CARD)
        for name, size in (("desktop", (1440, 900)), ("phone", (390, 844))):
            keep(browser, f"{name}-light", *size)
            keep(browser, f"{name}-dark", *size, "dark")
        facts = browser.run("document.querySelector('figcaption').innerText")
        picture = browser.run(
            """(() => { const canvas = document.querySelector('canvas'), [x, y] = [canvas.width, canvas.height];
            return [...canvas.getContext('2d').getImageData(x / 2, y / 2, 1, 1).data]; })()"""
        )
        boxed = browser.run("document.querySelector('canvas').getAttribute('aria-label')")
        browser.until("document.getElementById('state').textContent === 'The run has ended'", 20)
        last = browser.run(CARD)["record"]
        assert process.wait(20) == 0
    records = [json.loads(line) for line in output.read_text().splitlines()]
    record = shown["record"]
    assert record in records and last == records[-1]
    best = max(record["probabilities"].values())
    assert shown["label"] == f"{record['label']} {round(100 * best)} %"
    assert shown["shares"] == [f"{round(100 * value)} %" for value in record["probabilities"].values()]
    assert "Face 1" in shown["text"] and "from face and voice" in shown["text"]
    assert "480 \u00d7 480" in facts and boxed.startswith("sample.mp4: 1 happy") and max(picture[:3]) > 60


def test_a_stream_its_sound_and_its_end_are_shown_and_sessions_are_kept_from_the_keyboard(tmp_path: Path) -> None:
    with (
        RTSPServer(seconds=4.0) as server,
        served(f"door={server.url}", "--voice-gate", "off", "--sessions", tmp_path / "kept") as (link, _),
        looking(link) as browser,
    ):
        browser.until("document.querySelector('canvas').width > 100", 30)
        browser.until("document.querySelector('.card h3').textContent === 'Voice'", 30)
        assert "voice only" in browser.run("document.querySelector('.card .rests').textContent")
        browser.until("document.querySelector('[role=meter]').getAttribute('aria-valuenow') > 50")
        before = browser.run("document.querySelector('canvas').dataset.timeS")
        browser.until(f"document.querySelector('canvas').dataset.timeS > {before} + 0.5")
        browser.run("document.getElementById('session-name').value = 'first'")
        browser.run("document.getElementById('session-form').requestSubmit()")
        browser.until("document.getElementById('recording').textContent.startsWith('Recording')")
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key="3", text="3" if kind == "keyDown" else "")
        browser.until("document.getElementById('marks').innerText.includes('[3]')")
        keep(browser, "stream-light")
        browser.click("session-stop")
        browser.until("document.querySelector('#sessions li a')")
        names = browser.run("[...document.querySelectorAll('#sessions a')].map(each => each.textContent)")
        assert {"all as zip", "records.jsonl", "marks.jsonl", "video-1.mp4"} <= set(names)
        got = browser.run(
            "fetch([...document.querySelectorAll('#sessions a')].find(each => each.textContent === 'marks.jsonl').href)"
            ".then(answer => answer.text())"
        )
        assert json.loads(got)["key"] == "3" and json.loads(got)["times_s"]["door"] > 0
        server.drop()
        browser.until("document.querySelector('figcaption').innerText.includes('nothing for')", 20)
        browser.until("document.querySelector('#notices li')", 20)


@pytest.mark.skipif(
    not get_host_addresses(use_ipv4=True, use_ipv6=True), reason="no network but loopback, which aiortc does not use"
)
def test_without_a_source_the_page_sends_its_own_camera_and_shows_what_came(tmp_path: Path) -> None:
    devices = write_devices(tmp_path, 30)
    with served("--voice-gate", "off") as (link, _), looking(link, devices) as browser:
        browser.until("!document.getElementById('camera').hidden", 20)
        keep(browser, "browser-before")
        browser.click("camera-start")
        browser.until("document.getElementById('camera-status').textContent.includes('(WebRTC)')", 30)
        browser.until("document.querySelector('canvas').width > 100", 20)
        browser.until("document.querySelector('.card')", 30)
        keep(browser, "browser-light")
        browser.click("camera-stop")
        browser.until("document.getElementById('camera-status').textContent === 'Stopped.'")


def test_the_page_can_be_used_without_a_mouse_and_read_aloud() -> None:
    with served("sample", "--realtime") as (link, _), looking(link) as browser:
        browser.until("document.querySelector('.card')", 20)
        # What a face shows is said from the next picture on.
        browser.until("document.querySelector('canvas[aria-label^=\"sample.mp4: 1 \"]')", 20)
        tree = browser.call("Accessibility.getFullAXTree")["nodes"]
        found = {}
        for node in tree:
            if not node.get("ignored"):
                name = node.get("name", {}).get("value", "")
                found.setdefault(node["role"]["value"], []).append(name)
        assert all(found["button"]) and all(found["textbox"]) and all(found["checkbox"]) and all(found["image"])
        assert {"Session", "Answers", "Run", "Kept sessions", "Notices"} <= set(found["heading"])
        assert any(name.startswith("sample.mp4: 1 ") for name in found["image"])
        reached = []
        for _ in range(12):
            for kind in ("keyDown", "keyUp"):
                browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
            reached.append(browser.run("document.activeElement.id || document.activeElement.textContent"))
        assert {"session-name", "session-video", "session-start"} <= set(reached)
        browser.until("document.getElementById('spoken').textContent.includes('Face 1 happy')", 20)


def test_nothing_of_the_page_is_wider_than_a_telephone(tmp_path: Path) -> None:
    kept = tmp_path / "2026-01-01_00-00-00"
    kept.mkdir()
    (kept / "manifest.json").write_text('{"name": "first", "started": "2026-01-01T00:00:00Z", "run_s": 1}')
    for number in range(9):
        (kept / f"video-{number}.mp4").write_bytes(b"")
    with served("sample", "--realtime", "--sessions", tmp_path) as (link, _), looking(link) as browser:
        browser.until("document.querySelector('.card') && document.querySelector('#sessions a')", 20)
        for width in (320, 390, 768):
            browser.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=2, mobile=True
            )
            time.sleep(0.3)
            assert browser.run("document.documentElement.scrollWidth") <= width


def test_a_page_of_answers_relative_to_a_person_at_rest_says_so(tmp_path: Path) -> None:
    path = tmp_path / "ada.json"
    mma_edge.load(None, "cpu").neutral("sample").write(path)
    model = "document.getElementById('model').textContent"
    with served("sample", "--realtime", "--neutral", path) as (link, _), looking(link) as browser:
        browser.until(f"{model}.endsWith(', relative to a person at rest')", 20)
        keep(browser, "neutral-light")
    with served("sample", "--realtime") as (link, _), looking(link) as browser:
        browser.until("document.querySelector('.card')", 20)
        assert "at rest" not in browser.run(model)


def test_from_elsewhere_the_link_of_this_start_opens_the_page_and_an_old_one_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMA_EDGE_STATE", str(tmp_path))
    with served("sample", "--realtime", web="0.0.0.0:0"):
        (path,) = tmp_path.glob("*.link")
        link = re.sub(r"//[^/]+:", "//127.0.0.1:", path.read_text().strip())
        page, _, token = link.partition("#token=")
        with Chromium(f"{page}#token={'x' * 43}", insecure=True) as stranger:
            stranger.until("document.getElementById('state').textContent.includes('newest link')", 20)
            assert stranger.run("document.querySelectorAll('.card, canvas').length") == 0
        with looking(link, insecure=True) as browser:
            browser.until("document.querySelector('.card')", 20)
            assert token not in browser.run("location.href + document.cookie")
    assert not path.exists()
