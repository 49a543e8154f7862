"""Promises of `CameraSource`, with a fake camera: newest frame wins, a stall is survived, nothing blocks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from mma_edge.errors import DependencyError, DeviceError
from mma_edge.sources.camera import CameraSource
from mma_edge.sources.devices import camera as camera_module
from mma_edge.sources.devices.camera import CameraDevice
from mma_edge.sources.devices.portaudio import BlockCallback
from mma_edge.sources.notices import Notices
from mma_edge.types import AudioChunk, Frame

pytestmark = pytest.mark.wall_clock

QUICK = {"stall_s": 0.3, "first_frame_s": 0.5, "give_up_s": 5.0, "open_timeout_s": 2.0}


class FakeCamera:
    """A camera whose behaviour a test changes while it runs; also the factory of its captures."""

    def __init__(self, size: tuple[int, int] = (64, 48), interval_s: float = 0.005) -> None:
        self.size, self.interval_s = size, interval_s
        self.present, self.delivers = True, True
        self.age_s: float | None = None  # of its pictures, by the driver's stamps
        self.scene = "covered"  # "noisy" as every sensor's picture, "frozen": the same again, "covered": one colour
        self.hang = threading.Event()
        self.hang.set()  # cleared: grab() blocks
        self.opened = self.released = self.count = 0

    def __call__(self, index: int) -> FakeCamera:
        self.opened += 1
        return self

    def isOpened(self) -> bool:  # noqa: N802
        return self.present

    def grab(self) -> bool:
        self.hang.wait()
        time.sleep(self.interval_s)
        return self.present and self.delivers

    def retrieve(self) -> tuple[bool, np.ndarray]:
        self.count += 1
        width, height = self.size
        image = np.zeros((height, width, 3), np.uint8)
        image[..., 0] = 200  # blue in OpenCV's order
        if self.scene != "covered":
            image[5, 7] = 90
        if self.scene == "noisy":
            image[9, 9] = self.count % 256
        return True, image

    def release(self) -> None:
        self.released += 1

    def stamp_s(self) -> float | None:
        return None if self.age_s is None else time.monotonic() - self.age_s


class FakeDevice(CameraDevice):
    """Camera 0, opened by a function."""

    def __init__(self, open_capture: Callable) -> None:
        super().__init__()
        object.__setattr__(self, "_open_capture", open_capture)

    def open(self) -> FakeCamera:
        return self._open_capture(self.device)


class FakeMicrophone:
    """Delivers blocks of 160 samples at 16 kHz every 10 ms from its own thread."""

    active = True

    def __call__(self, on_block: BlockCallback, rescan: bool) -> FakeMicrophone:
        self._closed = threading.Event()

        def speak() -> None:
            while not self._closed.wait(0.01):
                on_block(np.full((160, 1), 0.25, np.float32), 16000, 0.01)

        threading.Thread(target=speak, daemon=True).start()
        return self

    def close(self) -> None:
        self._closed.set()


def no_microphone(on_block: BlockCallback, rescan: bool) -> None:
    raise DependencyError("sounddevice is not installed", hint="pip install 'mma-edge[live]'")


@pytest.fixture
def make() -> Iterator[Callable[..., tuple[CameraSource, list[str]]]]:
    """Opens sources that are closed after the test."""
    sources = []

    def build(camera: FakeCamera, microphone: Callable = no_microphone, **changes: object):
        said: list[str] = []
        source = CameraSource(FakeDevice(camera), said.append, **{**QUICK, "open_stream": microphone, **changes})
        sources.append(source)
        return source, said

    yield build
    for source in sources:
        source.close()


def until(events: Iterator, wanted: Callable[[object], bool], limit_s: float = 5.0) -> list:
    """Events up to the first wanted one."""
    seen, deadline_s = [], time.monotonic() + limit_s
    for event in events:
        seen.append(event)
        if wanted(event):
            return seen
        assert time.monotonic() < deadline_s, "the awaited event did not come"
    raise AssertionError("the events ended")


def test_frames_are_rgb_on_a_clock_that_starts_with_the_reading(make: Callable) -> None:
    source, _ = make(FakeCamera())
    frames = until(source.events(), lambda e: e.time_s > 0.05)
    assert source.live and source.name == "camera:0" and source.has_video
    assert frames[0].image.shape == (48, 64, 3) and tuple(frames[0].image[0, 0]) == (0, 0, 200)
    assert 0 <= frames[0].time_s < 0.5
    assert frames[-1].arrival_s - frames[0].arrival_s == pytest.approx(frames[-1].time_s - frames[0].time_s)


@pytest.mark.parametrize(("age_s", "taken_s"), [(0.1, 0.1), (3.0, 0.0), (-1.0, 0.0)])
def test_a_drivers_time_stamp_counts_where_it_is_sane(make: Callable, age_s: float, taken_s: float) -> None:
    camera = FakeCamera()
    camera.age_s = age_s
    source, _ = make(camera)
    frame = until(source.events(), lambda e: e.time_s > 0.15)[-1]
    assert time.monotonic() - frame.arrival_s == pytest.approx(taken_s, abs=0.08)


def test_a_slow_reader_gets_the_newest_frame_and_the_rest_is_counted(make: Callable) -> None:
    source, _ = make(FakeCamera())
    events = source.events()
    next(events)
    time.sleep(0.3)
    frame = next(events)
    assert time.monotonic() - frame.arrival_s < 0.1
    assert source.stats.dropped_frames > 10
    assert source.stats.frames == 2


def test_without_a_microphone_it_is_vision_only_and_says_why_once(make: Callable) -> None:
    source, said = make(FakeCamera())
    until(source.events(), lambda e: e.time_s > 0.05)
    assert not source.has_audio
    assert said == ["no microphone: vision only, because sounddevice is not installed; pip install 'mma-edge[live]'."]


def test_sound_not_asked_for_leaves_the_microphone_alone(make: Callable) -> None:
    source, said = make(FakeCamera(), audio=False)
    assert not source.has_audio and said == []


def test_frames_and_sound_share_one_clock(make: Callable) -> None:
    source, _ = make(FakeCamera(), FakeMicrophone())
    events = until(source.events(), lambda e: e.time_s > 0.8)
    chunks = [e for e in events if isinstance(e, AudioChunk)]
    assert source.has_audio and any(isinstance(e, Frame) for e in events) and len(chunks) > 5
    assert chunks[0].samples.shape == (1, 160) and chunks[0].sample_rate_hz == 16000
    arrivals = [e.arrival_s - e.time_s for e in events]
    assert max(arrivals) - min(arrivals) < 0.1


def test_a_missing_camera_is_refused_at_once(make: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    camera = FakeCamera()
    camera.present = False
    with pytest.raises(DeviceError, match="camera 0 cannot be opened") as caught:
        make(camera)
    assert caught.value.exit_code == 4
    monkeypatch.setattr(camera_module, "_LINUX", True)
    monkeypatch.setattr(camera_module, "video_devices", lambda: {7: camera_module.Path("/dev/video7")})
    with pytest.raises(DeviceError, match=r"this machine has /dev/video7; .*camera:N"):
        make(camera)
    monkeypatch.setattr(camera_module, "video_devices", dict)
    with pytest.raises(DeviceError, match=r"no /dev/video\*.*plug a camera in"):
        make(camera)


def test_a_driver_that_hangs_while_opening_does_not_hang_us(make: Callable) -> None:
    forever = threading.Event()
    with pytest.raises(DeviceError, match=r"did not answer for 0\.1 s"):
        make(lambda index: forever.wait(), open_timeout_s=0.1)
    forever.set()


def test_a_camera_that_comes_back_with_another_size_goes_on(make: Callable) -> None:
    camera = FakeCamera()
    source, said = make(camera, FakeMicrophone())
    events = source.events()
    until(events, lambda e: isinstance(e, Frame))
    camera.present = False
    seen = until(events, lambda _: any("delivers no frames" in line for line in said))
    assert any(isinstance(e, AudioChunk) for e in seen)
    seen = until(events, lambda _: camera.released >= 1)
    camera.size, camera.present = (32, 24), True
    seen = until(events, lambda e: isinstance(e, Frame))
    assert seen[-1].image.shape == (24, 32, 3)
    until(events, lambda _: len(said) >= 2)
    assert len(said) == 2 and "camera 0 is back after" in said[1] and "(32x24)" in said[1]
    assert source.stats.reopened == 1 and camera.opened >= 2


def test_sound_flows_while_the_camera_driver_hangs(make: Callable) -> None:
    camera = FakeCamera()
    source, said = make(camera, FakeMicrophone())
    events = source.events()
    until(events, lambda e: isinstance(e, Frame))
    camera.hang.clear()
    started_s = time.monotonic()
    seen = until(events, lambda e: e.arrival_s > started_s + 0.9)
    assert sum(isinstance(e, AudioChunk) for e in seen) > 20
    assert len(said) == 1 and camera.opened == 1  # no second capture while the first sits in the driver
    camera.hang.set()
    until(events, lambda e: isinstance(e, Frame))
    assert camera.opened == 2


def test_a_camera_that_stays_away_ends_in_one_clear_error(make: Callable) -> None:
    camera = FakeCamera()
    source, said = make(camera, give_up_s=0.8)
    events = source.events()
    next(events)
    camera.delivers = False
    with pytest.raises(DeviceError, match=r"did not come back in 0\.8 s"):
        for _ in events:
            pass
    assert sum("delivers no frames" in line for line in said) == 1


@pytest.mark.parametrize("may_repeat", [False, True])
def test_a_camera_that_repeats_its_picture_is_dead_but_a_pattern_may(
    make: Callable, monkeypatch: pytest.MonkeyPatch, may_repeat: bool
) -> None:
    monkeypatch.setattr(FakeDevice, "may_repeat", may_repeat)
    camera = FakeCamera()
    camera.scene = "noisy"
    source, said = make(camera, give_up_s=2.0)
    events = source.events()
    until(events, lambda e: e.time_s > 0.5)
    camera.scene = "frozen"
    frozen_s = time.monotonic()
    if may_repeat:
        until(events, lambda e: e.arrival_s > frozen_s + 1.0)
        assert camera.opened == 1 and said[1:] == []
        return
    seen = until(events, lambda _: any("the same picture again and again" in line for line in said))
    assert seen[-1].arrival_s - frozen_s < QUICK["stall_s"] + 0.2
    with pytest.raises(DeviceError, match="gst:v4l2src"):  # opening it again changes nothing, and is not "back"
        list(events)
    assert camera.opened > 1 and not any("is back" in line for line in said)


def test_a_covered_camera_is_no_dead_one(make: Callable) -> None:
    camera = FakeCamera()
    source, said = make(camera)
    until(source.events(), lambda e: e.time_s > 3 * QUICK["stall_s"])
    assert camera.opened == 1 and said[1:] == []


def test_a_loss_is_seen_in_two_seconds_and_the_camera_is_back_in_ten_with_another_size() -> None:
    camera, said = FakeCamera(), []
    camera.scene = "noisy"
    device = FakeDevice(camera)
    with CameraSource(device, lambda line: said.append((time.monotonic(), line)), False) as source:  # real limits
        events = source.events()
        until(events, lambda e: e.time_s > 0.2)
        camera.present, lost_s = False, time.monotonic()
        reader = threading.Thread(target=lambda: until(events, lambda e: e.image.shape == (24, 32, 3), 20.0))
        reader.start()
        time.sleep(2.5)
        camera.size, camera.present, back_s = (32, 24), True, time.monotonic()
        reader.join()
        until(events, lambda _: len(said) == 2)
        assert said[0][0] - lost_s < 2.0 and "delivers no frames" in said[0][1]
        assert said[1][0] - back_s < 10.0 and "(32x24)" in said[1][1]


def test_after_a_suspend_the_camera_is_opened_again_without_waiting_for_a_stall(make: Callable) -> None:
    camera = FakeCamera()
    source, said = make(camera, audio=False)
    events = source.events()
    next(events)
    source.resume()
    until(events, lambda _: source.stats.reopened == 1)
    assert camera.opened == 2 and camera.released == 1
    assert len(said) == 1 and "is back after" in said[0]


def test_a_source_that_comes_and_goes_does_not_fill_the_log_and_its_last_line_is_true() -> None:
    now, said = [0.0], []
    notices = Notices(said.append, lambda: now[0])
    for number in range(1800):  # lost and back, each second, for an hour
        for word in ("lost", "back"):
            notices(f"{word} {number}")
            now[0] += 1.0
            notices.poll()
    assert said[:3] == ["lost 0", "back 0", "lost 1"] and 60 <= len(said) <= 63
    assert "notices before this one were left out" in said[5]
    now[0] += 60.0
    notices.poll()
    assert said[-1].startswith("back 1799")
    now[0] += 600.0
    notices.poll()
    notices("lost")
    assert said[-1] == "lost"


def test_waiting_follows_the_given_clock(make: Callable) -> None:
    now = [1000.0]
    camera = FakeCamera()
    source, said = make(camera, clock=lambda: now[0], stall_s=2.0, give_up_s=60.0, audio=False)
    events = source.events()
    assert next(events).time_s == 0.0
    camera.delivers = False
    time.sleep(0.05)
    now[0] += 59.0
    timer = threading.Timer(0.3, lambda: now.__setitem__(0, now[0] + 2.0))
    timer.start()
    with pytest.raises(DeviceError, match="60 s"):
        for _ in events:
            pass
    assert len(said) == 1


def test_closing_releases_the_camera_and_ends_the_events(make: Callable) -> None:
    camera = FakeCamera()
    source, _ = make(camera, FakeMicrophone())
    events = source.events()
    next(events)
    source.close()
    source.close()
    assert list(events) == [] and camera.released == 1
