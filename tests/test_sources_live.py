"""Promises of live sources with real parts on 127.0.0.1: RTSP, HLS, HTTPS, UDP, GStreamer. Run by: pytest -m live"""

from __future__ import annotations

import functools
import http.server
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import one_line
from rtsp_server import RTSPServer, write_clip

import mma_benchmarks.soak
from mma_edge.cli import main
from mma_edge.errors import DeviceError, SourceError
from mma_edge.sources import CaptureOptions, Source, open_source
from mma_edge.sources.sync.measure import paired, watch
from mma_edge.types import AudioChunk, Frame

pytestmark = pytest.mark.live

SYNC_MS, ARRIVAL_SYNC_MS = 40, 90
"""By arrival alone a picture is a frame late: it is complete when the next begins, and this machine may be busy."""
GST = shutil.which("gst-launch-1.0")
SYSTEM_PYTHON = "/usr/bin/python3"
GST_RTSP = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"


def in_step(source: Source, seconds: float, since_s: float = 0.0, most_ms: float = SYNC_MS) -> bool:
    """Whether each second has its flash and its beep, at the same time."""
    seen = watch(source, seconds, enough=None)
    flashes, beeps = seen.flashes(), seen.sounds()
    flashes = flashes[flashes > since_s]
    late_ms = [1000 * (heard - shown) for shown, heard in paired(flashes, beeps)]
    assert len(late_ms) >= seconds - since_s - 1.5, (flashes, beeps)
    assert max(map(abs, np.diff(flashes) - 1.0)) < 0.1
    return max(map(abs, late_ms)) <= most_ms


