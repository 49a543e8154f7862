"""What a page and the server say to each other over their WebSocket.

Text is one JSON object with a `type`:

    page -> server   start                      I want to send
                     offer {sdp}                WebRTC
                     stop                       I have stopped
    server -> page   go {audio}                 you may, with or without sound
                     taken                      another visitor is sending
                     answer {sdp}               WebRTC
                     refused {text}             what was wrong
                     emotions {faces}           the newest answers

Bytes are a picture or sound of the WebSocket road, see `HEADER`.
"""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass

import numpy as np
from PIL.JpegImagePlugin import JpegImageFile

from mma_edge.web.visitors import BadMessageError

MAX_BYTES = 512 * 1024
"""Largest message: a JPEG of 1280x720 has about 100 KiB."""
HEADER = struct.Struct("<BxxxIq")
"""Kind (1: JPEG, 2: sound as int16 mono), sample rate of the sound in Hz, capture time in microseconds of a clock that
both kinds have in common."""
PICTURE, SOUND = 1, 2
MAX_PIXELS = 1920 * 1080
"""A few bytes can claim to be a picture of gigabytes."""
MAX_RATE_HZ, MAX_SOUND_S = 192_000, 1.0
_MAX_SDP = 64 * 1024
_MAX_CANDIDATES = 64
"""Each is an address that this machine will send to."""


@dataclass(frozen=True)
class Request:
    """A text message of a page."""

    type: str
    sdp: str = ""


@dataclass(frozen=True, eq=False)
class Media:
    """One picture, uint8 (H, W, 3) RGB, or consecutive samples, float32 (1, n) in [-1, 1]."""

    data: np.ndarray
    stamp_s: float
    rate_hz: int = 0  # of sound

    @property
    def is_picture(self) -> bool:
        return not self.rate_hz


def read_text(text: str) -> Request:
    """Understand a text message; BadMessageError for any that no page sends."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise BadMessageError("a message that is not JSON") from None
    kind = message.get("type") if isinstance(message, dict) else None
    if kind in ("start", "stop"):
        return Request(kind)
    if kind != "offer":
        raise BadMessageError("a message of an unknown type")
    sdp = message.get("sdp")
    if not isinstance(sdp, str) or len(sdp) > _MAX_SDP or sdp.count("a=candidate") > _MAX_CANDIDATES:
        raise BadMessageError("an offer that is none")
    if not 0 < sdp.count("\nm=") == sdp.count("\nm=audio") + sdp.count("\nm=video") or sdp.count("\nm=video") > 1:
        raise BadMessageError("an offer of something else than a picture and a sound")
    if sdp.count("\nm=audio") > 1:
        raise BadMessageError("an offer of several sounds")
    return Request(kind, sdp)


def read_media(message: bytes) -> Media:
    """Understand a message of the WebSocket road; BadMessageError for what is neither a picture nor sound."""
    if len(message) <= HEADER.size:
        raise BadMessageError("a picture or sound without content")
    kind, rate_hz, stamp_us = HEADER.unpack_from(message)
    stamp_s, content = stamp_us / 1e6, message[HEADER.size :]
    if abs(stamp_s) > 1e10:
        raise BadMessageError("a picture or sound without a time")
    if kind == PICTURE:
        return Media(_picture(content), stamp_s)
    if kind == SOUND:
        if not 8000 <= rate_hz <= MAX_RATE_HZ or len(content) % 2 or len(content) > 2 * rate_hz * MAX_SOUND_S:
            raise BadMessageError("a sound of unknown form")
        return Media(np.frombuffer(content, "<i2").astype(np.float32)[np.newaxis] / 32768.0, stamp_s, rate_hz)
    raise BadMessageError("a message that is neither a picture nor sound")


def _picture(content: bytes) -> np.ndarray:
    try:
        # Not by `Image.open`: it looks for other formats, and warns of large pictures at the terminal.
        with JpegImageFile(io.BytesIO(content)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS or min(width, height) < 16:
                raise BadMessageError("a picture of an unfit size")
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError):
        raise BadMessageError("a picture that is no JPEG") from None
