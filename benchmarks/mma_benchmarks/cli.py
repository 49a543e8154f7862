"""mma-bench: how fast and how right a bundle is on this machine, and how fast a model is trained on it."""

from __future__ import annotations

import argparse
import shlex
import sys

from rich.console import Console

from mma_benchmarks.commands import accuracy, faces, latency, report, speaking, streaming, training, voice
from mma_benchmarks.commands.runs import batch, dashboard, soak
from mma_edge.commands.support import Parser, run_cli, say
from mma_edge.errors import UsageError
from mma_edge.manual.completion import add_completion

COMMANDS = {
    "latency": latency,
    "accuracy": accuracy,
    "training": training,
    "streaming": streaming,
    "voice": voice,
    "faces": faces,
    "speaking": speaking,
    "soak": soak,
    "batch": batch,
    "dashboard": dashboard,
    "report": report,
}
EXAMPLES = """\
examples:
  how fast the default model is here, on the sample clip:
    mma-bench latency
  a bundle of yours on a clip of yours:
    mma-bench latency bundles/dfew --source clip.mp4 --repeat 10
  several engines side by side, against eager PyTorch:
    mma-bench latency --backend cpu openvino --precision fp32 int8 --batch 1 4
  how often it is right, on FER2013 and RAVDESS:
    mma-bench accuracy --data data
  how fast the training loop is, and how much memory it takes:
    mma-bench training
  what a stream saves that does not do everything again, and what it costs:
    mma-bench streaming
  what the voice gate takes for speech:
    mma-bench voice --data data
  which faces are found, and how fast whole files are:
    mma-bench faces --source sample clips/
  which of two faces has the voice:
    mma-bench speaking --source data/av/javanese
  does a live run keep its memory and its age while its stream fails once a minute:
    mma-bench soak --minutes 30
  how many files a minute, and what a second worker gains:
    mma-bench batch
  what the page of a live run costs it, and how old its pictures are:
    mma-bench dashboard
  one page out of several results:
    mma-bench report results/*.json --output report.html
"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser("mma-bench", description=__doc__, epilog=EXAMPLES)
    parser.set_defaults(command=no_command)
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, command in COMMANDS.items():
        texts = {"help": command.HELP, "description": command.HELP, "epilog": command.EXAMPLES}
        own = commands.add_parser(name, **texts)
        own.set_defaults(command=command.run)
        command.add_options(own)
    add_completion(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    typed = sys.argv[1:] if argv is None else argv
    parser = build_parser()
    parser.set_defaults(typed=shlex.join(["mma-bench", *typed]))
    return run_cli(parser, no_command, typed, extra="bench")


def no_command(args: argparse.Namespace, console: Console) -> int:
    say(console, build_parser().format_help())
    *names, last = COMMANDS
    raise UsageError("no command was given", f"{', '.join(names)} or {last}", "try: mma-bench latency")
