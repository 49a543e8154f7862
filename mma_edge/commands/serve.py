"""The page of a run: its options, and how it is opened. `mma-edge serve` is `mma-edge run` with the page."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mma_edge.commands.support import missing_package
from mma_edge.errors import UsageError

if TYPE_CHECKING:
    from mma_edge.dashboard.dashboard import Dashboard
    from mma_edge.pipeline import StreamOptions
    from mma_edge.recognizer import Recognizer

SERVE_EXAMPLES = """\
examples:
  mma-edge serve                               the page takes the camera of the browser that opens it
  mma-edge serve camera                        camera and microphone of this machine
  mma-edge serve door=rtsp://192.168.1.20/stream desk=camera
  mma-edge serve sample --realtime             the clip that comes with the package, as a camera would deliver it
  mma-edge serve camera --web 0.0.0.0:8765     for other machines, a phone: by TLS and a token
  mma-edge serve camera --sessions study/day1  where the sessions go that are begun on the page

The link to the page is printed. On this machine it needs no token, elsewhere it holds one that is made anew at each
start. docs/dashboard.md says what the page shows; the options are those of mma-edge run.
"""
SERVED = "8765"
"""Where `mma-edge serve` listens unless told otherwise."""


def add_page_options(add: Callable[..., object], served: bool) -> None:
    """Declare them; `served`: there is a page unless told otherwise. `add` is the parser's `add_argument`."""
    where = "where the page is (default address: 127.0.0.1)" if served else "show the run on a page there"
    add("--web", metavar="[ADDRESS:]PORT", default=SERVED if served else None, help=where)
    add("--sessions", type=Path, metavar="DIR", help="folder of the sessions that the page begins (default: sessions)")


def open_page(
    args: argparse.Namespace, recognizer: Recognizer, options: StreamOptions
) -> tuple[list[Dashboard], StreamOptions]:
    """The page that a command line asks for, already served, or none; and options by which browsers send on it."""
    if args.web is None:
        return [], options
    try:
        from mma_edge.dashboard.dashboard import Dashboard
        from mma_edge.web.announced import Place
        from mma_edge.web.binding import Binding
    except ModuleNotFoundError as error:
        raise missing_package(error, "web") from error
    capture = options.capture
    place = Place(Binding.of(args.web), capture.tls_cert, capture.tls_key)
    dashboard = Dashboard(place, recognizer, options, args.sessions or Path("sessions"))
    capture = dataclasses.replace(capture, tls_cert=None, tls_key=None, server=dashboard.server)
    return [dashboard], dataclasses.replace(options, capture=capture)


def check_page(args: argparse.Namespace) -> None:
    """UsageError for what can be seen to be wrong before a model is loaded."""
    if args.web is not None:
        from mma_edge.web.binding import Binding

        Binding.of(args.web)
    elif args.sessions:
        raise UsageError("--sessions without a page", "--web PORT, or mma-edge serve", "the page begins the sessions")
