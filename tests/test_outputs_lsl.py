"""LSL: what pylsl's own inlet gets, when it says that it was, and consumers that hang, die and come back."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import python_environment
from live_sources import PacedSource, SlowModel
from lsl_consumer import CONFIG
from mosquitto import wait_for

from mma_edge.cli import main
from mma_edge.live import LivePipeline
from mma_edge.pipeline import StreamOptions
from mma_edge.types import Emotion

pylsl = pytest.importorskip("pylsl", reason="pylsl is not installed")

from mma_edge.outputs.lsl import NO_TRACK, LslStreams, SourceClock  # noqa: E402

pytestmark = [pytest.mark.wall_clock, pytest.mark.live]
LABELS = ("happy", "sad")


@pytest.fixture(scope="module", autouse=True)
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    path = tmp_path_factory.mktemp("lsl") / "lsl_api.cfg"
    path.write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSLAPICFG", str(path))
        yield


class Running:
    labels, names = LABELS, ("left", "right")

    def __init__(self, said: list[str]) -> None:
        self.options = StreamOptions(notify=said.append)


def answer(end_s: float, track: int | None = 1, source: str = "left") -> Emotion:
    return Emotion(end_s - 4, end_s, track, None, ("audio",), LABELS, np.array([0.9, 0.1]), 12.0, 0.5, source=source)


def opened(name: str) -> pylsl.StreamInlet:
    (stream,) = pylsl.resolve_byprop("name", name, 1, 10)
    inlet = pylsl.StreamInlet(stream)
    inlet.open_stream(10)
    return inlet


def channels(inlet: pylsl.StreamInlet) -> list[tuple[str, str]]:
    found, channel = [], inlet.info(10).desc().child("channels").child("channel")
    while not channel.empty():
        found.append((channel.child_value("label"), channel.child_value("unit")))
        channel = channel.next_sibling()
    return found


def test_an_inlet_gets_each_answer_with_the_meaning_of_its_channels_and_the_time_of_its_window() -> None:
    said: list[str] = []
    with LslStreams("test answers") as streams:
        streams.begin(Running(said))
        left, right, markers = map(opened, ("test answers left", "test answers right", "test answers markers"))
        assert channels(left) == [
            ("happy", "probability"),
            ("sad", "probability"),
            ("track_id", "number"),
            ("video", "boolean"),
            ("audio", "boolean"),
            ("voice", "share"),
        ]
        info = left.info(5)
        assert info.type() == "Emotion" and info.nominal_srate() == pylsl.IRREGULAR_RATE
        assert info.desc().child_value("source") == "left" and info.desc().child_value("window_s") == "4"
        now_s = time.monotonic()
        streams.frame("left", type("F", (), {"time_s": 100.0, "arrival_s": now_s})(), ())
        streams.write(answer(99.0))
        streams.write(answer(99.5, None))
        streams.write(answer(7.0, 3, "right"))  # nothing of it was seen: by the answer's age
        sample, stamp_s = left.pull_sample(5)
        assert sample == pytest.approx([0.9, 0.1, 1.0, 0.0, 1.0, 0.5])
        ahead_s = pylsl.local_clock() - time.monotonic()
        assert stamp_s == pytest.approx(now_s - 1.0 + ahead_s, abs=0.01)
        sample, stamp_s = left.pull_sample(5)
        assert sample[2] == NO_TRACK and stamp_s == pytest.approx(now_s - 0.5 + ahead_s, abs=0.01)
        sample, stamp_s = right.pull_sample(5)
        assert sample[2] == 3 and abs(stamp_s - pylsl.local_clock()) < 1
        streams.notice("a camera is back")
        (text,), stamp_s = markers.pull_sample(5)
        assert text == "a camera is back" and abs(stamp_s - pylsl.local_clock()) < 1
        assert markers.info(5).type() == "Markers"
    assert len(said) == 1 and "3 streams" in said[0]
    start_s = time.monotonic()
    assert pylsl.resolve_byprop("name", "test answers left", 1, 0.5) == [] and time.monotonic() - start_s < 15


def test_the_stamps_of_a_live_run_are_those_of_its_pictures() -> None:
    options = StreamOptions(window_s=1.0, hop_s=0.25, voice_gate=None, centre_fallback=True)
    streams = LslStreams("test run")
    begun_s = time.monotonic()
    with streams:
        options = StreamOptions(**{**options.__dict__, "watchers": (streams,)})
        with LivePipeline(SlowModel(0.05), {"one": PacedSource(seconds=3.0)}, options) as live:
            streams.begin(live)
            inlet = opened("test run")
            ends_s = []
            for emotion in live:
                streams.write(emotion)
                ends_s.append(emotion.end_s)
            stamps_s = [inlet.pull_sample(5)[1] for _ in ends_s]
    assert len(ends_s) >= 8
    differences_s = np.subtract(stamps_s, ends_s)  # one origin: the pictures' own clock
    assert np.ptp(differences_s) < 0.05
    assert begun_s < differences_s[0] < begun_s + 5


def test_a_network_that_delays_moves_no_stamp_and_a_source_that_begins_anew_is_followed() -> None:
    clock, late = SourceClock(), np.random.default_rng(1).exponential(0.2, 2000)
    assert math.isnan(clock.at(0.0))
    for number, late_s in enumerate(late):
        clock.add(number / 25, 1000 + number / 25 + late_s)
        assert number < 50 or clock.at(number / 25) == pytest.approx(1000 + number / 25, abs=0.05)
    clock.add(0.0, 2000.0)
    assert clock.at(1.0) == 2001.0
    for second in range(600):  # a clock that is too slow by 100 ppm
        clock.add(second * (1 - 1e-4), 2000.0 + second)
    assert clock.at(599 * (1 - 1e-4)) == pytest.approx(2599.0, abs=0.002)


def consumer(name: str) -> subprocess.Popen:
    environment = python_environment()
    script = Path(__file__).with_name("lsl_consumer.py")
    child = subprocess.Popen([sys.executable, script, name], stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout.readline() == "open\n"
    return child


def test_a_consumer_that_hangs_or_dies_holds_nothing_up_and_another_one_goes_on() -> None:
    with LslStreams("test consumers") as streams:
        streams.begin(Running([]))
        first = consumer("test consumers left")
        streams.write(answer(0.0))
        assert json.loads(first.stdout.readline())[0][2] == 1
        first.send_signal(signal.SIGSTOP)
        start_s = time.monotonic()
        for number in range(20_000):
            streams.write(answer(number))
        assert time.monotonic() - start_s < 5
        second = consumer("test consumers left")
        streams.write(answer(0.0, 77))
        assert json.loads(second.stdout.readline())[0][2] == 77
        for child in (first, second):
            child.kill()
            child.wait()
            child.stdout.close()
        third = consumer("test consumers left")
        streams.write(answer(0.0, 78))
        assert json.loads(third.stdout.readline())[0][2] == 78
        third.send_signal(signal.SIGSTOP)
        start_s = time.monotonic()
    assert time.monotonic() - start_s < 3
    third.kill()
    third.wait()
    third.stdout.close()


def test_a_hundred_runs_leave_no_descriptor() -> None:
    def once() -> int:
        with LslStreams("test often") as streams:
            streams.begin(Running([]))
        return len(os.listdir("/proc/self/fd"))

    before = once()
    for _ in range(99):
        once()
    wait_for(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_a_missing_library_and_a_file_are_one_line(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["run", "sample", "--lsl"]) == 2
    assert "--lsl with the file sample.mp4" in capsys.readouterr().err

    class Broken:
        def find_spec(self, name: str, *unused: object) -> None:
            if name == "pylsl":
                raise RuntimeError("LSL binary library file was not found.\nPlease download it")

    for name in [name for name in sys.modules if name.startswith(("pylsl", "mma_edge.outputs.lsl"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    assert main(["run", "sample", "--realtime", "--lsl", "--bundle", "none"]) == 11
    error = capsys.readouterr().err
    assert "liblsl" in error and error.count("\n") == 1
