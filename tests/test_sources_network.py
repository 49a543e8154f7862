"""Promises of network sources that need no seconds: addresses, hidden passwords, pauses, clocks, failures at once."""

from __future__ import annotations

import random
import socket
import traceback

import av
import pytest
from conftest import one_line
from rtsp_server import RTSPServer

from mma_edge.errors import DependencyError, MMAEdgeError, SourceError, UsageError, without_passwords
from mma_edge.sources import open_source
from mma_edge.sources.network.address import Address
from mma_edge.sources.network.clock import WARM_UP_S, PlayingClock, StreamClock
from mma_edge.sources.network.reader import Backoff

HOUR_S = 3600
LOGIN = f"me:{2 * 'hush'}@"


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://me:secret@host/stream",
        "rtsp://me:sec/secret@host/stream",
        "rtsp://me:s@secret@host/stream",
        "rtsp://me:it's secret@host/stream".replace(" ", ""),
        "https://host/live.m3u8?token=secret",
        "rtsp://me:secret@host:port/stream",
        "rtsp://me:${PASSWORD}secret@host/stream",
        "rtps://me:secret@host/stream",
        "rtsp:/me:secret@host/stream",
        "rtsp://me:secret@/stream",
        "rtsp://me:secret@[::1/stream",
        "tcp://me:secret@host",
    ],
)
def test_no_password_is_shown(text: str) -> None:
    try:
        address = Address.of(text, {"PASSWORD": "hidden"})
    except UsageError as error:
        assert "secret" not in "".join(traceback.format_exception(error))
        return
    shown = f"{address} {address!r} {address.shown} {address.hide(f'cannot open {address.url!r}')}"
    assert "secret" not in shown and "hidden" not in shown and "host" in address.shown
    assert "secret" in address.url


