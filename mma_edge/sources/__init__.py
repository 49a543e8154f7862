"""Where frames and sound come from: a file, a camera with its microphone, the sample clip."""

from __future__ import annotations

import os
import re

from mma_edge.errors import UsageError
from mma_edge.sources.base import Event, Source, SourceStats
from mma_edge.sources.camera import CameraSource
from mma_edge.sources.file import FileSource, sample_path
from mma_edge.sources.network.address import Address, is_address
from mma_edge.sources.network.source import NetworkSource
from mma_edge.types import Notify, ignore_notice

__all__ = ["CameraSource", "Event", "FileSource", "Source", "SourceStats", "open_source", "sample_path"]


def open_source(
    spec: str | os.PathLike[str], notify: Notify = ignore_notice, audio: bool = True, nvdec: bool = False
) -> Source:
    """Open the source that the user named: "sample", "camera", "camera:N" or a path ("./sample" is such a file).

    `notify` takes one-line notices, each given once; without `audio` the sound or the microphone is ignored. With
    `nvdec` an NVIDIA GPU decodes a file's pictures, where there is one.
    """
    text = os.fspath(spec)
    if text == "sample":
        return FileSource(sample_path(), notify, audio, nvdec)
    if text == "camera" or text.startswith("camera:"):
        number = text.partition(":")[2] if ":" in text else "0"
        if not re.fullmatch(r"[0-9]{1,3}", number):
            raise UsageError(f"{text!r} does not name a camera", "camera or camera:N with a number N", "try camera:0")
        if nvdec:
            raise UsageError(f"--nvdec with {text}", "a file", "a camera's pictures are not decoded this way")
        return CameraSource(int(number), notify, audio)
    if is_address(text):
        if nvdec:
            raise UsageError(f"--nvdec with {text}", "a file", "a stream's pictures are not decoded this way")
        return NetworkSource(Address.of(text), notify, audio)
    if not text:
        raise UsageError("the source is empty", "a file, camera, camera:N or sample", "try: mma-edge run sample")
    return FileSource(spec, notify, audio, nvdec)
