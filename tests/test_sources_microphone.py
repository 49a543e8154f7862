"""Promises of `Microphone`, with a fake driver: steady time stamps, bounded memory, unplugging noticed."""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from mma_edge.errors import DependencyError, DeviceError
from mma_edge.sources.base import SourceStats
from mma_edge.sources.microphone import (
    KEEP_S,
    BlockCallback,
    Microphone,
    MicrophoneSource,
    input_devices,
    open_default_input,
    open_input,
)

RATE = 16000
BLOCK = 480  # samples, 30 ms


class Driver:
    """A sound driver and its clock, both moved by the test."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.on_block: BlockCallback | None = None
        self.present = True
        self.opened = self.closed = 0

    def clock(self) -> float:
        return self.now_s

    def open(self, on_block: BlockCallback, rescan: bool) -> Driver:
        if not self.present:
            raise DeviceError("there is no input device")
        self.opened += 1
        self.on_block = on_block
        return self

    def close(self) -> None:
        self.closed += 1

    def deliver(self, count: int, jitter_s: Callable[[], float] = lambda: 0.0, channels: int = 1) -> None:
        """`count` blocks, each handed over when its last sample was recorded plus jitter."""
        for _ in range(count):
            self.now_s += BLOCK / RATE
            late_s = jitter_s()
            self.now_s += late_s
            self.on_block(np.full((BLOCK, channels), 0.5, np.float32), RATE, BLOCK / RATE)
            self.now_s -= late_s


def make(driver: Driver, **options: float) -> tuple[Microphone, SourceStats, list[str]]:
    stats, said = SourceStats(), []
    microphone = Microphone(said.append, stats, open_stream=driver.open, clock=driver.clock, **options)
    return microphone, stats, said


def take_all(microphone: Microphone, start_s: float = 100.0) -> list:
    chunks = []
    while (chunk := microphone.take(start_s)) is not None:
        chunks.append(chunk)
    return chunks


def wait_for(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 3.0
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_blocks_are_mono_float_and_carry_the_time_of_their_first_sample() -> None:
    driver = Driver()
    microphone, _, _ = make(driver)
    driver.deliver(3, channels=2)
    assert microphone.oldest_arrival_s() == pytest.approx(100.03)
    chunks = take_all(microphone)
    assert [c.time_s for c in chunks] == pytest.approx([0.0, 0.03, 0.06])
    assert chunks[0].samples.shape == (1, BLOCK) and chunks[0].samples.dtype == np.float32
    assert chunks[0].samples[0, 0] == 0.5 and chunks[0].arrival_s == pytest.approx(100.03)


def test_jitter_of_the_driver_does_not_tear_the_sound() -> None:
    driver, random = Driver(), np.random.default_rng(0)
    microphone, _, _ = make(driver)
    driver.deliver(300, jitter_s=lambda: random.uniform(0.0, 0.02))
    chunks = take_all(microphone)
    gaps = [b.time_s - a.end_s for a, b in pairwise(chunks)]
    assert max(map(abs, gaps)) < 0.001
    assert chunks[-1].time_s == pytest.approx(299 * 0.03, abs=0.03)


def test_lost_sound_is_a_gap() -> None:
    driver = Driver()
    microphone, _, _ = make(driver)
    driver.deliver(2)
    driver.now_s += 0.5
    driver.deliver(1)
    chunks = take_all(microphone)
    assert chunks[2].time_s - chunks[1].end_s == pytest.approx(0.5)


def test_what_nobody_reads_is_dropped_oldest_first_and_counted() -> None:
    driver = Driver()
    microphone, stats, _ = make(driver)
    driver.deliver(round((KEEP_S + 3.0) / 0.03))
    assert stats.dropped_audio_s == pytest.approx(3.0, abs=0.1)
    chunks = take_all(microphone)
    assert chunks[0].time_s == pytest.approx(3.0, abs=0.1)
    assert sum(c.samples.shape[1] for c in chunks) / RATE == pytest.approx(KEEP_S, abs=0.1)


def test_unplugging_is_noticed_said_once_and_survived() -> None:
    driver = Driver()
    microphone, _, said = make(driver, retry_s=0.01)
    driver.deliver(2)
    microphone.watch()
    assert said == []
    old_block = driver.on_block
    driver.present = False
    driver.now_s += 3.0
    for _ in range(5):
        microphone.watch()
    assert len(said) == 1 and "stopped delivering" in said[0]
    wait_for(lambda: driver.closed == 1)
    driver.present = True
    wait_for(lambda: driver.opened == 2)
    wait_for(lambda: not microphone._reopener.is_alive())
    microphone.watch()
    assert len(said) == 1  # open is not yet back: nothing was heard
    take_all(microphone)
    old_block(np.zeros((BLOCK, 1), np.float32), RATE, None)
    assert take_all(microphone) == []  # a late block of the old stream
    driver.deliver(1)
    microphone.watch()
    assert said[1:] == ["the microphone is back"]
    assert len(take_all(microphone)) == 1
    microphone.close()
    assert driver.closed == 2


def fake_sounddevice(**changes: object) -> types.ModuleType:
    """A stand-in for the package: one device with two channels, which refuses mono."""
    module = types.ModuleType("sounddevice")

    class PortAudioError(Exception):
        pass

    class InputStream:
        def __init__(self, channels: int, callback: Callable, **_: object) -> None:
            if channels == 1:
                raise PortAudioError("Invalid number of channels")
            self.callback, self.channels, self.started = callback, channels, False

        def start(self) -> None:
            self.started = True

    module.PortAudioError, module.InputStream = PortAudioError, InputStream
    module.query_devices = lambda kind: {"name": "mic", "default_samplerate": 44100.0, "max_input_channels": 2}
    for name, value in changes.items():
        setattr(module, name, value)
    return module


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(DependencyError, match=r"pip install 'mma-edge\[live\]'"):
        open_default_input(lambda *_: None)


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(DependencyError, match="libportaudio2"):
        open_default_input(lambda *_: None)


def test_a_missing_device_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    module = fake_sounddevice()

    def none_here(kind: str) -> None:
        raise module.PortAudioError("Error querying device -1")

    module.query_devices = none_here
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    with pytest.raises(DeviceError, match="there is no input device"):
        open_default_input(lambda *_: None)


def test_a_device_without_mono_is_opened_with_two_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sounddevice())
    got = []
    stream = open_default_input(lambda *block: got.append(block))
    assert stream.started and stream.channels == 2
    samples = np.zeros((4, 2), np.float32)
    stream.callback(samples, 4, types.SimpleNamespace(currentTime=5.0, inputBufferAdcTime=4.9), None)
    stream.callback(samples, 4, types.SimpleNamespace(currentTime=5.0, inputBufferAdcTime=0.0), None)
    assert got[0][1:] == (44100, pytest.approx(0.1))
    assert got[1][2] is None  # a driver that leaves the ADC time at zero is not believed


def test_a_microphone_is_found_by_name_or_number(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, module = [], fake_sounddevice()

    def query(device: object = None, kind: str | None = None) -> object:
        asked.append(device)
        if device == "mic":
            raise ValueError("Multiple input devices found for 'mic'")
        device = {"name": "USB mic", "default_samplerate": 16000.0, "max_input_channels": 2}
        return device if kind else [device, {**device, "max_input_channels": 0}]

    module.query_devices = query
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    for name in ("usb", "3"):
        open_input(name)(lambda *_: None, False)
    assert asked == ["usb", 3]
    assert input_devices() == {0: "USB mic"}
    with pytest.raises(DeviceError, match=r"no one microphone 'mic' \(Multiple"):
        open_input("mic")(lambda *_: None, False)


def test_a_microphone_alone_is_a_source_that_waits_and_gives_up() -> None:
    driver, said = Driver(), []
    source = MicrophoneSource(None, said.append, give_up_s=60.0, open_stream=driver.open, clock=driver.clock)
    assert source.live and source.has_audio and not source.has_video and source.name == "microphone"
    events = source.events()
    driver.deliver(5)
    assert [next(events).time_s for _ in range(5)] == pytest.approx([0, 0.03, 0.06, 0.09, 0.12])
    driver.present = False
    driver.now_s += 61
    with pytest.raises(DeviceError, match="did not come back in 60 s"):
        next(events)
    assert len(said) == 1 and "waiting for it" in said[0]
    source.close()
    assert source.stats.audio_s == pytest.approx(0.15)
