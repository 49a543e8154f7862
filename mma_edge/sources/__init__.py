"""Where frames and sound come from: files, cameras with a microphone, streams of the network, the sample clip."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import fields

from mma_edge.errors import UsageError
from mma_edge.sources.base import NO_MICROPHONE, CaptureOptions, Event, Source, SourceStats
from mma_edge.sources.camera import CameraSource
from mma_edge.sources.devices.camera import CameraDevice
from mma_edge.sources.devices.gstreamer import PipelineDevice
from mma_edge.sources.file import FileSource, sample_path
from mma_edge.sources.grabber import Device
from mma_edge.sources.microphone import MicrophoneSource, open_input
from mma_edge.sources.names import Spec, kind_of, name_of, named_sources
from mma_edge.sources.network.address import Address
from mma_edge.sources.network.source import NetworkSource
from mma_edge.sources.playing import RealtimeSource
from mma_edge.types import Notify, ignore_notice

__all__ = [
    "CameraSource", "CaptureOptions", "Event", "FileSource", "NetworkSource", "Source", "SourceStats", "is_live",
    "name_of", "named_sources", "open_source", "sample_path",
]  # fmt: skip

_CAMERA_OPTIONS = {"size", "rate_fps", "microphone"}
_TAKEN = {
    "camera": {*_CAMERA_OPTIONS, "pixel_format"},
    "csi": _CAMERA_OPTIONS,
    "gst": {"microphone"},
    "microphone": {"microphone"},
    "address": set(),
    "file": {"realtime"},
}
"""Kind of source -> the capture options that it takes."""
_FLAGS = {"rate_fps": "rate"}


def open_source(
    spec: Spec,
    notify: Notify = ignore_notice,
    audio: bool = True,
    nvdec: bool = False,
    capture: CaptureOptions | None = None,
) -> Source:
    """Open the source that the user named; docs/sources.md has every kind. "./sample" is a file of that name.

    `notify` takes one-line notices, each given once; without `audio` the sound or the microphone is ignored. With
    `nvdec` an NVIDIA GPU decodes a file's pictures, where there is one. `capture` is what is asked of devices.

    Raises:
        UsageError: it is no source, or an option does not go with it. SourceError, DeviceError, DependencyError: it
            cannot be opened.
    """
    text, capture = os.fspath(spec), capture or CaptureOptions()
    kind = kind_of(text)
    _check(kind, text, capture, nvdec)
    if kind == "address":
        return NetworkSource(Address.of(text), notify, audio)
    if kind == "microphone":
        if not audio or capture.microphone == NO_MICROPHONE:
            raise UsageError("the microphone alone, and without its sound", "sound or a camera")
        return MicrophoneSource(capture.microphone, notify)
    if kind == "file":
        file = FileSource(sample_path() if text == "sample" else spec, notify, audio, nvdec)
        return RealtimeSource(file) if capture.realtime else file
    device = _DEVICES[kind](text.partition(":")[2], capture)
    audio = audio and capture.microphone != NO_MICROPHONE
    return CameraSource(device, notify, audio, open_stream=open_input(capture.microphone))


def is_live(spec: Spec, capture: CaptureOptions | None = None) -> bool:
    """Whether this source will not wait for its reader."""
    return kind_of(os.fspath(spec)) != "file" or bool(capture and capture.realtime)


def _check(kind: str, text: str, capture: CaptureOptions, nvdec: bool) -> None:
    """UsageError for an option that this kind of source has no use for: it would silently do nothing."""
    if nvdec and kind != "file":
        raise UsageError(f"--nvdec with {name_of(text)}", "a file", "only a file's pictures are decoded this way")
    for field in fields(capture):
        if getattr(capture, field.name) != field.default and field.name not in _TAKEN[kind]:
            flag = "--" + _FLAGS.get(field.name, field.name).replace("_", "-")
            takers = " or ".join(other for other, taken in _TAKEN.items() if field.name in taken)
            raise UsageError(f"{flag} with {name_of(text)}", f"it with {takers} only", f"leave {flag} out")


def _camera(text: str, capture: CaptureOptions) -> Device:
    if re.fullmatch(r"[0-9]{1,3}", text or "0"):
        device = int(text or 0)
    elif text.startswith("/dev/"):
        device = text
    else:
        expected = "camera, camera:N with a number N, or camera:/dev/v4l/by-id/..."
        raise UsageError(f"'camera:{text}' does not name a camera", expected, "try camera:0")
    return CameraDevice(device, capture.size, capture.rate_fps, capture.pixel_format)


def _csi(text: str, capture: CaptureOptions) -> Device:
    if not re.fullmatch(r"[0-9]{1,2}", text):
        raise UsageError(f"'csi:{text}' does not name a camera", "csi:N with a number N", "try csi:0")
    return PipelineDevice.csi(int(text), capture.size, capture.rate_fps)


def _gst(text: str, capture: CaptureOptions) -> Device:
    return PipelineDevice.pipeline(text)


_DEVICES: dict[str, Callable[[str, CaptureOptions], Device]] = {"camera": _camera, "csi": _csi, "gst": _gst}
