"""The parser of every command: help that fits the terminal, and one line about a mistake, with what was meant."""

from __future__ import annotations

import argparse
import difflib
import itertools
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import IO, Any, NoReturn

from rich.console import Console
from rich.text import Text

from mma_edge.errors import UsageError

WIDEST = 100
"""Columns of help on a wide terminal: longer lines are hard to read."""
_MANY_OPTIONS = 3
"""A usage line with more options than these says [options]; the list follows below it."""
COMMENT = re.compile(r"(?<=\S) {2,}(?=[^\s-])")
"""Between a command and what is said about it."""
_WHOLE_WORDS = {"break_on_hyphens": False, "break_long_words": False}
_STYLES = {
    r"(?m)^(?:usage|[a-z][^:\n]*(?=:$))": "bold",
    r"(?m)^  (?:    )?(?:-\w, )?--?[a-z][\w-]*": "cyan",
    r"(?m)^ +mma-\w+ (?:(?!  ).)*": "green",
}


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps examples as lines, fills everything else to the terminal's width; shows defaults but None and False."""

    def __init__(self, prog: str, **options: Any) -> None:
        self.columns = options.setdefault("width", min(shutil.get_terminal_size().columns, WIDEST) - 2)
        super().__init__(prog, **options)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False) or action.default == []:
            return action.help
        if isinstance(action.default, list) and "%(default)" not in (action.help or ""):
            return f"{action.help} (default: {' '.join(map(str, action.default))})"
        return super()._get_help_string(action)

    def _format_action(self, action: argparse.Action) -> str:
        if isinstance(action, argparse._SubParsersAction):  # the commands are listed, without a line of their own
            return "".join(map(self._format_action, action._get_subactions()))
        return super()._format_action(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return lay_out(text, width)

    def _format_usage(self, usage: str | None, actions: Iterable, groups: Iterable, prefix: str | None) -> str:
        short = [action for action in actions if action.required or not action.option_strings]
        if usage is not None or len(list(actions)) - len(short) <= _MANY_OPTIONS:
            return super()._format_usage(usage, actions, groups, prefix)
        prog, self._prog = self._prog, f"{self._prog} [options]"
        try:
            return super()._format_usage(usage, short, [], prefix)
        finally:
            self._prog = prog


GROUPS = ("source", "model", "clips", "output")
"""Groups of options that several commands have, in the order of their help; others follow."""


def group(add: Callable[..., Any], title: str) -> Callable[..., Any]:
    """What declares an argument in the group of this title; `add` is the `add_argument` of a Parser.

    That of a group which the caller has made is left as it is.
    """
    of = getattr(add.__self__, "group", None)
    return of(title).add_argument if of else add


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, and what was probably meant; passwords of addresses are hidden."""

    otherwise: Callable[[str], str] | None = None
    """Takes a word that is no command; returns the whole command that was probably meant, or ""."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._titled: dict[str, Any] = {}
        super().__init__(*args, **{"formatter_class": HelpFormatter, **options})
        self._positionals.title = "arguments"
        self.color = False  # of Python 3.14; `print_help` has the same colours on all versions

    def group(self, title: str) -> argparse._ArgumentGroup:
        """The group of this title; all that ask for it get the same."""
        for each in GROUPS if not self._titled else ():
            self._titled[each] = self.add_argument_group(each)  # one that stays empty is not shown
        if title not in self._titled:
            self._titled[title] = self.add_argument_group(title)
        self._titled[title].group = self.group
        return self._titled[title]

    def print_help(self, file: IO[str] | None = None) -> None:
        """Colours only on a terminal, and as NO_COLOR and FORCE_COLOR have it."""
        text = Text(self.format_help().rstrip("\n"))
        for pattern, style in _STYLES.items():
            text.highlight_regex(pattern, style)
        Console(file=file or sys.stdout, highlight=False).print(text, soft_wrap=True)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """As argparse has it, but nothing may be left over: only the command's own parser knows what was meant."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            wrong = next((each.partition("=")[0] for each in rest if each.startswith("-")), None)
            what = f"{self.prog} has no option {wrong}" if wrong else f"{self.prog} has no use for {rest[0]!r}"
            options = [option for action in self._actions for option in action.option_strings]
            self.fail(what, meant(wrong, options) if wrong else "")
        return found, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        commands = isinstance(action, argparse._SubParsersAction)
        name = "command" if commands else "/".join(action.option_strings) or action.metavar or action.dest
        instead = self.otherwise(value) if commands and self.otherwise else ""
        expected = "" if commands else f"one of {', '.join(map(str, action.choices))}"
        hint = f"did you mean {instead}?" if instead else meant(str(value), map(str, action.choices))
        what = f"{self.prog} has no command {value!r}" if commands else f"{self.prog}: {name} {value}"
        self.fail(what, hint, expected)

    def error(self, message: str) -> NoReturn:
        """Of something that is missing, with examples of the command as it should be."""
        missing = message.partition("the following arguments are required: ")[2]
        self.fail(f"{self.prog} needs {missing}" if missing else f"{self.prog}: {message}", examples=bool(missing))

    def fail(self, what: str, hint: str = "", expected: str = "", examples: bool = False) -> NoReturn:
        """Ends the program: exit code 2."""
        where = f"{self.prog} --help"
        error = UsageError(what, expected, f"{hint} ({where} lists all)" if hint else f"see {where}")
        shown = [line for line in (self.epilog or "").splitlines() if line.startswith("  mma-")][:3] if examples else []
        more = lay_out("\n".join(["try:", *shown]), HelpFormatter(self.prog).columns) if shown else ""
        self.exit(error.exit_code, f"error: {error}\n{more}")


def meant(word: str, known: Iterable[str]) -> str:
    """ "did you mean --bundle?", or "" where nothing known is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else ""


def lay_out(text: str, width: int) -> str:
    """Paragraphs are filled to the width. Indented lines stay lines: see `_examples`."""
    out: list[str] = []
    for kind, alike in itertools.groupby(text.strip("\n").splitlines(), _kind_of):
        lines = list(alike)
        if kind == "example":
            out += _examples(lines, width)
        else:
            out += lines if kind == "heading" else textwrap.wrap(" ".join(lines), width, **_WHOLE_WORDS)
    return "\n".join(out) + "\n"


def _kind_of(line: str) -> str:
    if line.startswith(" "):
        return "example"
    return "heading" if not line or line.endswith(":") else "paragraph"


def _examples(lines: list[str], width: int) -> list[str]:
    """Commands, each with what follows behind two spaces in a column, or below it where a column has no room.

    A command is never broken here: the terminal does it without changing what is copied.
    """
    rows = []
    for line in lines:
        command, *comment = COMMENT.split(line.lstrip(), maxsplit=1)
        rows.append((" " * (len(line) - len(line.lstrip())), command, comment[0] if comment else ""))
    commented = [row for row in rows if row[2]]
    column = max((len(indent + command) for indent, command, _ in commented), default=0) + 2
    fits = all(column + len(comment) <= width for _, _, comment in commented)
    out = []
    for indent, command, comment in rows:
        inner = indent + "    "
        if comment and fits:
            out.append(f"{indent + command:<{column}}{comment}")
        else:
            out.append(indent + command)
            out += textwrap.wrap(comment, width, initial_indent=inner, subsequent_indent=inner, **_WHOLE_WORDS)
    return out
