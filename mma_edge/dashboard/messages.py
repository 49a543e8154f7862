"""What a page may say: text messages, each one JSON object with a `type`.

    ack {number}                            I have shown the message of this number: send the next
    start {name, video, blur_faces, sound}  begin a session
    stop                                    end it
    mark {text, key}                        mark this moment; key "1" to "9" or null

The server answers with binary messages, see `mma_edge.dashboard.board.HEADER`, and with one kind of text:
{"type": "said", "text"}, why something was not done.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from mma_edge.web.visitors import BadMessageError

MAX_BYTES = 4096
MOST_NAME, MOST_TEXT = 80, 500
"""Characters of a session's name and of a mark."""


@dataclass(frozen=True)
class Ack:
    number: int


@dataclass(frozen=True)
class Start:
    name: str
    video: bool
    blur_faces: bool
    sound: bool


@dataclass(frozen=True)
class Stop:
    pass


@dataclass(frozen=True)
class Mark:
    text: str
    key: str | None


Command = Ack | Start | Stop | Mark


def read_command(text: str) -> Command:
    """Understand a text message; BadMessageError for any that no page sends."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise BadMessageError("a message that is not JSON") from None
    kind = message.get("type") if isinstance(message, dict) else None
    if kind == "ack":
        number = message.get("number")
        if type(number) is not int:
            raise BadMessageError("an ack without a number")
        return Ack(number)
    if kind == "start":
        flags = [message.get(name) for name in ("video", "blur_faces", "sound")]
        if not all(isinstance(flag, bool) for flag in flags):
            raise BadMessageError("a start without its choices")
        return Start(_line(message.get("name"), MOST_NAME), *flags)
    if kind == "stop":
        return Stop()
    if kind == "mark":
        key = message.get("key")
        if key is not None and key not in tuple("123456789"):
            raise BadMessageError("a mark with an unknown key")
        return Mark(_line(message.get("text"), MOST_TEXT), key)
    raise BadMessageError("a message of an unknown type")


def _line(text: object, most: int) -> str:
    """A text of one line; BadMessageError for what is none."""
    if not isinstance(text, str) or len(text) > most:
        raise BadMessageError("a text that is none, or one that is too long")
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
