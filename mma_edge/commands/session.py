"""`mma-edge run --session DIR`: its options, and what they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mma_edge.errors import UsageError

if TYPE_CHECKING:
    from mma_edge.pipeline import StreamOptions
    from mma_edge.recognizer import Recognizer
    from mma_edge.session.recorder import SessionRecorder

_OPTIONS = ("no_video", "blur_faces", "sound", "session_name")


def add_session_options(add: Callable[..., object]) -> None:
    """Declare the options; `add` is the parser's `add_argument`."""
    session = "keep records, annotated video, events and a manifest in DIR, a new folder: docs/sessions.md"
    add("--session", type=Path, metavar="DIR", help=session)
    add("--session-name", metavar="NAME", help="with --session: its name (default: that of DIR)")
    add("--no-video", action="store_true", help="with --session: keep numbers only, no picture")
    blur = "with --session: make the faces that are found unrecognisable in the video"
    add("--blur-faces", action="store_true", help=blur)
    add("--sound", action="store_true", help="with --session: keep the sound, too, in the video")


def check_session_options(args: argparse.Namespace) -> None:
    """Before the model is loaded: UsageError for options that do not fit, OutputError for a folder that is taken."""
    given = [f"--{name.replace('_', '-')}" for name in _OPTIONS if getattr(args, name)]
    if args.session is None:
        if given:
            raise UsageError(f"{given[0]} without --session", "both", "add --session DIR")
        return
    if args.no_video and (args.sound or args.blur_faces):
        wrong = "--sound" if args.sound else "--blur-faces"
        raise UsageError(f"{wrong} with --no-video", "one of them", "sound and faces are kept in the video only")
    if args.sound and args.no_audio:
        raise UsageError("--sound with --no-audio", "one of them")
    from mma_edge.session.movie import check_codec
    from mma_edge.session.recorder import check_folder

    check_folder(args.session)
    if not args.no_video:
        check_codec("mp4", None)


def session_followers(
    args: argparse.Namespace, recognizer: Recognizer, options: StreamOptions
) -> list[SessionRecorder]:
    """The recorder that a command line asks for, or none."""
    if args.session is None:
        return []
    from mma_edge.session.recorder import SessionOptions, SessionRecorder

    chosen = SessionOptions(not args.no_video, args.blur_faces, args.sound, args.session_name or "")
    return [SessionRecorder(args.session, chosen, recognizer, options)]
