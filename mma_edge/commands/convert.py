"""mma-edge convert: records for annotation tools, as subtitles, as tables."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from mma_edge.commands.recognition import notes_to
from mma_edge.commands.support import say

CONVERT_EXAMPLES = """\
examples:
  mma-edge convert talk --to elan                        a session's folder: talk/records.eaf, with its video and marks
  mma-edge convert talk.jsonl --to elan --media talk.mp4  records of run --output, and the video they are about
  mma-edge convert talk.jsonl --to textgrid --face 1     Praat; of one face only
  mma-edge convert talk.jsonl --to boris --output talk.csv
  mma-edge convert talk.jsonl --to srt --min-s 1.5       subtitles that can be read: nothing shorter than 1.5 s
  mma-edge convert talk.jsonl --to vtt --as-of end       a label from when it was known
  mma-edge convert talk.jsonl --to parquet               for pandas, polars, R (needs "mma-edge[table]")

With several sources each gets a file of its own, named as the source; boris, csv and parquet have room for all of them.

exit codes: 0 done, 2 usage, 3 no records, 7 output, 11 missing package, 130 interrupted
"""
DESCRIPTION = """\
Write RECORDS as another program reads them. Each answer is about a window of several seconds; for annotations and
subtitles it becomes the label of the time around the window's middle."""


def add_convert_command(commands: argparse._SubParsersAction) -> None:
    """The subcommand `convert` of `mma-edge`."""
    brief = "records for ELAN, Praat, BORIS, as subtitles or tables"
    parser = commands.add_parser("convert", help=brief, description=DESCRIPTION, epilog=CONVERT_EXAMPLES)
    parser.set_defaults(command=convert_command)
    add = parser.add_argument
    add("records", type=Path, metavar="RECORDS", help="a session's folder, or the .jsonl, .csv or .parquet of records")
    add("--to", required=True, metavar="FORMAT", help="elan, textgrid, boris, vtt, srt, csv or parquet")
    add("--output", type=Path, metavar="FILE", help="name of the new file (default: beside RECORDS, named as they are)")
    add("--overwrite", action="store_true", help="replace it where it exists")
    add("--face", type=int, metavar="N", help="only this face")
    add("--source", metavar="NAME", help="only this source")
    add("--media", type=Path, metavar="FILE", help="the video that RECORDS are about (default: the session's own)")
    shortest = "give shorter segments to the one beside them, and leave out those that stand alone (default: 0.5)"
    add("--min-s", type=float, metavar="S", help=shortest)
    steady = "keep the last label until another one is so much more probable (default: 0.1)"
    add("--hysteresis", type=float, metavar="P", help=steady)
    when = "an answer stands for the middle of its window, or for the time at which it was known (default: middle)"
    add("--as-of", metavar="middle|end", help=when)


def convert_command(args: argparse.Namespace, console: Console) -> int:
    from mma_edge.convert import Choice, ConvertOptions, SegmentOptions, convert

    given = {"min_s": args.min_s, "hysteresis": args.hysteresis, "as_of": args.as_of}
    given = {name: value for name, value in given.items() if value is not None}
    options = ConvertOptions(
        output=args.output,
        overwrite=args.overwrite,
        choice=Choice(args.source, args.face),
        segments=SegmentOptions(**given) if given else None,
        media=args.media,
        notify=notes_to(console),
    )
    for path in convert(args.records, args.to, options):
        say(console, str(path))
    return 0
