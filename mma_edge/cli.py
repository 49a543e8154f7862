"""mma-edge: emotions from a face and a voice, of a camera with its microphone, or of a video file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from mma_edge import __version__
from mma_edge.commands.batch import add_batch_command
from mma_edge.commands.convert import add_convert_command
from mma_edge.commands.report import add_report_command
from mma_edge.commands.run import add_run_command, add_serve_command, run_command
from mma_edge.commands.session import add_annotate_command
from mma_edge.commands.setup.build import add_build_command
from mma_edge.commands.setup.doctor import add_doctor_command
from mma_edge.commands.setup.help import add_help_commands, probably, welcome
from mma_edge.commands.setup.neutral import add_neutral_command
from mma_edge.commands.support import Parser, end_process, run_cli

EXAMPLES = """\
examples:
  mma-edge run sample                        the clip of the package
  mma-edge run camera                        camera and microphone
  mma-edge serve                             a page, with your browser's camera
  mma-edge run talk.mp4 --output talk.jsonl  a record per half second
  mma-edge run clip.mp4 --whole              one answer, as the paper tests
  mma-edge neutral camera --output ada.json  what Ada is like at rest
  mma-edge annotate talk.mp4 -o out.mp4      boxes and labels in the film
  mma-edge batch videos --output emotions    thousands of files, every core
  mma-edge report session                    a page of what was recorded
  mma-edge convert talk.jsonl --to elan      for other programs
  mma-edge doctor                            what to install for the rest
  mma-edge build bundles/dfew                a TensorRT engine, on its GPU
  mma-edge help run                          options, examples, exit codes
"""


def build_parser() -> Parser:
    parser = Parser("mma-edge", description=__doc__, epilog=EXAMPLES)
    parser.otherwise = probably
    parser.add_argument("--version", action="version", version=f"mma-edge {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    # As --help lists them: in the order in which a new user needs them.
    add_run_command(commands)
    add_serve_command(commands)
    add_doctor_command(commands)
    add_neutral_command(commands)
    add_annotate_command(commands)
    add_batch_command(commands)
    add_report_command(commands)
    add_convert_command(commands)
    info = commands.add_parser("info", help="show what a bundle holds")
    info.set_defaults(command=info_command)
    info.add_argument("bundle", nargs="?", type=Path, metavar="BUNDLE", help="its folder (default: the embedded one)")
    add_build_command(commands)
    add_help_commands(commands, parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = build_parser()
    if not (sys.argv[1:] if argv is None else argv):
        welcome(parser, Console())
        return 2
    code = run_cli(parser, run_command, argv, extra="cpu")
    return end_process(code) if argv is None else code


def info_command(args: argparse.Namespace, console: Console) -> int:
    from mma_edge.bundle import read_bundle
    from mma_edge.commands.setup.info import show_bundle

    show_bundle(read_bundle(args.bundle), console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
