"""`mma-edge report SESSION`: one page of what a session shows, and the same ribbon for a paper."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from mma_edge.commands.support import say
from mma_edge.errors import OutputError, UsageError

REPORT_EXAMPLES = """\
examples:
  mma-edge report talk                             a session's folder -> talk/report.html
  mma-edge report talk --output for-anna.html      a name of your own
  mma-edge report records.jsonl                    records of --output, without pictures -> records.html
  mma-edge report talk --from 60 --to 120 --face 1
  mma-edge report talk --svg ribbon.svg --png ribbon.png --columns 1

The page is one file that needs no network: open it, print it, send it. It holds small pictures of faces where the
session has a video (--no-pictures leaves them out).
exit codes: 0 done, 2 usage, 3 no session and no records, 7 output, 130 interrupted
"""


def add_report_command(commands: argparse._SubParsersAction) -> None:
    """The subcommand `report` of `mma-edge`."""
    description = "One page of a session: emotions of each face over time, how long, from what to what, and marks."
    brief = "one page of a session: emotions over time"
    parser = commands.add_parser("report", help=brief, description=description, epilog=REPORT_EXAMPLES)
    parser.set_defaults(command=report_command)
    add = parser.add_argument
    add("session", type=Path, metavar="SESSION", help="a session's folder, or records (.jsonl, .csv) of --output")
    add("--output", type=Path, metavar="FILE.html", help="the page (default: report.html in the session's folder)")
    add("--svg", type=Path, metavar="FILE.svg", help="the ribbon as a figure for a paper, too")
    add("--png", type=Path, metavar="FILE.png", help="the same as a picture of 300 dots per inch")
    add("--columns", type=int, choices=(1, 2), default=2, help="width of that figure: 88 or 180 mm")
    add("--face", type=int, metavar="N", help="this face only")
    add(
        "--from",
        dest="from_s",
        type=float,
        metavar="S",
        help="only what is after it, in seconds of the page's time line",
    )
    add("--to", dest="to_s", type=float, metavar="S", help="only what is before it")
    add("--no-pictures", action="store_true", help="no pictures of the session's video")
    add("--overwrite", "--force", action="store_true", help="replace files that exist")


def report_command(args: argparse.Namespace, console: Console) -> int:
    from mma_edge.files import write_bytes, write_text
    from mma_edge.report.page import page_of, wanted_strips
    from mma_edge.report.paper.drawing import to_svg
    from mma_edge.report.paper.figure import figure_of
    from mma_edge.report.paper.png import to_png
    from mma_edge.report.pictures import strips_of
    from mma_edge.report.recording import part_of, read_recording

    page = args.output or _beside(args.session)
    for path, suffixes in ((page, (".html", ".htm")), (args.svg, (".svg",)), (args.png, (".png",))):
        _check(path, suffixes, args.overwrite)
    recording = part_of(read_recording(args.session), args.face, args.from_s, args.to_s)
    problems = list(recording.problems)
    with console.status("reading the video"):
        strips = {} if args.no_pictures else strips_of(recording, wanted_strips(recording), problems.append)
    write_text(page, page_of(recording, strips, problems))
    if args.svg or args.png:
        figure, without = figure_of(recording, strips, args.columns)
        if without:
            problems.append(f"the figure has no room for {without} of the faces, those seen for the shortest time")
        if args.svg:
            write_text(args.svg, to_svg(figure, f"Emotions over time of {recording.title}"))
        if args.png:
            data, missing = to_png(figure)
            write_bytes(args.png, data)
            if missing:
                problems.append(
                    f"no font of this machine has {missing} of the letters: boxes stand for them in the PNG"
                )
    for problem in problems:
        say(console, f"note: {problem}")
    for path in filter(None, (page, args.svg, args.png)):
        say(console, f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _beside(session: Path) -> Path:
    """Where the page goes by itself."""
    return session / "report.html" if session.is_dir() else session.with_suffix(".html")


def _check(path: Path | None, suffixes: tuple[str, ...], overwrite: bool) -> None:
    """UsageError for a wrong name, OutputError for a file that exists, before anything is read."""
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{path} does not end in {suffixes[0]}", f"a name that ends in {' or '.join(suffixes)}")
    if path.exists() and (path.is_dir() or not overwrite):
        hint = "choose another name" if path.is_dir() else "add --overwrite, or choose another name"
        raise OutputError(f"{path} exists", "a new file", hint)
