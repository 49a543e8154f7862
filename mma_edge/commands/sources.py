"""The options of `mma-edge run` that are about its source, and the list of devices."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from mma_edge.commands.support import report, say
from mma_edge.errors import MMAEdgeError, UsageError
from mma_edge.manual.parser import group

SOURCE_HELP = (
    "a media file, camera, camera:N, camera:/dev/v4l/by-id/..., csi:N (Jetson), gst:PIPELINE, microphone, browser, "
    "browser:ADDRESS:PORT, sample, or an address: rtsp, rtsps, rtmp, http(s) with HLS, udp, tcp; NAME=SOURCE gives it "
    "a name for the records. Several: live ones run at the same time, files one after the other"
)
SOURCE_EXAMPLES = """\
  mma-edge run camera:1 --size 1280x720 --rate 30
  mma-edge run 'rtsp://user:${CAM_PASSWORD}@192.168.1.20/stream'   the password in a variable, single quotes
  mma-edge run 'gst:v4l2src device=/dev/video0 ! image/jpeg ! jpegdec'
  mma-edge run browser                         a page takes the browser's camera and microphone
  mma-edge run browser:0.0.0.0:8765            the same for other machines, a phone: by TLS and a token
  mma-edge run talk.mp4 --realtime             as a camera would deliver it
  mma-edge run door=rtsp://192.168.1.20/stream desk=camera --output both.jsonl --stats load.jsonl
  mma-edge run camera --audio-delay-ms -85     sound 85 ms earlier, as mma-edge doctor --sync camera measured
  mma-edge run --list-devices
"""


class _ListDevices(argparse.Action):
    """Prints the devices and ends, as --version does: no source is needed."""

    def __init__(self, option_strings: list[str], dest: str, help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *unused: object) -> None:
        try:
            list_devices(Console())
        except MMAEdgeError as error:
            parser.exit(report(error))
        parser.exit()


def add_source_options(add: Callable[..., object]) -> None:
    """Declare the options; `add` is the parser's `add_argument`."""
    add = group(add, "source")
    add("--list-devices", action=_ListDevices, help="print cameras and microphones of this machine, and end")
    add("--size", metavar="WxH", help="size of a camera's pictures, such as 1280x720 (default: the camera's own)")
    add("--rate", metavar="FPS", help="frames per second of a camera (default: the camera's own)")
    formats = "format of a camera's pictures (default: mjpeg where it is faster)"
    add("--pixel-format", metavar="mjpeg|yuyv|...", help=formats)
    microphone = "microphone beside a camera or alone: its number or a part of its name (default: the system's)"
    add("--microphone", metavar="NAME|none", help=microphone)
    add("--realtime", action="store_true", help="play a file at its own pace, as a camera would deliver it")
    delay = "delay the sound against the picture, -2000 to 2000 (default: what doctor --sync has remembered, else 0)"
    add("--audio-delay-ms", type=float, metavar="MS", help=delay)
    tls = "certificate (PEM) of a page, of --web or browser:ADDRESS:PORT (default beyond this machine: one is made)"
    add("--tls-cert", type=Path, metavar="FILE", help=tls)
    add("--tls-key", type=Path, metavar="FILE", help="its key (PEM); default: in the file of the certificate")


def capture_options(args: argparse.Namespace) -> object:
    """The `CaptureOptions` of a command line; UsageError for a size, rate or format that is none."""
    from mma_edge.sources import CaptureOptions  # here: it needs OpenCV, which takes a while

    size = args.size and re.fullmatch(r"([1-9][0-9]{1,4})x([1-9][0-9]{1,4})", args.size)
    if args.size and not size:
        raise UsageError(f"--size {args.size}", "width and height in pixels, such as 1280x720")
    rate = args.rate and re.fullmatch(r"[0-9]{1,3}(\.[0-9]+)?", args.rate)
    if args.rate and not (rate and float(args.rate) > 0):
        raise UsageError(f"--rate {args.rate}", "frames per second, such as 30")
    pixel_format = args.pixel_format and {"MJPEG": "MJPG"}.get(args.pixel_format.upper(), args.pixel_format.upper())
    if pixel_format and not re.fullmatch(r"[A-Z0-9]{3,4}", pixel_format):
        raise UsageError(f"--pixel-format {args.pixel_format}", "mjpeg, or a code of V4L2 such as yuyv")
    return CaptureOptions(
        size=size and (int(size[1]), int(size[2])),
        rate_fps=rate and float(args.rate),
        pixel_format=pixel_format,
        microphone=args.microphone,
        realtime=args.realtime,
        audio_delay_ms=args.audio_delay_ms,
        tls_cert=args.tls_cert,
        tls_key=args.tls_key,
    )


def list_devices(console: Console) -> None:
    """Print the cameras with their modes, and the microphones, each as it is named on the command line."""
    from mma_edge.sources.devices.camera import mode_text, video_devices
    from mma_edge.sources.devices.portaudio import input_devices
    from mma_edge.sources.devices.v4l2 import label_of, modes

    found = 0
    for number, path in video_devices().items():
        known = modes(path)
        if known == []:  # not a picture: the camera's metadata
            continue
        found += 1
        say(console, f"camera:{number}  {label_of(path)}".rstrip())
        for mode in known or []:
            say(console, f"    {mode_text(mode.pixel_format, mode.size, mode.rate_fps)}")
        if known is None:
            say(console, "    cannot be asked: no access, or not V4L2")
    if not found:
        say(console, "no camera" if sys.platform.startswith("linux") else "cameras cannot be listed on this system")
    try:
        names = input_devices()
    except MMAEdgeError as error:
        say(console, f"no microphone: {error}")
        return
    for number, name in names.items():
        say(console, f"--microphone {number}  {name}")
    if not names:
        say(console, "no microphone")
