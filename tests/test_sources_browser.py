"""Promises of the browser source that need no browser: an aiortc peer or a WebSocket client is the visitor."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import aiortc
import numpy as np
import pytest
from aioice.ice import get_host_addresses
from conftest import failure_line, one_line
from visitor import BAD, BAD_MEDIA, RATE_HZ, SDP, heard, page, picture, seated, sound, until, visit

import mma_edge
from mma_edge.cli import main
from mma_edge.errors import DependencyError, UsageError
from mma_edge.pipeline import Pipeline, StreamOptions
from mma_edge.sources import CaptureOptions, Source, name_of, open_source
from mma_edge.sources.base import SourceStats
from mma_edge.sources.browser import visit as visits
from mma_edge.sources.browser.intake import Intake, SenderClock
from mma_edge.sources.browser.messages import MAX_BYTES, BadMessageError, read_media, read_text
from mma_edge.sources.live import LiveBuffer
from mma_edge.sources.network.clock import WARM_UP_S
from mma_edge.types import AudioChunk, Emotion, Frame

pytestmark = pytest.mark.wall_clock


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def source(notes: list[str]) -> Iterator[Source]:
    before = set(threading.enumerate())
    with open_source("browser:0", notes.append) as opened:
        yield opened
        start_s = time.monotonic()
        opened.close()
        assert time.monotonic() - start_s < 2
    assert set(threading.enumerate()) <= before, "a thread is left"


def gathered(source: Source, seconds: float) -> list:
    events = []
    for event in source.events():
        events.append(event)
        if event.time_s > seconds:
            return events
    return events


def test_pictures_and_sound_of_the_websocket_road_come_with_their_capture_times(source: Source) -> None:
    async def send(socket: aiohttp.ClientWebSocketResponse) -> None:
        await seated(socket)
        for number in range(40):
            time_s = 77.0 + 0.04 * number
            await socket.send_bytes(sound(time_s - 0.04))  # a block comes when it is complete
            if number % 2 == 0:
                await socket.send_bytes(picture(time_s - 0.06))  # and a picture after it was encoded
            await asyncio.sleep(0.04)

    sender = threading.Thread(target=visit, args=(source, send))
    sender.start()
    events = gathered(source, 1.2)
    sender.join()
    frames = [event for event in events if isinstance(event, Frame)]
    chunks = [event for event in events if isinstance(event, AudioChunk)]
    assert len(frames) >= 8 and frames[0].image.shape == (48, 64, 3) and abs(int(frames[0].image.mean()) - 200) < 3
    assert chunks[0].sample_rate_hz == RATE_HZ and chunks[0].samples.shape == (1, 1920)
    assert np.allclose(np.diff([chunk.time_s for chunk in chunks]), 0.04, atol=0.002)
    apart = [min(abs(frame.time_s - 0.02 - chunk.time_s) for chunk in chunks) for frame in frames[1:-1]]
    assert max(apart) < 0.002  # a frame was taken 20 ms after the beginning of a block
    assert all(event.arrival_s <= time.monotonic() for event in events)


class _Flashes(aiortc.VideoStreamTrack):
    async def recv(self) -> object:
        import av

        frame = av.VideoFrame.from_ndarray(np.full((120, 160, 3), 128, np.uint8), format="rgb24")
        frame.pts, frame.time_base = await self.next_timestamp()
        return frame


async def offered(peer: aiortc.RTCPeerConnection, socket: aiohttp.ClientWebSocketResponse) -> None:
    await peer.setLocalDescription(await peer.createOffer())
    await socket.send_json({"type": "offer", "sdp": peer.localDescription.sdp})
    answer = await heard(socket, "answer")
    await peer.setRemoteDescription(aiortc.RTCSessionDescription(answer["sdp"], "answer"))


def test_a_webrtc_visitor_delivers_and_is_freed_when_it_goes_and_may_come_back(
    source: Source, notes: list[str]
) -> None:
    if not get_host_addresses(use_ipv4=True, use_ipv6=True):
        pytest.skip("this machine has no network but loopback, which aiortc does not use")

    async def send(socket: aiohttp.ClientWebSocketResponse) -> None:
        await seated(socket)
        peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        peer.addTrack(_Flashes())
        peer.addTrack(aiortc.AudioStreamTrack())
        await offered(peer, socket)
        frames = source.stats.frames
        await until(lambda: source.stats.frames > frames + 10, 20)
        await peer.close()

    kinds = set()
    reader = threading.Thread(target=lambda: kinds.update(map(type, source.events())))
    reader.start()
    for _ in range(2):
        visit(source, send)
        asyncio.run(until(lambda: not source._visits.open))
        assert source._visits.seat is None
        assert not any("decoder" in each.name for each in threading.enumerate())
    source.close()
    reader.join()
    assert kinds == {Frame, AudioChunk}
    source._watch()
    assert sum("sends 160x120 by WebRTC" in line for line in notes) == 2
    assert sum("is gone" in line for line in notes) == 2 and source.stats.reopened == 1


def test_without_sound_the_page_is_told_and_what_it_sends_is_thrown_away(notes: list[str]) -> None:
    async def send(socket: aiohttp.ClientWebSocketResponse) -> None:
        await socket.send_json({"type": "start"})
        assert (await heard(socket, "go"))["audio"] is False
        for number in range(20):
            await socket.send_bytes(sound(0.05 * number))
            await socket.send_bytes(picture(0.05 * number))
            await asyncio.sleep(0.05)

    with open_source("browser:0", notes.append, audio=False) as source:
        assert source.has_video and not source.has_audio
        sender = threading.Thread(target=visit, args=(source, send))
        sender.start()
        assert {type(event) for event in gathered(source, 0.6)} == {Frame}
        sender.join()


def test_a_visitor_without_a_camera_is_said_to_send_sound_alone(
    source: Source, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visits, "_TICK_S", 0.02)
    monkeypatch.setattr(visits, "_PICTURE_S", 0.1)

    async def send(socket: aiohttp.ClientWebSocketResponse) -> None:
        await seated(socket)
        await socket.send_bytes(sound(0))
        await until(lambda: source._watch() or any("sends sound alone by WebSocket" in line for line in notes))

    visit(source, send)


def test_one_visitor_sends_at_a_time_and_the_next_gets_the_seat(source: Source) -> None:
    async def run() -> None:
        async with page(source) as first, page(source) as second:
            await seated(first)
            await second.send_json({"type": "start"})
            await heard(second, "taken")
            await second.send_bytes(picture(0))
            assert "before it was asked" in (await heard(second, "refused"))["text"]
            await first.send_json({"type": "stop"})
            await until(lambda: source._visits.seat is None)
            await seated(second)
        async with page(source) as third:
            await seated(third)

    asyncio.run(run())


def test_who_sends_nothing_loses_the_seat(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "_BEGIN_S", 0.2)
    monkeypatch.setattr(visits, "_SILENT_S", 0.1)

    async def idle(socket: aiohttp.ClientWebSocketResponse) -> None:
        await seated(socket)
        assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)

    visit(source, idle)


def test_too_many_pages_and_offers_are_refused(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with page(source) as socket:
            await seated(socket)
            for number in range(visits.OFFERS_PER_MINUTE + 1):
                await socket.send_json({"type": "offer", "sdp": SDP})
                text = (await heard(socket, "refused"))["text"]
                assert ("offers in a minute" in text) == (number == visits.OFFERS_PER_MINUTE), (number, text)
        others = [page(source) for _ in range(visits.MAX_VISITS)]
        await asyncio.gather(*(each.__aenter__() for each in others))
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with page(source):
                pass
        assert caught.value.status == 503
        await asyncio.gather(*(each.__aexit__(None, None, None) for each in others))

    monkeypatch.setattr(visits, "MAX_BAD", 1000)
    asyncio.run(run())


def test_bad_messages_by_the_hundred_are_told_once_and_leave_nothing(
    source: Source, notes: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    async def send(socket: aiohttp.ClientWebSocketResponse) -> None:
        await seated(socket)
        for _ in range(15):
            for bad in BAD:
                await socket.send_str(bad)
                await heard(socket, "refused")
            for bad in BAD_MEDIA:
                await socket.send_bytes(bad)
                await heard(socket, "refused")

    async def send_until_shown_out(socket: aiohttp.ClientWebSocketResponse) -> None:
        with contextlib.suppress(ConnectionError, TypeError, ValueError):  # hung up on
            await send(socket)

    with monkeypatch.context() as patch:
        patch.setattr(visits, "MAX_BAD", 1000)
        visit(source, send)
    visit(source, send_until_shown_out)
    source._watch()
    told = [line for line in notes if "a visitor sent" in line]
    assert 5 < len(told) == len(set(told)) == len(source._visits.complaints.counts)
    assert 400 < sum(source._visits.complaints.counts.values()) <= 15 * len(BAD + BAD_MEDIA) + visits.MAX_BAD + 1
    asyncio.run(until(lambda: not source._visits.open and source._visits.seat is None))
    visit(source, seated)
    assert capfd.readouterr() == ("", "")


def test_an_oversized_message_ends_the_visit(source: Source, notes: list[str]) -> None:
    async def send(socket: aiohttp.ClientWebSocketResponse) -> None:
        await seated(socket)
        await socket.send_bytes(bytes(MAX_BYTES + 1))
        while not socket.closed:
            await socket.receive()
        assert socket.close_code == 1009

    visit(source, send)
    asyncio.run(until(lambda: source._watch() or any("too large" in line for line in notes)))


@pytest.mark.parametrize("text", BAD)
def test_no_bad_text_is_understood(text: str) -> None:
    with pytest.raises(BadMessageError):
        read_text(text)


@pytest.mark.parametrize("message", BAD_MEDIA)
def test_no_bad_picture_or_sound_is_understood(message: bytes) -> None:
    with pytest.raises(BadMessageError):
        read_media(message)


def test_a_visitor_is_shown_the_newest_answers_and_a_face_that_is_gone_no_more(source: Source) -> None:
    def answer(track: int | None, end_s: float, happy: float) -> Emotion:
        box = None if track is None else (16.0, 12.0, 32.0, 24.0)
        return Emotion(0, end_s, track, box, ("video",), ("happy", "sad"), np.float32([happy, 1 - happy]), 5.0)

    async def send(socket: aiohttp.ClientWebSocketResponse) -> None:
        await seated(socket)
        await socket.send_bytes(picture(0))
        await until(lambda: source._visits.intake.size != (0, 0))
        source.show(answer(1, 4.0, 0.9))
        (face,) = (await heard(socket, "emotions"))["faces"]
        assert (face["track_id"], face["label"]) == (1, "happy") and face["confidence"] == pytest.approx(0.9)
        assert face["box"] == pytest.approx([0.25, 0.25, 0.5, 0.5])
        for _ in range(100):
            source.show(answer(2, 9.0, 0.2))
        assert [face["track_id"] for face in (await heard(socket, "emotions"))["faces"]] == [2]

    visit(source, send)
    source.close()
    source.show(answer(1, 4.0, 0.9))  # after the end: nothing


def test_a_source_is_shown_every_answer_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Emotion] = []
    with open_source("sample") as file:
        monkeypatch.setattr(file, "show", shown.append)
        answers = list(Pipeline(mma_edge.load(), file, StreamOptions(hop_s=2.0)))
    assert len(answers) > 2 and shown == answers


def test_reports_align_what_arrival_cannot_and_no_sound_is_torn() -> None:
    """The sound's stamps begin 300 ms too late, its reports come after 2 s, those of the picture before."""
    stats = SourceStats()
    buffer, placed = LiveBuffer(stats, 1000), {"video": [], "audio": []}
    clock = Intake(buffer, stats).begin(one_clock=False)
    times = SenderClock(clock, ["video", "audio"])
    sender_s = 3.9e9
    for number in range(round(10 / 0.02)):
        now_s = 0.02 * number
        if number == 20:
            times.report("video", now_s, sender_s + now_s)
        if number in (100, 350):
            times.report("audio", now_s + 40.3, sender_s + now_s)
        for track, stamp_s, late_s in (("video", now_s, 0.06), ("audio", now_s + 40.3, 0.03)):
            time_s = clock.place(track, times.stamp_s(track, stamp_s), 500 + now_s + late_s)
            if time_s is not None:
                placed[track].append((now_s, time_s))
    assert placed["audio"][0][0] >= WARM_UP_S - 0.05
    audio = np.array([time_s for _, time_s in placed["audio"]])
    assert np.abs(np.diff(audio) - 0.02).max() < 0.001
    pictures = dict(placed["video"])
    apart = [pictures[now_s] - sound_s for now_s, sound_s in placed["audio"] if now_s > 4.0]
    assert len(apart) == 299 and max(map(abs, apart)) < 0.001
    assert not clock.by_arrival


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        ("browser:nowhere", {}, "no place to listen"),
        ("browser", {"size": (640, 480)}, "--size with browser"),
        ("browser", {"microphone": "usb"}, "--microphone with browser"),
        ("browser:0", {"tls_key": Path("key.pem")}, "--tls-key without --tls-cert"),
        ("browser:0", {"tls_cert": Path("none.pem")}, "none.pem"),
        ("sample", {"tls_cert": Path("none.pem")}, "--tls-cert with sample"),
    ],
)
def test_what_does_not_go_with_a_browser_is_one_line(spec: str, options: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        open_source(spec, capture=CaptureOptions(**options))
    one_line(caught.value)


def test_a_wrong_place_is_said_before_a_model_is_loaded(capsys: pytest.CaptureFixture) -> None:
    assert main(["run", "browser:nowhere", "--bundle", "there is none"]) == 2
    assert "no place to listen" in failure_line(capsys)


@pytest.mark.parametrize("missing", ["aiohttp", "aiortc"])
def test_without_the_extra_the_line_names_it(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("mma_edge.sources.browser", "mma_edge.web"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(DependencyError, match=rf'{missing} is not installed; pip install "mma-edge\[browser\]"'):
        open_source("browser:0")


def test_a_source_is_named_as_it_was_asked_for() -> None:
    with open_source("browser:127.0.0.1:0") as source:
        assert source.name == "browser:127.0.0.1:0"
    assert name_of("browser:0.0.0.0:9000") == "browser:0.0.0.0:9000"
