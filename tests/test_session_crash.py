"""What ends a session in the middle: a kill, a full disk, a stream that breaks. Nothing written before is lost."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import PATIENCE_S, python_environment, run_python
from films import loudness, offsets_ms, pictures
from rtsp_server import RTSPServer

from mma_edge.cli import main
from mma_edge.session.folder import NOT_ENDED, read_session
from mma_edge.session.reading import RECORDS
from mma_edge.sources import sample_path

pytestmark = pytest.mark.wall_clock


def begun(folder: Path, *sources: str) -> subprocess.Popen:
    """`mma-edge run` in a process of its own, with sound and video in a session."""
    environment = python_environment(MMA_EDGE_THREADS="1")
    options = ["--backend", "cpu", "--quiet", "--session", str(folder), "--sound"]
    return subprocess.Popen([sys.executable, "-m", "mma_edge.cli", "run", *sources, *options], env=environment)


def wait_for_records(folder: Path, count: int, process: subprocess.Popen) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not (folder / RECORDS).exists() or (folder / RECORDS).read_bytes().count(b"\n") < count:
        assert process.poll() is None and time.monotonic() < deadline_s
        time.sleep(0.002)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a signal that nothing can catch")
def test_kill_9_loses_at_most_a_second(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    process = begun(folder, str(sample_path()))
    wait_for_records(folder, 9, process)
    process.kill()
    process.wait()
    session = read_session(folder)
    assert NOT_ENDED in session.problems and session.state == "running"
    assert len(session.records) >= 9
    reached_s = session.records[-1]["end_s"]
    shown = pictures(folder / "video-1.mp4")
    print(f"killed at {reached_s} s, {len(shown)} frames, the last at {shown[-1][0]:.2f} s")
    assert reached_s < 7.5, "killed in the middle"
    assert shown[-1][0] > reached_s - 1.0
    assert loudness(folder / "video-1.mp4")(reached_s - 2.0, reached_s - 1.1) > 0.001


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a limit that acts as a full disk does")
def test_a_disk_that_is_full_ends_the_video_and_not_the_records(tmp_path: Path) -> None:
    folder, most = tmp_path / "s", 150_000
    program = f"""
import resource, sys
from mma_edge.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, resource.RLIM_INFINITY))
sys.exit(main(["run", "sample", "--backend", "cpu", "--quiet", "--session", {str(folder)!r}]))
"""
    done = run_python("-c", program)
    assert done.returncode == 0 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line == "note: no more video-1.mp4: File too large; records go on"
    session = read_session(folder)
    assert session.problems == () and len(session.records) == 16
    assert "no more video-1.mp4" in next(event["text"] for event in session.events)
    count = 0
    with av.open(str(folder / "video-1.mp4")) as container:
        try:
            for _ in container.decode(video=0):
                count += 1
        except av.FFmpegError:  # the last picture is cut
            pass
    assert count > 25


def test_a_video_leaves_room_for_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session notices before the disk is full; what is there is an ordinary file."""
    monkeypatch.setattr("mma_edge.session.recorder.MANIFEST_S", 0.05)
    monkeypatch.setattr("mma_edge.session.recorder.RESERVE_BYTES", 1 << 60)
    assert main(["run", "sample", "--backend", "cpu", "--quiet", "--session", str(tmp_path / "s")]) == 0
    session = read_session(tmp_path / "s")
    assert len(session.records) == 16
    assert ["are left on its disk" in event["text"] for event in session.events if event["kind"] == "notice"] == [True]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a limit that acts as a full disk does")
def test_a_disk_without_room_for_records_is_said_once_and_the_run_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    program = f"""
import resource, sys
from mma_edge.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (2500, resource.RLIM_INFINITY))
sys.exit(main(["run", "sample", "--backend", "cpu", "--quiet", "--no-video", "--session", {str(folder)!r}]))
"""
    done = run_python("-c", program)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    session = read_session(folder)
    assert session.problems == () and len(session.records) >= 3
    assert line.startswith("note: no more --session: cannot write")
    assert f"after {len(session.records)} records, which are kept" in line


@pytest.mark.live
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="signals as Linux has them")
def test_sigterm_ends_a_session_of_two_sources_cleanly(tmp_path: Path) -> None:
    folder, sample = tmp_path / "s", str(sample_path())
    process = begun(folder, f"a={sample}", f"b={sample}", "--realtime")
    wait_for_records(folder, 6, process)
    process.terminate()
    assert process.wait(20) == 0
    session = read_session(folder)
    assert session.problems == () and session.state == "ended"
    assert [session.videos(name)[0][0].name for name in ("a", "b")] == ["video-1.mp4", "video-2.mp4"]
    for name, source in session.sources.items():
        shown = pictures(session.videos(name)[0][0])
        assert source["live"] and len(shown) == source["frames"] - source["video_dropped"]
        assert shown[-1][0] == pytest.approx(source["last_s"] - source["video_start_s"], abs=0.6)
    assert {event["source"] for event in session.events if event["kind"] == "end"} == {"a", "b"}


@pytest.mark.live
def test_a_stream_that_breaks_leaves_a_gap_and_stays_in_step(tmp_path: Path) -> None:
    """Flashes and beeps over RTSP, in a process that is then told to end; read back from the session's video."""
    folder = tmp_path / "s"
    with RTSPServer(seconds=2.0) as server:
        process = begun(folder, f"door={server.url}", "--voice-gate", "off")
        wait_for_records(folder, 10, process)
        server.frozen.set()
        time.sleep(1.5)
        server.cut()
        server.frozen.clear()
        wait_for_records(folder, 24, process)
        process.terminate()
        assert process.wait(20) == 0
    session = read_session(folder)
    source = session.sources["door"]
    assert source["live"] and source["reopened"] >= 1
    gaps = [event for event in session.events if event["kind"] == "gap" and event["source"] == "door"]
    assert {"no picture", "no sound"} == {gap["text"].partition(" for")[0] for gap in gaps}
    offsets = offsets_ms(session.videos("door")[0][0])
    print(offsets, gaps)
    # The break may have torn one flash and its beep apart.
    assert len(offsets) >= 6 and sorted(np.abs(offsets))[-2] < 40
