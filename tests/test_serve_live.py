"""`mma-edge serve` as other programs meet it: records, marks and metrics are beside the page."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import aiohttp
import pytest

from mma_edge.session.folder import read_session

pytestmark = pytest.mark.live
ENTRY = "import sys; from mma_edge.cli import main; sys.exit(main())"


async def mark_and_listen(link: str) -> list[dict]:
    """Send a mark after the first record; all messages until the run ends."""
    messages: list[dict] = []
    async with aiohttp.ClientSession() as client, client.ws_connect(f"{link}ws/records") as socket:
        async for message in socket:
            messages.append(json.loads(message.data))
            if [each["type"] for each in messages].count("record") == 1 and messages[-1]["type"] == "record":
                await socket.send_str(json.dumps({"type": "mark", "text": "the door"}))
    return messages


def test_beside_the_page_are_records_marks_and_metrics(tmp_path: Path) -> None:
    session, records = tmp_path / "session", tmp_path / "out.jsonl"
    arguments = ["serve", "sample", "--realtime", "--web", "0", "--backend", "cpu"]
    arguments += ["--session", session, "--no-video", "--output", records]
    run = subprocess.Popen(
        [sys.executable, "-c", ENTRY, *map(str, arguments)], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        lines = iter(run.stderr.readline, "")
        link = next(found[0] for found in (re.search(r"http://\S+/", line) for line in lines) if found)
        messages = asyncio.run(asyncio.wait_for(mark_and_listen(link), 60))
    except BaseException:
        run.kill()
        raise
    assert run.wait(timeout=30) == 0
    heard = [each for each in messages if each["type"] == "record"]
    written = [json.loads(line) for line in records.read_text().splitlines()]
    assert len(heard) > 5 and [each | {"type": "record"} for each in written][-len(heard) :] == heard
    assert messages[0]["type"] == "hello" and messages[-1]["type"] == "end"
    assert [mark["text"] for mark in read_session(session).marks] == ["the door"]


def test_metrics_are_beside_the_page(tmp_path: Path) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", ENTRY, "serve", "sample", "--realtime", "--web", "0", "--backend", "cpu"],
        stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    try:
        lines = iter(run.stderr.readline, "")
        link = next(found[0] for found in (re.search(r"http://\S+/", line) for line in lines) if found)
        text, deadline_s = "", time.monotonic() + 10
        while "mma_edge_engine_calls_total" not in text and time.monotonic() < deadline_s:  # the run may begin later
            with urllib.request.urlopen(f"{link}metrics", timeout=10) as answer:
                text = answer.read().decode()
        assert "mma_edge_engine_calls_total" in text
    finally:
        run.kill()
        run.wait()
