"""What a stream of the network must not do in weeks: leak, hang, crash, or ask its server again and again."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import run_python
from held import held, returns_to
from rtsp_server import RTSPServer, write_clip

from mma_edge.errors import MMAEdgeError
from mma_edge.sources.network.address import Address
from mma_edge.sources.network.connection import Limits
from mma_edge.sources.network.reader import Backoff
from mma_edge.sources.network.source import NetworkSource

pytestmark = [pytest.mark.wall_clock, pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")]

RECONNECTS, SETTLED = 300, 50
SLOPE_BYTES = 8192
"""Most memory that a connection may leave behind; 16 kB each were 135 MB a day elsewhere."""
# In processes of their own: a crash is then their end, not the test's, and the server's memory is not theirs.
PRELUDE = f"""
import gc, os, sys, threading, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
from held import held, returns_to
from mma_edge.sources.network.address import Address
from mma_edge.sources.network.connection import Limits
from mma_edge.sources.network.reader import Backoff
from mma_edge.sources.network.source import NetworkSource
"""
RECONNECTING = (
    PRELUDE
    + f"""
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def watch(open_source):
    with open_source():  # what libraries keep from the first time on
        pass
    gc.collect()
    before, sizes, deadline_s = held(), [], time.monotonic() + 200
    with open_source() as source:
        threading.Thread(target=lambda: [None for _ in source.events()], daemon=True).start()
        while (count := source.stats.reopened) < {RECONNECTS}:
            assert time.monotonic() < deadline_s, count
            sizes += [resident()] * (count - len(sizes))
            time.sleep(0.01)
    used = np.array(sizes[{SETTLED}:])
    slope = np.polyfit(np.arange(len(used)), used, 1)[0]
    print(f"{{slope:.0f}} bytes a reconnect, threads and descriptors before {{before}}")
    assert slope < {SLOPE_BYTES} and returns_to(before), (slope, before, held())
"""
)
STOPPING = (
    PRELUDE
    + """
import random
from concurrent.futures import ThreadPoolExecutor
random_ = random.Random(1)

def stop(pause_s):
    source = NetworkSource(Address.of(sys.argv[1]), limits=Limits(10.0, 0.1))
    taken = threading.Thread(target=lambda: [None for _ in source.events()])
    taken.start()
    time.sleep(pause_s)
    start_s = time.monotonic()
    source.close()
    taken.join(5.0)
    assert not taken.is_alive() and not source._reader.is_alive()
    return time.monotonic() - start_s

before = held()
with ThreadPoolExecutor(8) as pool:
    took_s = list(pool.map(stop, [random_.uniform(0, 0.6) for _ in range(200)]))
assert max(took_s) < 3.0, max(took_s)
assert returns_to(before), (before, held())
"""
)


def succeeds(*program: str) -> bool:
    done = run_python("-c", *program)
    print(done.stdout, done.stderr)
    return done.returncode == 0


def test_three_hundred_reconnects_leak_nothing(tmp_path: Path) -> None:
    """Real containers, of a file instead of a server: each ends at once, and is opened again."""
    write_clip(tmp_path / "clip.ts", 0.12, format="mpegts")
    opening = """
import av
def connect(address, limits):
    return av.open(sys.argv[1])
watch(lambda: NetworkSource(Address.of("tcp://127.0.0.1:9"), connect=connect, backoff=Backoff(0.0, 0.0)))
"""
    assert succeeds(RECONNECTING + opening, str(tmp_path / "clip.ts"))


@pytest.mark.live
def test_three_hundred_reconnects_to_an_rtsp_server_leak_nothing() -> None:
    opening = "watch(lambda: NetworkSource(Address.of(sys.argv[1]), limits=Limits(5, 1), backoff=Backoff(0.0, 0.0)))"
    stop = threading.Event()
    with RTSPServer(seconds=1.0, speed=30.0) as server:

        def cut() -> None:
            plays = 0
            while not stop.wait(0.01):
                if server.plays > plays:
                    plays = server.plays
                    stop.wait(0.12)
                    server.cut()

        thread = threading.Thread(target=cut)
        thread.start()
        try:
            assert succeeds(RECONNECTING + opening, server.url)
        finally:
            stop.set()
            thread.join()


@pytest.mark.live
def test_two_hundred_stops_of_a_frozen_stream_neither_crash_nor_hang() -> None:
    with RTSPServer(seconds=1.0, speed=20.0, stalls_s=2.0) as server:
        assert succeeds(STOPPING, server.url)


@pytest.mark.parametrize(
    "failure",
    [
        {"answer": "401 Unauthorized"},
        {"answer": "404 Not Found"},
        {"answer": "500 Internal Server Error"},
        {"ends": "OPTIONS"},
        {"ends": "DESCRIBE"},
        {"ends": "SETUP"},
        {"ends": "PLAY"},
        {"mute": True},
        {"stalls_s": -1.0},
    ],
    ids=str,
)
def test_an_opening_that_fails_at_any_step_leaves_nothing(failure: dict) -> None:
    with RTSPServer(seconds=0.4, **failure) as server:
        address, limits = Address.of(server.url), Limits(0.5, 0.2)

        def fail() -> None:
            with pytest.raises(MMAEdgeError):
                NetworkSource(address, limits=limits)
            server.cut()

        fail()  # what libraries keep from the first time on
        time.sleep(0.3)
        before = held()
        for _ in range(3):
            fail()
        assert returns_to(before)


def attempts(num_sources: int, seconds: float, chance: Callable[[], float]) -> np.ndarray:
    """When sources that are all refused, from the same moment on, ask their server again."""
    asked_s = []
    for _ in range(num_sources):
        backoff, now_s = Backoff(chance=chance), 0.0
        while (now_s := now_s + backoff.pause_s(0.0)) < seconds:
            asked_s.append(now_s)
    return np.array(asked_s)


def test_eight_sources_that_are_refused_do_not_storm_their_servers() -> None:
    """At most 20 attempts a minute of all of them, but for the first minute, when a short failure is over soonest."""
    asked_s = attempts(8, 3600.0, np.random.default_rng(1).random)
    a_minute = np.histogram(asked_s, np.arange(60.0, 3601.0, 60.0))[0]
    assert a_minute.max() <= 20 and (asked_s < 60).sum() <= 8 * 7


@pytest.mark.live
def test_waiting_for_eight_refused_sources_costs_nothing() -> None:
    with RTSPServer(seconds=0.4, speed=10.0) as server:
        sources = [NetworkSource(Address.of(server.url), limits=Limits(5.0, 1.0)) for _ in range(8)]
        readers = [threading.Thread(target=list, args=(source.events(),)) for source in sources]
        for reader in readers:
            reader.start()
        server.drop()
        time.sleep(4.0)  # the pauses have grown to 4 s
        start_s, cpu_s = time.monotonic(), time.process_time()
        time.sleep(6.0)
        share = (time.process_time() - cpu_s) / (time.monotonic() - start_s)
        for source in sources:
            source.close()
        for reader in readers:
            reader.join()
    assert share < 0.02, share
