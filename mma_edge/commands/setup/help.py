"""What a new user sees first: `mma-edge` alone, `mma-edge help`, and `mma-edge completion`."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from rich.console import Console

from mma_edge import __version__
from mma_edge.commands.support import Parser, say
from mma_edge.manual.completion import SHELLS, script
from mma_edge.manual.pages import commands_of, man_page
from mma_edge.manual.parser import meant

FIRST = {
    "mma-edge run sample": "the clip that comes with the package",
    "mma-edge run camera": "first camera and microphone, until Ctrl-C",
    "mma-edge doctor": "what this machine can run, and what to install",
}
"""To try now."""
FURTHER = {
    "mma-edge --help": "all commands",
    "mma-edge help run": "one of them: options, examples, exit codes",
}
_WORDS = ("sample", "camera", "microphone", "browser")
COMPLETION = """\
examples:
  mma-edge completion bash > ~/.local/share/bash-completion/completions/mma-edge
  mma-edge completion zsh > ~/.zfunc/_mma-edge
  mma-edge completion fish > ~/.config/fish/completions/mma-edge.fish
"""
MAN = """\
examples:
  mma-edge help run
  mma-edge help run --man | man -l -
  mma-edge help --man > ~/.local/share/man/man1/mma-edge.1
"""


def welcome(parser: Parser, console: Console) -> None:
    """What this is, what to try, where to read on: on one screen."""
    say(console, f"mma-edge {__version__}: emotions from a face and a voice, live, on your own machine", "bold")
    for title, rows in (("try now", FIRST), ("read on", FURTHER)):
        say(console, f"\n{title}:", "bold")
        for command, meaning in rows.items():
            _row(console, command, meaning)
    say(console, f"\ncommands: {', '.join(commands_of(parser))}")


def _row(console: Console, command: str, meaning: str) -> None:
    padded = f"  {command:<21}"
    if console.width < len(padded) + len(meaning):
        padded, meaning = f"  {command}", f"\n      {meaning}"
    console.print(f"[green]{padded}[/green]  {meaning}", highlight=False, soft_wrap=True)


def probably(word: str) -> str:
    """The whole command that was meant by a source or another command's name in the place of a command."""
    is_source = word.partition(":")[0] in _WORDS or "://" in word or Path(word).is_file()
    return f"mma-edge run {word}" if is_source else ""


def add_help_commands(commands: argparse._SubParsersAction, parser: Parser) -> None:
    """`help` and `completion`; `parser` is the one of the whole program."""
    help_ = commands.add_parser("help", help="show the help of a command", epilog=MAN)
    help_.set_defaults(command=partial(help_command, parser))
    help_.add_argument("name", nargs="?", metavar="COMMAND", help="one of mma-edge (default: all of it)")
    help_.add_argument("--man", action="store_true", help="as a page for man, in troff")
    brief = "print a script that completes commands in your shell"
    completion = commands.add_parser("completion", help=brief, epilog=COMPLETION)
    completion.set_defaults(command=partial(completion_command, parser))
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=f"one of {', '.join(SHELLS)}")


def help_command(parser: Parser, args: argparse.Namespace, console: Console) -> int:
    known = commands_of(parser)
    if args.name is not None and args.name not in known:
        parser.fail(f"mma-edge has no command {args.name!r}", meant(args.name, known))
    chosen = parser if args.name is None else known[args.name]
    if args.man:
        print(man_page(chosen, parser), end="")
    else:
        chosen.print_help()
    return 0


def completion_command(parser: Parser, args: argparse.Namespace, console: Console) -> int:
    print(script(parser, args.shell))
    return 0
