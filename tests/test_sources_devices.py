"""Promises of devices: modes asked of V4L2, options that fit their source, pipelines in a process of their own."""

from __future__ import annotations

import os
import signal
import stat
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from conftest import failure_line, one_line, run_python

from mma_edge.cli import main
from mma_edge.errors import DependencyError, DeviceError, UsageError
from mma_edge.sources import CameraSource, CaptureOptions, name_of, open_source
from mma_edge.sources.devices import gstreamer
from mma_edge.sources.devices.gstreamer import PipelineDevice
from mma_edge.sources.devices.v4l2 import Mode, faster_format, modes

pytestmark = [
    pytest.mark.wall_clock,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="V4L2 and GStreamer are Linux's"),
]


class Driver:
    """A V4L2 driver with two formats, as <linux/videodev2.h> lays out their answers."""

    SIZES: ClassVar = {b"YUYV": [((640, 480), 30), ((1280, 720), 10)], b"MJPG": [((640, 480), 30), ((1280, 720), 30)]}

    def __init__(self, capture: bool = True) -> None:
        self._capture = capture

    def __call__(self, file: int, request: int, buffer: bytearray) -> None:
        number, code = struct.unpack_from("<I4s", buffer)
        sizes = self.SIZES.get(code, [])
        if request == 0x80685600:  # VIDIOC_QUERYCAP
            struct.pack_into("<I", buffer, 88, 1 if self._capture else 0x00800000)
        elif request == 0xC0405602 and number < 2:  # VIDIOC_ENUM_FMT
            buffer[44:48] = [*self.SIZES][number]
        elif request == 0xC02C564A and number < len(sizes):  # VIDIOC_ENUM_FRAMESIZES
            struct.pack_into("<III", buffer, 8, 1, *sizes[number][0])
        elif request == 0xC034564B and number == 0:  # VIDIOC_ENUM_FRAMEINTERVALS
            rate = dict(sizes)[struct.unpack_from("<II", buffer, 8)]
            struct.pack_into("<III", buffer, 16, 1, 1, rate)
        else:
            raise OSError(22, "Invalid argument")


