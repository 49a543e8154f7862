"""The page of a run: its options, and how it is opened. `mma-edge serve` is `mma-edge run` with the page."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mma_edge.commands.support import missing_package
from mma_edge.errors import UsageError

if TYPE_CHECKING:
    from mma_edge.dashboard.dashboard import Dashboard, Routes
    from mma_edge.pipeline import StreamOptions
    from mma_edge.recognizer import Recognizer
    from mma_edge.web.announced import Place

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
SERVED, SESSIONS = "8765", "sessions"
"""Where `mma-edge serve` listens, and a page keeps its sessions, unless told otherwise."""


def add_page_options(add: Callable[..., object], served: bool) -> None:
    """Declare them; `served`: there is a page unless told otherwise. `add` is the parser's `add_argument`."""
    where = "where the page is (default address: 127.0.0.1)" if served else "show the run on a page there"
    add("--web", metavar="[ADDRESS:]PORT", default=SERVED if served else None, help=where)
    kept = f"folder of the sessions that the page begins (default: {SESSIONS})"
    add("--sessions", type=Path, metavar="DIR", help=kept)


def check_page(args: argparse.Namespace) -> Place | None:
    """Where the page is to be; None: there is none. MMAEdgeError for all that can be known before a model is loaded."""
    if args.web is None:
        if args.sessions:
            raise UsageError("--sessions without a page", "--web PORT, or mma-edge serve", "the page begins sessions")
        return None
    try:
        from mma_edge.dashboard import dashboard  # noqa: F401
        from mma_edge.web.announced import Place
        from mma_edge.web.binding import Binding
    except ModuleNotFoundError as error:
        raise missing_package(error, "web") from error
    for source in args.sources:
        if source.rpartition("=")[2].startswith("browser:"):
            expected, hint = "browser, which is on the same page", "--web ADDRESS:PORT says where that is"
            raise UsageError(f"{source} beside a page that shows the run", expected, hint)
    return Place(Binding.of(args.web), args.tls_cert, args.tls_key)


def open_page(
    place: Place | None,
    sessions: Path | None,
    recognizer: Recognizer,
    options: StreamOptions,
    routes: Sequence[Routes] = (),
) -> tuple[list[Dashboard], StreamOptions]:
    """The page at this place, already served, or none; and options by which browsers send on it. `routes` add further
    paths to its server."""
    if place is None:
        return [], options
    from mma_edge.dashboard.dashboard import Dashboard

    page = Dashboard(place, recognizer, options, sessions or Path(SESSIONS), routes)
    capture = dataclasses.replace(options.capture, tls_cert=None, tls_key=None, server=page.server)
    return [page], dataclasses.replace(options, capture=capture)
