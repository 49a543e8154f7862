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
from mma_edge.sources.devices.portaudio import BlockCallback, input_devices, open_default_input, open_input
from mma_edge.sources.devices.sample_clock import WARM_UP_S
from mma_edge.sources.live import KEEP_S
from mma_edge.sources.microphone import Microphone, MicrophoneSource

pytestmark = pytest.mark.wall_clock

RATE = 16000
BLOCK = 480  # samples, 30 ms
WARM_UP = round(WARM_UP_S / 0.03)
"""Blocks whose time is not yet known."""


class Driver:
    """A sound driver and its clock, both moved by the test."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.on_block: BlockCallback | None = None
        self.present = self.active = True
        self.opened = self.closed = 0

    def clock(self) -> float:
        return self.now_s

    def open(self, on_block: BlockCallback, rescan: bool) -> Driver:
        if not self.present:
            raise DeviceError("there is no input device")
        self.opened += 1
        self.active = True
        self.on_block = on_block
        return self

    def close(self) -> None:
        self.closed += 1

    def deliver(
        self, count: int, jitter_s: Callable[[], float] = lambda: 0.0, channels: int = 1, level: float = 0.5
    ) -> None:
        """`count` blocks, each handed over when its last sample was recorded plus jitter."""
        assert self.active
        for _ in range(count):
            self.now_s += BLOCK / RATE
            late_s = jitter_s()
            self.now_s += late_s
            self.on_block(np.full((BLOCK, channels), level, np.float32), RATE, BLOCK / RATE)
            self.now_s -= late_s


def make(driver: Driver, **options: float) -> tuple[Microphone, SourceStats, list[str]]:
    """A microphone that has delivered nothing yet, but will from 100 s on."""
    stats, said = SourceStats(), []
    driver.now_s = 100.0 - 0.03 * WARM_UP
    microphone = Microphone(said.append, stats, open_stream=driver.open, clock=driver.clock, **options)
    driver.deliver(WARM_UP)
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
    driver.deliver(20)
    gaps = [after.time_s - before.end_s for before, after in pairwise(take_all(microphone))]
    assert max(gaps) == pytest.approx(0.5, abs=1e-3) and sorted(gaps)[-2] < 1e-3


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
    driver.deliver(WARM_UP + 2)
    microphone.watch()
    assert said[1:] == ["the microphone is back"]
    first = take_all(microphone, 0.0)[0]
    assert first.time_s == pytest.approx(first.arrival_s - 0.03)  # the new stream counts from its own start
    microphone.close()
    assert driver.closed == 2


def test_a_stream_may_take_some_seconds_for_its_first_block() -> None:
    driver, said = Driver(), []
    microphone = Microphone(said.append, SourceStats(), open_stream=driver.open, clock=driver.clock)
    driver.now_s += 4.0
    microphone.watch()
    driver.deliver(30, level=0.0)  # zeros count from here
    microphone.watch()
    assert said == []
    driver.now_s += 2.1
    microphone.watch()
    assert len(said) == 1 and "stopped delivering" in said[0]


def test_a_stream_that_is_not_active_any_more_is_gone_at_once() -> None:
    driver = Driver()
    microphone, _, said = make(driver, retry_s=0.01)
    driver.active = driver.present = False
    for _ in range(5):
        microphone.watch()
    assert len(said) == 1 and "stopped delivering (unplugged?)" in said[0] and microphone.gone
    driver.present = True
    wait_for(lambda: driver.opened == 2 and not microphone._reopener.is_alive())
    driver.deliver(WARM_UP + 1)
    microphone.watch()
    assert said[1:] == ["the microphone is back"] and driver.opened == 2


def test_a_stream_that_dies_each_time_is_opened_at_the_pace_of_retries() -> None:
    driver = Driver()
    microphone, _, said = make(driver, retry_s=0.2)
    start_s = time.monotonic()
    while time.monotonic() < start_s + 1.1:
        driver.active = False
        microphone.watch()
        time.sleep(0.005)
    microphone.close()
    assert len(said) == 1 and 3 <= driver.opened <= 7


def test_two_seconds_of_exact_zeros_are_a_microphone_that_is_gone() -> None:
    driver = Driver()
    microphone, _, said = make(driver)
    driver.deliver(66, level=0.0)
    microphone.watch()
    assert said == [] and len(take_all(microphone)) == 66  # silence of less than 2 s
    for _ in range(30):
        driver.deliver(10, level=0.0)
        microphone.watch()
    assert len(said) == 1 and "nothing but zeros (muted or unplugged?): vision only" in said[0] and microphone.gone
    assert len(take_all(microphone)) <= 1 and driver.opened == 1  # no sound, and the stream goes on
    driver.deliver(5, level=1e-6)
    microphone.watch()
    assert said[1:] == ["the microphone is back"] and not microphone.gone
    chunks = take_all(microphone)
    assert len(chunks) == 5 and chunks[0].time_s == pytest.approx(chunks[0].arrival_s - 100.03, abs=1e-3)


def fake_sounddevice(name: str = "mic", rates: tuple[int, ...] = (44100,), **changes: object) -> types.ModuleType:
    """A stand-in for the package: one device with two channels, which refuses mono and other rates."""
    module = types.ModuleType("sounddevice")
    module.started, module.restarts, module.running, module.broken = [], 0, True, False

    class PortAudioError(Exception):
        pass

    class InputStream:
        latency = 0.06

        def __init__(self, samplerate: int, channels: int, callback: Callable, **_: object) -> None:
            if channels == 1:
                raise PortAudioError("Invalid number of channels")
            if samplerate not in rates:
                raise PortAudioError("Invalid sample rate")
            self.callback, self.channels, self.rate_hz, self.closed = callback, channels, samplerate, False

        def start(self) -> None:
            module.started.append(self)

        @property
        def active(self) -> bool:
            if self.closed:  # as PortAudio does
                raise PortAudioError("Invalid stream pointer")
            return True

        def close(self) -> None:
            self.closed = True

    def terminate() -> None:
        # PortAudio would close these under the threads that read them.
        assert all(stream.closed for stream in module.started)
        if not module.running:
            raise PortAudioError("PortAudio not initialized")
        module.running = False

    def initialize() -> None:
        if module.broken:
            raise PortAudioError("Unanticipated host error")
        module.running = True
        module.restarts += 1

    module.PortAudioError, module.InputStream = PortAudioError, InputStream
    module._terminate, module._initialize = terminate, initialize
    module.query_devices = lambda kind: {"name": name, "default_samplerate": 44100.0, "max_input_channels": 2}
    for key, value in changes.items():
        setattr(module, key, value)
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
    module = fake_sounddevice()
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    got = []
    stream = open_default_input(lambda *block: got.append(block))
    (raw,) = module.started
    assert stream.active and raw.channels == 2
    samples = np.zeros((4, 2), np.float32)
    for adc_s in (4.9, 0.0, 4.7, 5.1):
        raw.callback(samples, 4, types.SimpleNamespace(currentTime=5.0, inputBufferAdcTime=adc_s), None)
    assert got[0][1:] == (44100, pytest.approx(0.1))
    # Not believed: a time at zero, one beyond three times the latency, one that lies ahead.
    assert [block[2] for block in got[1:]] == [None, None, None]
    stream.close()
    assert raw.closed


@pytest.mark.parametrize(
    ("name", "rates", "taken"),
    [("pulse", (48000, 44100), 48000), ("default", (44100,), 44100), ("USB mic", (48000, 44100), 44100)],
)
def test_a_sound_server_is_asked_for_48_khz_first(
    monkeypatch: pytest.MonkeyPatch, name: str, rates: tuple[int, ...], taken: int
) -> None:
    module = fake_sounddevice(name, rates)
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    open_default_input(lambda *_: None).close()
    assert [stream.rate_hz for stream in module.started] == [taken]


def test_new_devices_are_looked_for_only_while_no_other_source_records(monkeypatch: pytest.MonkeyPatch) -> None:
    module = fake_sounddevice()
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    other = open_default_input(lambda *_: None)
    open_default_input(lambda *_: None, rescan=True).close()
    assert module.restarts == 0
    other.close()
    open_default_input(lambda *_: None, rescan=True).close()
    assert module.restarts == 1


def test_portaudio_that_did_not_start_again_is_started_later(monkeypatch: pytest.MonkeyPatch) -> None:
    module = fake_sounddevice(broken=True)
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    for _ in range(2):
        with pytest.raises(DeviceError, match="no input device"):
            open_default_input(lambda *_: None, rescan=True)
    module.broken = False
    open_default_input(lambda *_: None, rescan=True).close()
    assert module.running


def test_a_microphone_is_found_by_name_or_number(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, module = [], fake_sounddevice(rates=(16000,))

    def query(device: object = None, kind: str | None = None) -> object:
        asked.append(device)
        if device == "mic":
            raise ValueError("Multiple input devices found for 'mic'")
        device = {"name": "USB mic", "default_samplerate": 16000.0, "max_input_channels": 2}
        return device if kind else [device, {**device, "max_input_channels": 0}]

    module.query_devices = query
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    for name in ("usb", "3"):
        open_input(name)(lambda *_: None, False).close()
    assert asked == ["usb", 3]
    assert input_devices() == {0: "USB mic"}
    with pytest.raises(DeviceError, match=r"no one microphone 'mic' \(Multiple"):
        open_input("mic")(lambda *_: None, False)


def test_a_microphone_alone_is_a_source_that_waits_and_gives_up() -> None:
    driver, said = Driver(), []
    source = MicrophoneSource(None, said.append, give_up_s=60.0, open_stream=driver.open, clock=driver.clock)
    assert source.live and source.has_audio and not source.has_video and source.name == "microphone"
    driver.deliver(WARM_UP)
    events = source.events()
    driver.deliver(5)
    assert [next(events).time_s for _ in range(5)] == pytest.approx([0, 0.03, 0.06, 0.09, 0.12], abs=1e-6)
    driver.deliver(5000, level=0.0)  # 150 s of a muted one: it is there, and waited for
    driver.deliver(1)
    assert max(next(events).time_s for _ in range(60)) < 2.2
    assert len(said) == 0 or "muted" in said[0]
    driver.present = False
    driver.now_s += 61
    with pytest.raises(DeviceError, match="did not come back in 60 s"):
        list(events)
    assert "waiting for it" in said[0]
    source.close()