def test_the_driver_tells_the_modes_and_mjpeg_is_taken_where_it_is_faster(tmp_path: Path) -> None:
    node = tmp_path / "video0"
    node.touch()
    found = modes(node, Driver())
    assert Mode("YUYV", (1280, 720), 10.0) in found and Mode("MJPG", (1280, 720), 30.0) in found and len(found) == 4
    assert faster_format(found, (1280, 720)) == "MJPG"
    assert faster_format(found, (640, 480)) is None and faster_format([], (640, 480)) is None
    assert modes(node, Driver(capture=False)) == []
    assert modes(tmp_path / "video9", Driver()) is None


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        ("sample", {"size": (640, 480)}, "--size with sample"),
        ("sample", {"microphone": "usb"}, "--microphone with sample"),
        ("rtsp://me:secret@host/x", {"realtime": True}, "--realtime with"),
        ("rtsp://me:secret@host/x", {"microphone": "usb"}, "--microphone with"),
        ("csi:0", {"pixel_format": "MJPG"}, "--pixel-format with csi:0"),
        ("gst:videotestsrc secret", {"rate_fps": 5.0}, "--rate with gst:videotestsrc"),
        ("microphone", {"microphone": "none"}, "without its sound"),
        ("csi:x", {}, "does not name a camera"),
        ("camera:front", {}, "does not name a camera"),
        ("gst:", {}, "no pipeline"),
        ("gst:--version", {}, "no pipeline"),
        ("gst:videotestsrc ! 'x", {}, "open quote"),
    ],
)
def test_an_option_that_does_not_go_with_the_source_is_refused(spec: str, options: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        open_source(spec, capture=CaptureOptions(**options))
    assert "secret" not in one_line(caught.value)


@pytest.mark.parametrize(
    "option", [["--size", "1280"], ["--size", "0x0"], ["--rate", "fast"], ["--rate", "0"], ["--pixel-format", "'"]]
)
def test_a_size_rate_or_format_that_is_none_is_one_line(option: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["run", "camera", *option]) == 2
    assert option[0] in failure_line(capsys)


def test_devices_are_listed_without_a_source(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", "--list-devices"])
    said = capsys.readouterr().out
    assert caught.value.code == 0 and "camera" in said and "microphone" in said


@pytest.mark.parametrize("command", [["info", "x"], []])
def test_the_parser_hides_passwords_too(command: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main([*command, "rtsp://me:secret@host/x"])
    assert "secret" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("command", [["info"], ["build"], ["run", "sample", "--output"]])
def test_an_address_in_the_wrong_place_is_shown_without_its_password(
    command: list[str], capsys: pytest.CaptureFixture
) -> None:
    assert main([*command, "rtsp://me:secret@host/x"]) != 0
    assert "secret" not in failure_line(capsys)


def test_a_pipeline_is_named_by_its_first_element() -> None:
    assert name_of("gst:rtspsrc location=rtsp://me:secret@host ! decodebin") == "gst:rtspsrc"
    assert name_of("rtsp://me:secret@host/x") == "rtsp://***@host/x"


def test_a_csi_camera_is_asked_for_its_size_and_no_shell_sees_it() -> None:
    text = " ".join(PipelineDevice.csi(1, (1920, 1080), 60.0).elements)
    assert text.startswith("nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1920,height=1080,")
    assert "framerate=60/1 ! nvvidconv ! video/x-raw,format=I420" in text
    assert PipelineDevice.pipeline("a b='c d' ! e").elements[:4] == ("a", "b=c d", "!", "e")


FAKE = """#!{python}
import os, signal, sys, time
fd = int(sys.argv[-1].partition("fd=")[2])
print("GST_ARGUS: Creating output stream", flush=True)  # NVIDIA's driver talks on stdout
open({pids!r}, "a").write(str(os.getpid()) + "\\n")
def picture(light):
    return b"FRAME\\n" + bytes([light, 255 - light]) * 32 + bytes([128]) * 32
def send(data):
    try:
        os.write(fd, data)
    except BrokenPipeError:
        sys.exit(1)
{behaviour}
"""
HEADER = 'send(b"YUV4MPEG2 W8 H8 F30:1 Ip A1:1 C420\\n")\n'


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a `gst-launch-1.0` on the PATH that behaves so; gives the file with its process ids."""

    def install(behaviour: str) -> Path:
        program, pids = tmp_path / gstreamer.PROGRAM, tmp_path / "pids"
        program.write_text(FAKE.format(python=sys.executable, pids=str(pids), behaviour=behaviour))
        program.chmod(program.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        return pids

    return install


def gone(pids: Path, limit_s: float = 8.0) -> bool:
    """Whether all these processes end in time, and none of them stays as a zombie."""
    deadline_s = time.monotonic() + limit_s
    while any(Path(f"/proc/{pid}").exists() for pid in pids.read_text().split()):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.05)
    return True


def frames(capture: object, count: int, limit_s: float = 10.0) -> list[np.ndarray]:
    """So many pictures, or those that come in time."""
    got, deadline_s = [], time.monotonic() + limit_s
    while len(got) < count and time.monotonic() < deadline_s:
        if capture.grab() and (picture := capture.retrieve()[1]) is not None:
            got.append(picture)
    return got


def test_pictures_come_whole_and_in_colour_and_the_process_is_reaped(fake: Callable) -> None:
    pids = fake(HEADER + "for n in range(10):\n    send(picture(100 + n))\ntime.sleep(60)")
    capture = PipelineDevice.pipeline("any").open()
    got = frames(capture, 10)
    assert capture.isOpened() and [each.shape for each in got] == [(8, 8, 3)] * 10
    assert [int(each[0, 0, 0]) for each in got] == [round((100 + n - 16) * 255 / 219) for n in range(10)]
    assert not capture.grab()
    capture.release()
    assert gone(pids)


def test_a_program_that_takes_no_notice_of_ctrl_c_is_killed(fake: Callable) -> None:
    pids = fake(HEADER + "signal.signal(signal.SIGINT, signal.SIG_IGN)\nsend(picture(9))\ntime.sleep(60)")
    capture = PipelineDevice.pipeline("any").open()
    assert len(frames(capture, 1)) == 1
    started_s = time.monotonic()
    capture.release()
    assert gone(pids) and 2.0 < time.monotonic() - started_s < 6.0


@pytest.mark.parametrize("behaviour", ["os.abort()", "sys.exit('ERROR: from element x: no such camera')"])
def test_a_program_that_crashes_at_the_start_is_one_line(fake: Callable, behaviour: str) -> None:
    pids = fake(behaviour)
    with pytest.raises(DeviceError) as caught:
        PipelineDevice.csi(0, None, None).open()
    assert "CSI camera 0 delivers nothing" in one_line(caught.value) and gone(pids)


def test_half_a_picture_ends_the_capture(fake: Callable) -> None:
    fake(HEADER + "send(picture(1) + picture(2)[7:] + picture(3))\ntime.sleep(60)")
    capture = PipelineDevice.pipeline("any").open()
    assert len(frames(capture, 3, limit_s=1.5)) == 1
    capture.release()


def test_a_csi_camera_that_repeats_its_last_picture_is_dead(fake: Callable) -> None:
    pids = fake(HEADER + "while True:\n    send(picture(9))\n    time.sleep(0.02)")
    for device, dead in ((PipelineDevice.csi(0, None, None), True), (PipelineDevice.pipeline("any"), False)):
        said: list[str] = []
        with CameraSource(device, said.append, False, first_frame_s=0.5, stall_s=0.3) as source:
            for event in source.events():
                if event.time_s > 1.2 or said:
                    break
        assert bool(said) == dead and all("the same picture again and again" in line for line in said)
    assert gone(pids)


def test_without_gstreamer_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match="apt-get install gstreamer1"):
        PipelineDevice.csi(0, None, None).open()


def test_no_orphan_is_left_by_a_run_that_is_killed(fake: Callable) -> None:
    """Also of a program that hangs, writes nothing more and takes no notice of Ctrl-C."""
    pids = fake(HEADER + "signal.signal(signal.SIGINT, signal.SIG_IGN)\nsend(picture(1))\ntime.sleep(60)")
    program = f"""
import os
from mma_edge.sources.devices.gstreamer import PipelineDevice
capture = PipelineDevice.pipeline("any").open()
assert capture.grab()
os.kill(os.getpid(), {int(signal.SIGKILL)})
"""
    assert run_python("-c", program).returncode == -signal.SIGKILL
    assert gone(pids)
