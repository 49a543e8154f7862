"""mma-edge: emotions of a camera with its microphone, or of a video file."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from rich.console import Console

from mma_edge import __version__
from mma_edge.commands.build import add_build_command
from mma_edge.commands.report import add_report_command
from mma_edge.commands.run import add_run_command, run_command
from mma_edge.commands.session import add_annotate_command
from mma_edge.commands.support import HelpFormatter, Parser, end_process, run_cli
from mma_edge.commands.sync import DOCTOR, add_sync_options, run_sync

EXAMPLES = """\
examples:
  mma-edge run sample                          the clip that comes with the package
  mma-edge run camera                          first camera and the microphone, until Ctrl-C
  mma-edge run talk.mp4 --output talk.jsonl    one record per face and half second
  mma-edge run clip.mp4 --whole                one answer for the whole clip, as the paper tests
  mma-edge annotate talk.mp4 -o out.mp4        the film with boxes, labels and bars drawn on it
  mma-edge report talk                         one page of a session that run --session has kept
  mma-edge doctor                              what this machine can run, and how to get the rest to run
  mma-edge info                                what is in the default bundle
  mma-edge build bundles/dfew                  a TensorRT engine of a bundle, on the device that will run it
"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser("mma-edge", description=__doc__, epilog=EXAMPLES, formatter_class=HelpFormatter)
    parser.add_argument("--version", action="version", version=f"mma-edge {__version__}")
    subparser = partial(Parser, formatter_class=HelpFormatter)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=subparser)
    add_run_command(commands)
    add_annotate_command(commands)
    info = commands.add_parser("info", help="show what a bundle holds")
    info.set_defaults(command=info_command)
    info.add_argument("bundle", nargs="?", type=Path, metavar="BUNDLE", help="its folder (default: the embedded one)")
    add_build_command(commands)
    add_report_command(commands)
    doctor = commands.add_parser("doctor", help="check what this machine can run", description=DOCTOR)
    doctor.set_defaults(command=doctor_command)
    add_sync_options(doctor.add_argument)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = build_parser()
    if not (sys.argv[1:] if argv is None else argv):
        parser.print_help()
        return 2
    code = run_cli(parser, run_command, argv, extra="cpu")
    return end_process(code) if argv is None else code


def info_command(args: argparse.Namespace, console: Console) -> int:
    from mma_edge.bundle import read_bundle
    from mma_edge.commands.info import show_bundle

    show_bundle(read_bundle(args.bundle), console)
    return 0


def doctor_command(args: argparse.Namespace, console: Console) -> int:
    if run_sync(args, console):
        return 0
    from mma_edge.commands.doctor import examine

    return examine(console)


if __name__ == "__main__":
    sys.exit(main())
