"""The names of sources: one is in each record, so that several can be told apart."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from mma_edge.errors import UsageError
from mma_edge.sources.devices.gstreamer import PipelineDevice
from mma_edge.sources.network.address import Address, is_address

EXPECTED = "a file, camera, camera:N, csi:N, gst:PIPELINE, microphone, sample or an address such as rtsp://HOST/PATH"
DEVICES = ("camera", "csi", "gst")
"""What a source on this machine begins with, before a colon."""
_NAMED = re.compile(r"(\w[\w.-]{0,63})=(.*)", re.DOTALL)
"""NAME=SOURCE. An address, a pipeline and a path with a folder have a sign before any = that no name has."""

Spec = str | os.PathLike[str]


def named_sources(specs: Iterable[Spec] | Mapping[str, Spec]) -> dict[str, Spec]:
    """Name -> source, in their order, of texts such as "talk.mp4" and "left=camera:1", or of a mapping.

    A source without a name has its own: a file that of its path's end, a device or address what it is opened with,
    without a password. "a=b.mp4" is a file of this name where there is one; "./a=b.mp4" always is.

    Raises:
        UsageError: none, a name that is none, two sources with one name, or an address that is none.
    """
    if isinstance(specs, Mapping):
        for name in specs:
            if not (isinstance(name, str) and _NAMED.fullmatch(f"{name}=x")):
                raise UsageError(f"source name {name!r}", "letters, digits, '_', '-' and '.', at most 64")
        pairs = list(specs.items())
    else:
        pairs = [_split(spec) for spec in specs]
    if not pairs:
        raise UsageError("no source was given", "at least one", "try: mma-edge run sample")
    named: dict[str, Spec] = {}
    for name, spec in pairs:
        if name in named:
            hint = "write NAME=SOURCE, such as left=camera:0 right=camera:1"
            raise UsageError(f"two sources have the name {name}", "a name for each", hint)
        name_of(spec)  # its own errors come before any work, too
        named[name] = spec
    return named


def _split(spec: Spec) -> tuple[str, Spec]:
    text = os.fspath(spec)
    given = _NAMED.fullmatch(text)
    if given and not Path(text).exists():
        return given[1], given[2]
    return own_name(text), spec


def own_name(text: str) -> str:
    """The name of a source that was given none; the same for two ways to name one camera."""
    kind = kind_of(text)
    if kind == "file":
        return "sample.mp4" if text == "sample" else Path(text).name
    return "camera:0" if text in ("camera", "camera:") else name_of(text)


def name_of(spec: Spec) -> str:
    """What may be shown of a source before it is open: an address without its password, a pipeline by its name."""
    text = os.fspath(spec)
    kind = kind_of(text)
    if kind == "address":
        return Address.of(text).shown
    return PipelineDevice.pipeline(text.partition(":")[2]).name if kind == "gst" else text


def kind_of(text: str) -> str:
    """address, file, microphone or one of DEVICES; UsageError for an empty text."""
    if not text:
        raise UsageError("the source is empty", EXPECTED, "try: mma-edge run sample")
    if is_address(text):
        return "address"
    word, colon, _ = text.partition(":")
    if text == "microphone" or text == "camera" or (colon and word in DEVICES):
        return word
    return "file"
