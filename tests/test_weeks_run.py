"""What a live run must survive in weeks: suspends, stops, a dead source, a full disk, its own service manager."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import python_environment, run_python
from live_sources import PacedSource, SlowModel
from rtsp_server import RTSPServer
from test_service import Systemd

from mma_edge.live import LivePipeline
from mma_edge.pipeline import StreamOptions
from mma_edge.service import Watch
from mma_edge.sources.network.address import Address
from mma_edge.sources.network.connection import Limits
from mma_edge.sources.network.source import NetworkSource

pytestmark = pytest.mark.wall_clock

HOP_S = 0.1


def options(**given: object) -> StreamOptions:
    return StreamOptions(**{"window_s": 0.4, "hop_s": HOP_S, "centre_fallback": True, "voice_gate": None, **given})


def test_after_a_suspend_no_window_has_anything_from_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both clocks are the test's: the one that counts suspends jumps by an hour."""
    monkeypatch.setattr("mma_edge.faces.track.FaceTracker.update", lambda self, frame: [])
    forgotten, said = [], []
    monkeypatch.setattr("mma_edge.faces.track.FaceTracker.reset", lambda self: forgotten.append(self))
    source = PacedSource(sound=True)
    monkeypatch.setattr(source, "resume", lambda: said.append("connected again"))
    ahead_s = [0.0]
    with LivePipeline(SlowModel(), {"camera": source}, options()) as live:
        watch = Watch([live.engine], live.sources, said.append, live.resume, boot=lambda: time.monotonic() + ahead_s[0])
        forgotten.clear()
        slept_at_s, started_s, after = None, time.monotonic(), []
        for emotion in live:
            if slept_at_s is None and emotion.end_s > 0.8:
                ahead_s[0] = 3600.0
                watch.look()
                slept_at_s = time.monotonic() - started_s
            elif slept_at_s is not None:
                after.append(emotion)
                if len(after) == 8:
                    break
    assert said == ["the machine slept for 3600 s: the sources are opened again", "connected again"]
    assert len(forgotten) == 1
    # One answer may have been on its way.
    assert all(emotion.start_s >= slept_at_s - 0.1 for emotion in after[1:])
    assert after[-1].end_s - after[-1].start_s == pytest.approx(0.4, abs=0.05), "the window fills again"


@pytest.mark.live
def test_after_a_suspend_a_stream_is_connected_again_at_once() -> None:
    said: list[str] = []
    with (
        RTSPServer(seconds=1.0) as server,
        NetworkSource(Address.of(server.url), said.append, limits=Limits(5, 1)) as source,
    ):
        resumed_s = 0.0
        for event in source.events():
            if not resumed_s and event.time_s > 0.5:
                resumed_s = event.time_s
                source.resume()
            elif resumed_s and source.stats.reopened:
                break
        assert event.time_s - resumed_s < 4.0
    assert server.plays == 2 and "the machine slept" in said[0]