def test_variables_take_the_place_of_secrets_and_are_shown_by_name() -> None:
    variables = {"CAM_PASSWORD": "a@b/c", "KEY": "stream-key"}
    address = Address.of("rtsp://me:${CAM_PASSWORD}@host/${KEY}", variables)
    assert address.url == "rtsp://me:a%40b%2Fc@host/stream-key"
    assert address.shown == "rtsp://me:${CAM_PASSWORD}@host/${KEY}" and address.port == 554
    assert address.hide("no a@b/c, no a%40b%2Fc, no stream-key") == "no ***, no ***, no ***"
    with pytest.raises(UsageError, match="NOT_SET"):
        Address.of("rtsp://me:${NOT_SET}@host/", variables)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rtps://host/a", "perhaps rtsps"),
        ("rtsp:/host/a", "one slash"),
        ("rtsp://", "no host"),
        ("rtsp://host:none/", "cannot be read"),
        ("udp://", "no port"),
        ("ftp://host/a.mp4", "not understood"),
    ],
)
def test_an_address_with_a_typo_is_one_line_before_anything_is_opened(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        open_source(text)
    one_line(caught.value)


def test_every_error_hides_passwords_that_reach_it() -> None:
    error = MMAEdgeError("cannot read rtsp://me:secret@host/x", "a file", "not http://host/?key=secret")
    assert "secret" not in f"{error} {error.what} {error.hint} {error!r}"
    assert without_passwords("see https://example.org/a and write to me@example.org").endswith("me@example.org")


@pytest.mark.parametrize(
    ("answer", "said"), [("401 Unauthorized", "refuses the login"), ("404 Not Found", "does not exist")]
)
def test_a_wrong_password_and_a_wrong_path_are_said_at_once(answer: str, said: str) -> None:
    with RTSPServer(seconds=0.2, answer=answer) as server, pytest.raises(SourceError, match=said) as caught:
        open_source(server.url.replace("//", f"//{LOGIN}"))
    one_line(caught.value)
    assert "hushhush" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


def test_a_refused_connection_and_an_unknown_host_are_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for host, said in ((f"127.0.0.1:{port}", "nothing listens"), ("camera.invalid", "there is no host")):
        with pytest.raises(SourceError, match=said) as caught:
            open_source(f"rtsp://me:secret@{host}/x")
        assert "secret" not in one_line(caught.value)


def test_a_missing_protocol_names_the_way_round() -> None:
    if int(av.__version__.split(".")[0]) < 16:
        pytest.skip("this PyAV has SRT")
    with pytest.raises(DependencyError, match="srt-live-transmit"):
        open_source("srt://127.0.0.1:9000")


def test_pauses_double_stay_bounded_differ_and_begin_again() -> None:
    even = Backoff(chance=lambda: 0.5)
    assert [even.pause_s(0) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert even.pause_s(5) == 30 and even.pause_s(61) == 0.5 and even.pause_s(0) == 1
    jittered = Backoff(first_s=10, longest_s=10, chance=random.Random(1).random)
    pauses = [jittered.pause_s(0) for _ in range(100)]
    assert min(pauses) >= 8 and max(pauses) <= 12 and len(set(pauses)) > 90


def played(
    clock: StreamClock, seconds: float, video_s: float = 0.0, audio_s: float = 0.0, start_s: float = 1000.0, rate=1.0
) -> dict:
    """Offset of the sound in `seconds` of even arrivals with jitter, where the tracks' stamps are wrong by so much."""
    random_ = random.Random(3)
    placed: dict[str, list] = {"video": [], "audio": []}
    for number in range(round(50 * seconds)):
        time_s = number / 50
        for track, wrong_s in (("video", video_s), ("audio", audio_s)):
            if track == "audio" or number % 2 == 0:
                time = clock.place(track, 5 + time_s * rate + wrong_s, start_s + time_s + random_.uniform(0, 0.03))
                if time is not None:
                    placed[track].append((start_s + time_s, time))
    return placed


def worst_ms(placed: list) -> float:
    return 1000 * max(abs(placed_s - true_s) for true_s, placed_s in placed)


def test_even_stamps_come_out_even_on_this_machines_clock() -> None:
    placed = played(StreamClock(one_clock=False), 30)
    assert placed["video"][0][0] >= 1000 + WARM_UP_S - 0.03
    assert worst_ms(placed["video"]) < 5 and worst_ms(placed["audio"]) < 5


def test_tracks_with_clocks_of_their_own_are_aligned_by_arrival_until_the_server_corrects_them() -> None:
    clock = StreamClock(one_clock=False)
    placed = played(clock, 5, audio_s=-0.3)
    assert clock.by_arrival and worst_ms(placed["video"]) < 5 and worst_ms(placed["audio"]) < 5
    # The first report: the sound's stamps step by 0.3 s.
    random_ = random.Random(3)
    after = [(1005 + n / 50, clock.place("audio", 10 + n / 50, 1005 + n / 50 + random_.uniform(0, 0.03)))
             for n in range(100)]  # fmt: skip
    clock.place("video", 12, 1007)
    assert not clock.by_arrival and worst_ms(after) < 35


def test_one_container_is_one_clock_however_late_its_pictures_come() -> None:
    clock = StreamClock(one_clock=True)
    times = []
    for number in range(200):
        time_s = number / 50
        clock.place("audio", time_s, 500 + time_s)
        times.append((500 + time_s, clock.place("video", time_s, 500.4 + time_s)))
    assert worst_ms([pair for pair in times if pair[1] is not None]) < 1


def test_a_delay_of_the_network_moves_nothing() -> None:
    clock = StreamClock(one_clock=True)
    played(clock, 3)
    # Two seconds held up, then all at once.
    times = [(1003 + n / 50, clock.place("audio", 8 + n / 50, 1005.0 + n / 1000)) for n in range(100)]
    assert worst_ms(times) < 45


def test_stamps_that_run_too_slowly_give_way_to_the_arrival_of_pictures() -> None:
    """25 frames a second stamped, 21 sent."""
    clock = StreamClock(one_clock=True)
    late_ms = []
    for number in range(45 * 21):
        arrival_s = 100 + number / 21
        time_s = clock.place("video", number / 25, arrival_s)
        if number > 42 * 21:
            late_ms.append(1000 * abs(arrival_s - time_s))
    assert max(late_ms) < 1


def test_what_is_stored_is_played_at_its_own_pace() -> None:
    clock = PlayingClock()
    assert [clock.place("video", 7.0 + n, 50.0) for n in range(5)] == [50, 51, 52, 53, 54]
    assert clock.place("video", 12.0, 59.0) == 59.0  # held up: from here on
    assert clock.place("video", 12.04, 59.0) == pytest.approx(59.04)
    assert clock.place("video", 12.0 + HOUR_S, 59.1) == pytest.approx(59.1)  # the stamps stepped