@contextmanager
def http_server(folder: Path, certificate: Path | None = None) -> Iterator[int]:
    """Serves a folder; gives the port."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *unused: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that nobody has signed, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    path, names = tmp_path / "own.pem", ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*command, "-keyout", path, "-out", tmp_path / "cert"], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + (tmp_path / "cert").read_bytes())
    return path


@pytest.mark.parametrize(
    ("server", "since_s"),
    [
        ({}, 0.0),
        ({"info": False, "first_report_s": 0.0}, 0.0),
        ({"info": False, "sound_late_s": 0.3, "first_report_s": 2.0}, 4.0),
        ({"info": False, "sound_late_s": 0.3}, 1.5),
    ],
    ids=["RTP-Info", "reports", "a late report", "nothing but arrival"],
)
def test_rtsp_sound_and_picture_are_in_step(server: dict, since_s: float) -> None:
    said: list[str] = []
    with RTSPServer(**server) as running, open_source(running.url, said.append) as source:
        assert source.has_video and source.has_audio and source.live
        by_arrival = not server.get("info", True) and "first_report_s" not in server
        assert in_step(source, since_s + 4.0, since_s, ARRIVAL_SYNC_MS if by_arrival else SYNC_MS)
        assert source.sync == ("arrival" if by_arrival else "stamps")
    assert [line for line in said if "no common clock" not in line] == []


def test_doctor_measures_a_stream_and_its_sound_can_be_delayed(capsys: pytest.CaptureFixture) -> None:
    with RTSPServer() as server:
        assert main(["doctor", "--sync", server.url, "--seconds", "8"]) == 0
        assert "flashes with their beep" in (said := capsys.readouterr().out) and "in step" in said
        with open_source(server.url, capture=CaptureOptions(audio_delay_ms=200)) as source:
            offset = watch(source, 6.0, enough=None).offset()
    assert offset.median_ms == pytest.approx(200, abs=SYNC_MS)


@contextmanager
def gstreamer_server(*arguments: object) -> Iterator[str]:
    """The port of GStreamer's RTSP server."""
    if (
        not Path(SYSTEM_PYTHON).exists()
        or subprocess.run([SYSTEM_PYTHON, "-c", GST_RTSP], capture_output=True).returncode
    ):
        pytest.skip("GStreamer's RTSP server is not installed (apt: gir1.2-gst-rtsp-server-1.0 python3-gi)")
    script = Path(mma_benchmarks.soak.__file__).with_name("gst_rtsp_server.py")
    with subprocess.Popen([SYSTEM_PYTHON, script, *arguments], stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def test_gstreamers_rtsp_server_is_in_step_over_the_loop_of_its_clip(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.ts", 5, format="mpegts")
    with gstreamer_server(tmp_path / "clip.ts") as port, open_source(f"rtsp://127.0.0.1:{port}/clip") as source:
        assert in_step(source, 9.0)


def test_an_rtsps_certificate_must_be_trusted(
    tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "clip.ts", 5, format="mpegts")
    with gstreamer_server(tmp_path / "clip.ts", certificate) as port:
        with pytest.raises(SourceError, match="is not trusted"):
            open_source(f"rtsps://127.0.0.1:{port}/clip")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with open_source(f"rtsps://127.0.0.1:{port}/clip") as source:
            assert in_step(source, 3.0)


def test_an_https_certificate_must_be_trusted(
    tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "clip.mp4", 2)
    with http_server(tmp_path, certificate) as port:
        with pytest.raises(SourceError, match=r"is not trusted \(self-signed") as caught:
            open_source(f"https://127.0.0.1:{port}/clip.mp4")
        assert "SSL_CERT_FILE" in one_line(caught.value)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with open_source(f"https://127.0.0.1:{port}/clip.mp4") as source:
            assert next(source.events()).time_s >= 0


def test_a_lost_stream_is_waited_for_and_its_time_goes_on() -> None:
    said: list[str] = []
    with RTSPServer() as server, open_source(server.url, said.append) as source:
        lost_s = back_s = 0.0
        before: list[float] = []
        for event in source.events():
            now_s = time.monotonic()
            if not lost_s and event.time_s > 1.0:
                before.append(event.time_s)
                server.drop()
                threading.Timer(2.0, server.listen).start()
                lost_s = now_s
            elif lost_s and now_s > lost_s + 1.5:
                back_s = back_s or now_s
                assert event.time_s - before[0] == pytest.approx(now_s - lost_s, abs=0.5)
                if now_s > back_s + 0.5:
                    break
        assert 2.0 < back_s - lost_s < 12.0 and source.stats.reopened == 1
    assert [("lost" in line, "back after" in line) for line in said] == [(True, False), (False, True)]


def test_a_dead_link_is_seen_within_five_seconds_and_closing_does_not_hang() -> None:
    said: list[str] = []
    with RTSPServer() as server, open_source(server.url, said.append) as source:
        events = source.events()
        next(events)
        server.frozen.set()
        frozen_s = time.monotonic()
        threading.Timer(7.0, source.close).start()
        for _ in events:
            pass
        closed_s = time.monotonic() - frozen_s
        assert any("was lost (nothing came" in line for line in said)
        # The notice comes from the thread that takes the events: it has not waited for the library.
        assert 7.0 <= closed_s < 13.0
    quick: list[float] = []
    with RTSPServer() as server, open_source(server.url, lambda line: quick.append(time.monotonic())) as source:
        events = source.events()
        next(events)
        server.frozen.set()
        frozen_s = time.monotonic()
        stopper = threading.Timer(5.0, lambda: setattr(source, "_closed", True))
        stopper.start()
        list(events)
        assert quick and quick[0] - frozen_s < 5.0


def test_a_server_that_says_nothing_is_one_line() -> None:
    with RTSPServer(seconds=0.2, mute=True) as server, pytest.raises(SourceError, match="did not answer for") as caught:
        open_source(server.url)
    one_line(caught.value)


def test_a_stream_without_sound_is_vision_only() -> None:
    said: list[str] = []
    with RTSPServer(seconds=1.0, sound=False) as server, open_source(server.url, said.append) as source:
        assert isinstance(next(source.events()), Frame)
        assert not source.has_audio and len(said) == 1 and "vision only, because it sends no audio" in said[0]


def test_a_film_over_http_is_played_at_its_own_pace_and_ends(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", 3)
    said: list[str] = []
    with http_server(tmp_path) as port:
        with open_source(f"http://127.0.0.1:{port}/clip.mp4", said.append) as source:
            started_s = time.monotonic()
            events = list(source.events())
        assert 2.8 < time.monotonic() - started_s < 8.0
        with pytest.raises(SourceError, match="404"):
            open_source(f"http://127.0.0.1:{port}/other.mp4")
        (tmp_path / "page.html").write_text("<html>not a stream</html>")
        with pytest.raises(SourceError, match="nothing that FFmpeg can read"):
            open_source(f"http://127.0.0.1:{port}/page.html")
    assert source.stats.frames + source.stats.dropped_frames == 75 and said == []
    sound = [event for event in events if isinstance(event, AudioChunk)]
    assert max(abs(b.time_s - a.end_s) for a, b in pairwise(sound)) < 0.005


def _sender(address: str, folder: Path, kind: str, **options: str) -> subprocess.Popen:
    """A process that sends flashes and beeps at their own pace for a minute."""
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from rtsp_server import write_clip
write_clip({address!r}, 60, paced=True, format={kind!r}, options={options!r})
"""
    return subprocess.Popen([sys.executable, "-c", program], cwd=folder, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("kind", ["udp", "hls"])
def test_streams_of_other_protocols_are_in_step(tmp_path: Path, kind: str) -> None:
    if kind == "udp":
        sender = _sender("udp://127.0.0.1:15731?pkt_size=1316", tmp_path, "mpegts")
        address = "udp://127.0.0.1:15731"
    else:
        address = ""
        parts = {"hls_time": "1", "hls_list_size": "4", "hls_flags": "delete_segments"}
        sender = _sender(str(tmp_path / "live.m3u8"), tmp_path, "hls", **parts)
        deadline_s = time.monotonic() + 60
        while len(list(tmp_path.glob("*.ts"))) < 4:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
    try:
        with http_server(tmp_path) as port, open_source(address or f"http://127.0.0.1:{port}/live.m3u8") as source:
            assert in_step(source, 6.0)
    finally:
        sender.kill()
        sender.wait()


@pytest.mark.skipif(GST is None, reason="GStreamer is not installed (apt: gstreamer1.0-tools and its plugins)")
def test_a_real_pipeline_delivers_its_pictures_in_its_colours() -> None:
    pipeline = "gst:videotestsrc is-live=true pattern={} ! video/x-raw,width=321,height=241,framerate=20/1"
    no_sound = CaptureOptions(microphone="none")
    for pattern, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255)), ("white", (255, 255, 255))):
        with open_source(pipeline.format(pattern), capture=no_sound) as source:
            frame = next(source.events())
            assert frame.image.shape == (240, 320, 3) and source.name == "gst:videotestsrc"
            assert np.abs(frame.image[120, 160].astype(int) - colour).max() <= 4


@pytest.mark.skipif(GST is None, reason="GStreamer is not installed (apt: gstreamer1.0-tools and its plugins)")
def test_a_pipeline_that_ends_is_started_again_and_one_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    no_sound = CaptureOptions(microphone="none")
    with open_source("gst:videotestsrc is-live=true num-buffers=15", said.append, capture=no_sound) as source:
        for _ in source.events():
            if any("is back" in line for line in said):
                break
    assert [line for line in said if "delivers no frames" in line] and source.stats.reopened == 1
    with pytest.raises(DeviceError, match="delivers nothing") as caught:
        open_source("gst:filesrc location=/nowhere ! decodebin", capture=no_sound)
    one_line(caught.value)