def test_what_fell_due_while_nothing_came_is_not_answered_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that was away for two seconds, and whose time went on."""
    monkeypatch.setattr("mma_edge.faces.track.FaceTracker.update", lambda self, frame: [])
    source, away_s = PacedSource(seconds=4.0), (1.0, 3.0)
    put = source._buffer.put
    monkeypatch.setattr(source._buffer, "put", lambda e: None if away_s[0] < e.time_s < away_s[1] else put(e))
    with LivePipeline(SlowModel(), {"camera": source}, options()) as live:
        answers = list(live)
    assert max(emotion.age_ms for emotion in answers) < 500
    assert [e for e in answers if e.end_s > 3.2] and not [e for e in answers if 1.2 < e.end_s < 2.95]


def p95(live: LivePipeline, name: str) -> float:
    return float(np.percentile(live.stages.values(f"age {name}"), 95))


def test_one_frozen_source_of_two_changes_nothing_for_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mma_edge.faces.track.FaceTracker.update", lambda self, frame: [])
    ages_ms, answers = [], []
    for freezes_s in (float("inf"), 0.2):
        sources = {"door": PacedSource(freezes_s=freezes_s), "desk": PacedSource(seconds=3.0)}
        with LivePipeline(SlowModel(0.01), sources, options()) as live:
            running = [emotion for emotion in _until(live, "desk", 2.8)]
            ages_ms.append(p95(live, "desk"))
            answers.append(sum(emotion.source == "desk" for emotion in running))
    assert ages_ms[1] < ages_ms[0] + 50 and abs(answers[0] - answers[1]) <= 2, (ages_ms, answers)


def _until(live: LivePipeline, name: str, end_s: float) -> Iterator:
    for emotion in live:
        yield emotion
        if emotion.source == name and emotion.end_s >= end_s:
            return


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.Popen:
    """`mma-edge run` in a process of its own, its notices in a pipe."""
    environment = python_environment(**variables)
    command = [
        sys.executable,
        "-m",
        "mma_edge.cli",
        "run",
        *arguments,
        "--backend",
        "cpu",
        "--quiet",
        "--output",
        str(folder / "r.jsonl"),
    ]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def records(folder: Path) -> list[dict]:
    path = folder / "r.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_records(folder: Path, count: int, limit_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while len(records(folder)) < count:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


@pytest.mark.live
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="systemd is Linux's")
def test_a_service_is_ready_alive_healthy_and_ends_cleanly(tmp_path: Path) -> None:
    systemd = Systemd(str(tmp_path / "notify"))
    variables = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
    with run(tmp_path, "sample", "--realtime", "--health", "0", **variables) as process:
        port = int(re.search(r":(\d+)/healthz", process.stderr.readline())[1])
        wait_for_records(tmp_path, 2)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as response:
            health = json.load(response)
        (source,) = health["sources"].values()
        assert health["healthy"] and health["answers"] >= 2 and source["silent_s"] < 2
        process.send_signal(signal.SIGUSR1)
        wait_for_records(tmp_path, 4)
        process.send_signal(signal.SIGTERM)
        stacks = process.stderr.read()
        assert process.wait(10) == 0
    heard = systemd.heard()
    systemd.close()
    assert heard[0] == "READY=1" and heard[-1] == "STOPPING=1" and heard.count("WATCHDOG=1") >= 2
    assert any(line.startswith("STATUS=1 of 1 sources deliver") for line in heard)
    assert "hread 0x" in stacks


@pytest.mark.live
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="SIGSTOP and sockets as Linux has them")
def test_a_run_that_was_stopped_for_seconds_goes_on_with_the_newest(tmp_path: Path) -> None:
    """What waited in the sockets comes in one burst; its windows are not answered one after the other."""
    stopped_s = 6.0
    with RTSPServer(seconds=2.0) as server, run(tmp_path, server.url, "--voice-gate", "off") as process:
        wait_for_records(tmp_path, 4)
        process.send_signal(signal.SIGSTOP)
        before = records(tmp_path)
        time.sleep(stopped_s)
        process.send_signal(signal.SIGCONT)
        time.sleep(1.0)
        burst = records(tmp_path)[len(before) :]
        time.sleep(2.0)
        after = records(tmp_path)
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(10) == 0
    print(len(burst), "answers after the stop")
    assert len(burst) <= 6, "two hops of this second, and not the twelve of the stop"
    # The records' time went on with the clock.
    assert after[-1]["end_s"] - before[-1]["end_s"] == pytest.approx(stopped_s + 3.0, abs=1.2)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a limit that acts as a full disk does")
@pytest.mark.parametrize("live", [[], pytest.param(["--realtime"], marks=pytest.mark.live)], ids=["file", "live"])
def test_a_disk_that_fills_up_ends_the_run_with_one_line_and_whole_records(tmp_path: Path, live: list[str]) -> None:
    path, most = tmp_path / "r.jsonl", 1000
    program = f"""
import resource, sys
from mma_edge.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, resource.RLIM_INFINITY))
sys.exit(main(["run", "sample", "--backend", "cpu", "--quiet", "--output", {str(path)!r}, *{live!r}]))
"""
    done = run_python("-c", program)
    assert done.returncode == 7 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    kept = records(tmp_path)
    assert f"after {len(kept)} records, which are kept" in line and "File too large" in line
    assert len(kept) >= 2 and path.stat().st_size <= most and path.read_text().endswith("\n")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_wall_clock_is_in_no_limit_of_time() -> None:
    """A clock that is set by an hour would end or prolong it; `time.monotonic` is the clock of all of them."""
    folder = Path(__file__).parents[1] / "mma_edge"
    told = {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")
            if re.search(r"\btime\.time\(|\bdatetime\.now\(", path.read_text())}  # fmt: skip
    allowed = {
        "batch/folder.py": "when a batch was begun and ended",
        "convert/elan.py": "the date of a file for ELAN",
        "dashboard/board.py": "the stamp of a picture, by which a measurement knows its age",
        "dashboard/dashboard.py": "the times of notices on the page",
        "dashboard/pictures.py": "the same stamp",
        "dashboard/sessions.py": "the names of folders",
        "live/neutral.py": "when a reference was made",
        "live/report.py": "the field 'time' of --stats",
        "outputs/mqtt.py": "the field 'time' of what a broker keeps",
        "outputs/prometheus.py": "the start of the process and the times of what came last",
        "report/page.py": "the day of a page",
        "session/recorder.py": "the days of a session and the times of its marks",
        "web/certificate.py": "the days of a certificate",
    }
    assert told == set(allowed)
