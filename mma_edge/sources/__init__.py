"""Where frames and sound come from: files, cameras with a microphone, browsers, streams of the network."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from mma_edge.errors import DependencyError, UsageError, without_passwords
from mma_edge.sources.base import NO_MICROPHONE, CaptureOptions, Event, Source, SourceStats
from mma_edge.sources.camera import CameraSource
from mma_edge.sources.devices.camera import CameraDevice
from mma_edge.sources.devices.gstreamer import PipelineDevice
from mma_edge.sources.devices.portaudio import open_input
from mma_edge.sources.devices.v4l2 import label_of
from mma_edge.sources.file import FileSource, sample_path
from mma_edge.sources.grabber import Device
from mma_edge.sources.microphone import MicrophoneSource
from mma_edge.sources.names import Spec, kind_of, name_of, named_sources
from mma_edge.sources.network.address import Address
from mma_edge.sources.network.source import NetworkSource
from mma_edge.sources.playing import RealtimeSource
from mma_edge.sources.sync.delay import DelayedSource, RememberedDelay, remembered
from mma_edge.types import Notify, ignore_notice
from mma_edge.web.binding import Binding

__all__ = [
    "CameraSource", "CaptureOptions", "Event", "FileSource", "NetworkSource", "Source", "SourceStats", "device_of",
    "is_live", "name_of", "named_sources", "open_source", "sample_path",
]  # fmt: skip

_CAMERA_OPTIONS = {"size", "rate_fps", "microphone", "audio_delay_ms"}
_TAKEN = {
    "camera": {*_CAMERA_OPTIONS, "pixel_format"},
    "csi": _CAMERA_OPTIONS,
    "gst": {"microphone", "audio_delay_ms"},
    "microphone": {"microphone"},
    "browser": {"tls_cert", "tls_key", "audio_delay_ms"},
    "address": {"audio_delay_ms"},
    "file": {"realtime", "audio_delay_ms"},
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
    audio = audio and capture.microphone != NO_MICROPHONE
    if capture.audio_delay_ms and not audio:
        raise UsageError("--audio-delay-ms without the sound", "one or the other", "leave --audio-delay-ms out")
    delay_ms = capture.audio_delay_ms
    if delay_ms is None and audio and (kept := _remembered(text, capture)):
        delay_ms = kept.audio_delay_ms
        line = f"the sound of {name_of(text)} is delayed by {delay_ms} ms, as it was measured on {kept.measured}"
        notify(f"{line}; --audio-delay-ms 0 leaves it as it is")
    source = _open(kind, text, notify, audio, nvdec, capture)
    if delay_ms and kind == "file" and not (source.has_audio and source.has_video):
        source.close()
        raise UsageError(f"--audio-delay-ms with {source.name}", "a file with sound and picture")
    return DelayedSource(source, delay_ms / 1000) if delay_ms else source


def _open(kind: str, text: str, notify: Notify, audio: bool, nvdec: bool, capture: CaptureOptions) -> Source:
    if kind == "address":
        return NetworkSource(Address.of(text), notify, audio)
    if kind == "browser":
        return _browser(text, notify, audio, capture)
    if kind == "microphone":
        if not audio:
            raise UsageError("the microphone alone, and without its sound", "sound or a camera")
        return MicrophoneSource(capture.microphone, notify)
    if kind == "file":
        file = FileSource(sample_path() if text == "sample" else text, notify, audio, nvdec)
        return RealtimeSource(file) if capture.realtime else file
    device = _DEVICES[kind](text.partition(":")[2], capture)
    return CameraSource(device, notify, audio, open_stream=open_input(capture.microphone))


def is_live(spec: Spec, capture: CaptureOptions | None = None) -> bool:
    """Whether this source will not wait for its reader."""
    return kind_of(os.fspath(spec)) != "file" or bool(capture and capture.realtime)


def device_of(spec: str | os.PathLike[str], capture: CaptureOptions) -> str | None:
    """What a remembered delay belongs to, without passwords: camera and microphone, or an address.

    None for what is no device (a file, a microphone alone), and for an address whose query, which is not kept, may tell
    one camera from another.
    """
    text = os.fspath(spec)
    kind, shown = kind_of(text), name_of(spec)
    if kind == "address":
        return None if "?" in shown else shown
    if kind in ("file", "microphone", "browser"):
        return None
    if kind == "gst":
        shown = without_passwords(text)
    elif kind == "camera":
        # Its name stays the same where its number changes; two of a kind are late alike.
        number = text.partition(":")[2] or "0"
        shown = label_of(Path(f"/dev/video{number}" if number.isdigit() else number).resolve()) or shown
    return f"{shown} with microphone {capture.microphone or 'default'}"


def _remembered(text: str, capture: CaptureOptions) -> RememberedDelay | None:
    device = device_of(text, capture)
    kept = remembered(device) if device else None
    return kept if kept and kept.audio_delay_ms else None


def _check(kind: str, text: str, capture: CaptureOptions, nvdec: bool) -> None:
    """UsageError for an option that this kind of source has no use for: it would silently do nothing."""
    if nvdec and kind != "file":
        raise UsageError(f"--nvdec with {name_of(text)}", "a file", "only a file's pictures are decoded this way")
    for field in fields(capture):
        if field.name != "server" and getattr(capture, field.name) != field.default and field.name not in _TAKEN[kind]:
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


def _browser(name: str, notify: Notify, audio: bool, capture: CaptureOptions) -> Source:
    try:
        from mma_edge.sources.browser.source import BrowserSource
        from mma_edge.web.announced import Place
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package.startswith("mma_"):
            raise
        raise DependencyError(f"{package} is not installed", hint='pip install "mma-edge[browser]"') from error
    own = name.partition(":")[2]
    if capture.server is not None and not own:
        return BrowserSource(capture.server, notify, audio, name)
    return BrowserSource(Place(Binding.of(own), capture.tls_cert, capture.tls_key), notify, audio, name)


def _csi(text: str, capture: CaptureOptions) -> Device:
    if not re.fullmatch(r"[0-9]{1,2}", text):
        raise UsageError(f"'csi:{text}' does not name a camera", "csi:N with a number N", "try csi:0")
    return PipelineDevice.csi(int(text), capture.size, capture.rate_fps)


def _gst(text: str, capture: CaptureOptions) -> Device:
    return PipelineDevice.pipeline(text)


_DEVICES: dict[str, Callable[[str, CaptureOptions], Device]] = {"camera": _camera, "csi": _csi, "gst": _gst}
