"""Completion scripts for shells, made from a parser by shtab.

shtab writes them for bash, zsh and fish, and nothing runs at a Tab: argcomplete starts the program each time, which is
0.3 s on a desktop. It must be told what an argument takes; that is read off its metavar, so that new options are
completed as well.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mma_edge.errors import DependencyError
from mma_edge.manual.pages import actions_of, commands_of
from mma_edge.precisions import BACKEND_CHOICES, PRECISIONS

SHELLS = ("bash", "zsh", "fish")
SOURCES = ("sample", "camera", "microphone", "browser")
"""What a SOURCE may be, beside files."""
Commands = Callable[[], Mapping[str, argparse.ArgumentParser]]
_WORDS = {"--backend": BACKEND_CHOICES, "--precision": PRECISIONS}
_LISTED = re.compile(r"(?:[a-z0-9-]+, )+[a-z0-9-]+ or [a-z0-9-]+(?=$| \(|;)")
"""Words at the beginning of a help text: "elan, vtt or csv"."""
_FOLDER = re.compile(r"\b(DIR|FOLDER|VIDEOS|DATA|BUNDLE)\b")
_FILE = re.compile(r"\b(FILE|PATH|LIST|MODEL|VIDEO|SESSION|RECORDS)\b")

_SOURCE = {
    "bash": "_mma_edge_sources",
    "zsh": "_mma_edge_sources",
    "fish": f"{' '.join(SOURCES)} (__fish_complete_path (commandline -ct))",
}
_PREAMBLES = {
    "bash": f"""\
_mma_edge_sources() {{
  compgen -W "{" ".join(SOURCES)}" -- "$1"
  compgen -f -- "$1"
}}
""",
    "zsh": f"""\
_mma_edge_sources() {{
  _alternative 'words:source:({" ".join(SOURCES)})' 'files:file:_files'
}}
""",
}
_ONE = re.compile(r'(?m)(?<=^  )"\(\*\)::?')
"""Before what may be given several times, as shtab has it: zsh then completes the first of them only."""
# bash writes a folder with its slash, and goes on in it.
_ENDING = "complete -o bashdefault -o filenames -F {function} {prog}"


class CompletionAction(argparse.Action):
    """`--completion SHELL` of a program: prints the script for one of SHELLS, and ends."""

    def __init__(self, *args: Any, commands: Commands, **options: Any) -> None:
        super().__init__(*args, **options)
        self._commands = commands

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, shell: str, option: str | None = None) -> None:
        if others := self._commands():
            branch = parser.add_subparsers()
            for name, other in others.items():
                about = (other.description or "").partition(": ")[2]
                branch.add_parser(name, parents=[other], add_help=False, description=about, help=about)
        try:
            print(script(parser, shell))
        except DependencyError as error:
            parser.exit(error.exit_code, f"error: {error}\n")
        parser.exit()


def add_completion(parser: argparse.ArgumentParser, commands: Commands = dict) -> None:
    """The option of a program that has no command for it.

    `commands` makes the parsers of those commands that the program's own parser does not know.
    """
    text = f"print a script that completes this program in your shell, one of {', '.join(SHELLS)}, and end"
    options: dict[str, Any] = {"choices": SHELLS, "metavar": "SHELL", "help": text, "default": argparse.SUPPRESS}
    parser.add_argument("--completion", action=CompletionAction, commands=commands, **options)


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for one of SHELLS; the parser is of no other use afterwards. DependencyError without shtab."""
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise DependencyError("shtab is not installed", hint='pip install "mma-edge[completion]"') from error
    for action in actions_of(parser):
        if action.choices or action.nargs == 0:
            continue
        metavar = " ".join(action.metavar) if isinstance(action.metavar, tuple) else action.metavar or ""
        if shell == "zsh":  # where a colon ends the name
            action.metavar = metavar.replace(":", "\\:")
        if "SOURCE" in metavar:
            action.complete = _SOURCE
        elif metavar == "COMMAND":
            action.choices = list(commands_of(parser))
        elif words := words_of(action, metavar):
            action.choices = words
        elif _FOLDER.search(metavar) and not _FILE.search(metavar):
            action.complete = shtab.DIRECTORY
        elif action.type is Path or _FILE.search(metavar):
            action.complete = shtab.FILE
    text = shtab.complete(parser, shell, preamble=_PREAMBLES)
    if shell == "zsh":
        text = _ONE.sub('"*:', text)
    if shell == "bash":
        text += "\n" + _ENDING.format(function=f"_shtab_{re.sub(r'[^a-z]', '_', parser.prog)}", prog=parser.prog)
    return text


def words_of(action: argparse.Action, metavar: str) -> list[str]:
    """What it can be: of a metavar such as SHARE|off the words in small letters, or those that its help begins with."""
    if known := next((_WORDS[option] for option in action.option_strings if option in _WORDS), ()):
        return list(known)
    if listed := _LISTED.match(action.help or ""):
        return re.split(", | or ", listed[0])
    return [word for word in metavar.split("|") if "|" in metavar and re.fullmatch("[a-z0-9-]+", word)]
