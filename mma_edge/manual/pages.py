"""Reference pages of a parser: Markdown for docs/commands.md, troff for man."""

from __future__ import annotations

import argparse
import itertools
import textwrap
from collections.abc import Iterator, Mapping

from mma_edge import __version__
from mma_edge.errors import EXIT_CODES
from mma_edge.manual.parser import COMMENT, HelpFormatter

_WIDTH = 110
"""Columns of usage lines and examples in pages."""


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Name -> parser of each command, in the order of --help; {} where there are none."""
    return {name: command for each in _branches(parser) for name, command in each.choices.items()}


def actions_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every argument and option, those of its commands too."""
    yield from parser._actions
    for command in commands_of(parser).values():
        yield from actions_of(command)


def brief_of(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Name -> the one line about it, of each command."""
    return {choice.dest: choice.help or "" for each in _branches(parser) for choice in each._choices_actions}


def _branches(parser: argparse.ArgumentParser) -> list[argparse._SubParsersAction]:
    return [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]


def _groups(parser: argparse.ArgumentParser) -> Iterator[tuple[str, list[argparse.Action]]]:
    """Title and arguments of each group that has some, without the commands and --help."""
    skipped = (argparse._SubParsersAction, argparse._HelpAction, argparse._VersionAction)
    for group in parser._action_groups:
        actions = [each for each in group._group_actions if not isinstance(each, skipped)]
        if actions := [each for each in actions if each.help != argparse.SUPPRESS]:
            yield group.title or "", actions


def _formatter(parser: argparse.ArgumentParser) -> HelpFormatter:
    return HelpFormatter(parser.prog, width=_WIDTH)


def _usage(parser: argparse.ArgumentParser) -> str:
    formatter = _formatter(parser)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups, "")
    return formatter.format_help().strip()


def _term(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    """ "--size WxH"; written here, because the versions of Python differ."""
    formatter = _formatter(parser)
    value = formatter._format_args(action, action.dest.upper()) if action.nargs != 0 else ""
    return " ".join(filter(None, (", ".join(action.option_strings), value)))


def _meaning(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    return _formatter(parser)._expand_help(action) if action.help else ""


def markdown(parsers: Mapping[str, argparse.ArgumentParser]) -> str:
    """The page of all commands: what each does, its arguments with defaults, its examples."""
    parts = []
    for name, parser in parsers.items():
        parts += [f"## {name}", *_section(parser, 3)]
    return "\n\n".join(part for part in parts if part)


def _section(parser: argparse.ArgumentParser, level: int) -> Iterator[str]:
    yield _paragraph(parser.description or "")
    yield f"    usage: {_usage(parser)}".replace("\n", "\n    ")
    for title, actions in _groups(parser):
        rows = [f"| {_code(_term(each, parser))} | {_cell(_meaning(each, parser))} |" for each in actions]
        yield "\n".join([f"| {title} | |", "|---|---|", *rows])
    yield from _blocks(parser.epilog or "")
    for name, command in commands_of(parser).items():
        yield f"{'#' * level} {parser.prog} {name}"
        if not command.description:
            yield brief_of(parser).get(name, "").capitalize() + "."
        yield from _section(command, level + 1)


def _blocks(epilog: str) -> Iterator[str]:
    """Paragraphs as they are, commands as code, with a # before what is said about one."""
    for indented, group in itertools.groupby(epilog.splitlines(), lambda line: line.startswith(" ")):
        lines = list(group)
        if not indented:
            for text in "\n".join(lines).split("\n\n"):
                yield _paragraph(text)
            continue
        for is_title, part in itertools.groupby(lines, lambda line: line.endswith(":") and line[2] != " "):
            rows = [COMMENT.sub("  # ", line) for line in part]
            text = textwrap.dedent("\n".join(rows))
            yield text if is_title else textwrap.indent(text, "    ")


def _paragraph(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), _WIDTH + 8, break_long_words=False, break_on_hyphens=False)


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def exit_table() -> str:
    """The exit codes of every command, in Markdown."""
    return "\n".join(["| exit code | |", "|---|---|", *(f"| {code} | {text} |" for code, text in EXIT_CODES.items())])


def man_page(parser: argparse.ArgumentParser, root: argparse.ArgumentParser) -> str:
    """A page of section 1, in troff's man macros."""
    name = parser.prog.replace(" ", "-")
    brief = brief_of(root).get(parser.prog.partition(" ")[2]) or (parser.description or "").partition(": ")[2]
    lines = [f'.TH {_troff(name.upper())} 1 "" "mma-edge {__version__}"', ".SH NAME"]
    lines += [f"{_troff(name)} \\- {_troff(brief.splitlines()[0] if brief else '')}", ".SH SYNOPSIS"]
    lines += [f".B {_troff(_usage(parser))}", ".SH DESCRIPTION", *map(_troff, (parser.description or "").splitlines())]
    for command, text in brief_of(parser).items():
        lines += [".TP", f".B {_troff(command)}", _troff(text)]
    for title, actions in _groups(parser):
        lines.append(f".SH {_troff(title.upper())}")
        for each in actions:
            lines += [".TP", f".B {_troff(_term(each, parser))}", _troff(_meaning(each, parser))]
    if parser.epilog:
        lines += [".SH EXAMPLES AND NOTES", ".nf", *map(_troff, parser.epilog.strip().splitlines()), ".fi"]
    lines += [".SH EXIT STATUS"]
    for code, text in EXIT_CODES.items():
        lines += [".TP", f".B {code}", _troff(text)]
    others = [f"{root.prog}-{other}" for other in commands_of(root)] if parser is root else [root.prog]
    lines += [".SH SEE ALSO", ", ".join(f"{_troff(other)}(1)" for other in others)]
    return "\n".join(lines) + "\n"


def _troff(text: str) -> str:
    """One line in which no sign is a command of troff."""
    text = " ".join(text.split()) if not text.startswith(" ") else text
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return f"\\&{text}" if text.startswith((".", "'", "\\(aq", " ")) else text
