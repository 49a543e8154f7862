"""The commands that README, guides and model card show, and what the real parsers say to them."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CARD = ROOT / "trainer" / "mma_trainer" / "assets" / "nano" / "MODEL_CARD.md"
PAGES = [ROOT / "README.md", CARD, *sorted(DOCS.glob("*.md"))]
SCRIPTS = dict(re.findall(r'^(mma-\w+) = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M))
_COMMAND = re.compile(r"(?:.*&& )?(?:\.venv/bin/)?(mma-\w+ .*|torchrun .* mma_trainer .*|mma-\w+)$")


class Parsed(BaseException):
    """The parser took the command; it need not run."""


def code(page: Path) -> Iterator[str]:
    """Lines of shell: indented by four spaces, or in a block of sh or bash; those that a backslash joins as one."""
    in_shell = False
    for line in page.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if line.startswith("```"):
            in_shell = line[3:].strip() in ("sh", "bash", "console")
        elif in_shell or line.startswith("    "):
            yield line.removeprefix("    ") if not in_shell else line


def commands(page: Path) -> Iterator[str]:
    """Every `mma-*` command with arguments: in blocks of code, and between backticks where it has an option."""
    for line in code(page):
        if shown := _COMMAND.match(line):
            yield shown[1]
    for line in page.read_text(encoding="utf-8").splitlines():
        if not line.startswith("    "):
            yield from re.findall(r"`(mma-\w+ [^`]*--?[^`]*)`", line)


def words(command: str) -> list[str]:
    """Program and arguments, without what the shell does with their output, and without ... for more of them."""
    command = re.sub(r"^torchrun .* mma_trainer", "mma-train", command)
    found = shlex.split(command, comments=True)
    end = next((number for number, word in enumerate(found) if word in (">", ">>", "|", "&&", "&")), len(found))
    return found[: end - 1] if found[end - 1] == "..." else found[:end]


def parses(command: str) -> bool:
    """Whether the real parser takes a command; what it names need not exist."""
    name, *arguments = words(command)
    module, function = SCRIPTS[name].split(":")
    parse_args = argparse.ArgumentParser.parse_args

    def parse(self: argparse.ArgumentParser, *args: object) -> None:
        parse_args(self, *args)
        raise Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse)
        try:
            getattr(importlib.import_module(module), function)(arguments)
        except Parsed:
            return True
        except SystemExit as stop:
            return stop.code == 0  # --help
    return not arguments
