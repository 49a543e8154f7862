"""Makes the README's pictures from real runs on the sample: python docs/pictures/make.py [NAME ...]

A picture whose command, browser or package is not here is left out, with the reason. Look at each before it is kept.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from mma_edge.cli import build_parser, main
from mma_edge.files import replaced
from mma_edge.manual.pages import commands_of
from mma_edge.sources import open_source, sample_path
from mma_edge.types import Frame

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COLUMNS = 88
LARGEST = 150_000
"""Bytes: the README is read on telephones, too."""
PAGE_WIDTH = 1200
"""Pixels of a browser's window."""


class NotHereError(Exception):
    """Why a picture cannot be made here."""


@dataclass(frozen=True)
class Picture:
    """One picture of the README."""

    command: str  # of mma-edge, which must exist
    make: Callable[[Path], None]  # writes the file


def terminal(path: Path, *argv: str) -> None:
    """What `mma-edge ARGV` leaves on a terminal, as an SVG that loads nothing."""
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, color_system="truecolor", width=COLUMNS, height=80)
    with mock.patch("mma_edge.commands.support.Console", lambda: console), mock.patch.dict(os.environ, TERM="xterm"):
        main(list(argv))
    picture = Console(record=True, file=io.StringIO(), width=COLUMNS)
    picture.print(Text(f"$ mma-edge {' '.join(argv)}", style="bold"))
    for line in screen(shown.getvalue()):
        picture.print(Text.from_ansi(line), soft_wrap=True)
    svg = picture.export_svg(title="mma-edge", theme=MONOKAI, unique_id=argv[0])
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # fonts of the internet
    path.write_text(svg.replace("Fira Code", "DejaVu Sans Mono"), encoding="utf-8")


def screen(written: str) -> list[str]:
    """The lines that a terminal shows after what was written to it; colours are left in."""
    lines, row = [""], 0
    for part in re.split(r"(\x1b\[\d*A|\x1b\[2K|\x1b\[\?25[lh]|\r|\n)", written):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.endswith("A") and part.startswith("\x1b["):
            row = max(0, row - int(part[2:-1] or 1))
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part and part != "\r" and not part.startswith("\x1b[?25"):
            lines[row] += part
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def annotated(path: Path) -> None:
    """One picture of what `mma-edge annotate` makes of the sample."""
    import cv2

    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "out.mp4"
        run("annotate", str(sample_path()), "-o", str(film))
        with open_source(film, audio=False) as source:
            frame = next(event for event in source.events() if isinstance(event, Frame) and event.time_s > 5.0)
    cv2.imwrite(str(path), cv2.cvtColor(frame.image[...], cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])


def dashboard(path: Path) -> None:
    """The page of `mma-edge serve` while the sample plays."""
    port = free_port()
    argv = [sys.executable, "-m", "mma_edge.cli", "serve", "sample", "--realtime", "--web", str(port)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as serving:
        try:
            wait_for(f"http://127.0.0.1:{port}/")
            with browser(f"http://127.0.0.1:{port}/") as page:
                page.until("document.body.innerText.includes('happy')")
                time.sleep(1.5)  # some more answers; the sample plays for 8 s
                screenshot(page, path, 720)
        finally:
            serving.terminate()


def report(path: Path) -> None:
    """The page that `mma-edge report` makes of a session with the sample."""
    with tempfile.TemporaryDirectory() as folder:
        session, page_file = Path(folder) / "sample", Path(folder) / "report.html"
        run("run", "sample", "--quiet", "--session", str(session))
        run("report", str(session), "--output", str(page_file))
        with browser(page_file.as_uri()) as page:
            time.sleep(1.0)
            screenshot(page, path, 880)


def run(*argv: str) -> None:
    """A command that must succeed."""
    done = subprocess.run([sys.executable, "-m", "mma_edge.cli", *argv], capture_output=True, text=True)
    if done.returncode:
        raise NotHereError(f"mma-edge {argv[0]}: {done.stderr.strip().splitlines()[-1]}")


@contextlib.contextmanager
def browser(address: str) -> Iterator[object]:
    """The headless Chromium of the tests."""
    sys.path.insert(0, str(ROOT / "tests"))
    from chromium import EXECUTABLE, Chromium

    if EXECUTABLE is None:
        raise NotHereError("Chromium is not installed")
    with Chromium(address) as page:
        yield page


def screenshot(page: object, path: Path, height: int) -> None:
    """Of a window this high. As PNG, or as JPEG where the name says so, which is smaller where a face is in it."""
    import cv2
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        page.screenshot(shot, PAGE_WIDTH, height, "light")
        image = cv2.imdecode(np.frombuffer(shot.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 85])


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def wait_for(address: str, seconds: float = 30.0) -> None:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=2.0):
            return
        time.sleep(0.2)
    raise NotHereError(f"{address} does not answer")


PICTURES = {
    "run.svg": Picture("run", lambda path: terminal(path, "run", "sample")),
    "doctor.svg": Picture("doctor", lambda path: terminal(path, "doctor")),
    "dashboard.jpg": Picture("serve", dashboard),
    "annotated.jpg": Picture("annotate", annotated),
    "report.jpg": Picture("report", report),
}
"""File in this folder -> how it is made. The README shows all whose command exists."""


def wanted() -> list[str]:
    """The pictures that this version can have."""
    known = commands_of(build_parser())
    return [name for name, picture in PICTURES.items() if picture.command in known]


def make(name: str) -> None:
    """Write one picture, whole or not at all; NotHereError with the reason."""
    if name not in PICTURES:
        raise NotHereError(f"it is none of {', '.join(PICTURES)}")
    if name not in wanted():
        raise NotHereError(f"there is no command mma-edge {PICTURES[name].command} yet")
    with replaced(HERE / name) as aside:
        # The suffix says the format.
        beside = aside.with_name(f".new-{name}")
        try:
            PICTURES[name].make(beside)
            if beside.stat().st_size > LARGEST:
                raise NotHereError(f"{beside.stat().st_size} bytes are more than {LARGEST}")
            os.replace(beside, aside)
        finally:
            beside.unlink(missing_ok=True)


if __name__ == "__main__":
    sizes: dict[str, int | str] = {}
    for asked in sys.argv[1:] or PICTURES:
        try:
            make(asked)
            sizes[asked] = (HERE / asked).stat().st_size
        except NotHereError as reason:
            sizes[asked] = f"left out: {reason}"
    print(json.dumps(sizes, indent=1))
