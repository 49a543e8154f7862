"""Promises of what a new user sees first: mma-edge alone, help at any width, one line about a mistake."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from mma_edge.cli import build_parser, main
from mma_edge.errors import EXIT_CODES, exit_codes
from mma_edge.manual.pages import commands_of
from mma_edge.manual.parser import lay_out

ESCAPE = "\x1b["


def said(capsys: pytest.CaptureFixture, *argv: str) -> tuple[str, str]:
    """What a command that ends in its parser wrote to stdout and stderr."""
    with pytest.raises(SystemExit):
        main([*argv])
    return capsys.readouterr()


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_mma_edge_alone_fits_a_screen(capsys: pytest.CaptureFixture, monkeypatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main([]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert "mma-edge run sample" in "\n".join(lines)
    if columns >= 80:
        assert len(lines) <= 15
    assert all(name in lines[-1] for name in commands_of(build_parser())), "all commands are named"


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("command", [None, *commands_of(build_parser())])
def test_help_fits_the_terminal(capsys, monkeypatch, command: str | None, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    text, _ = said(capsys, *filter(None, [command, "--help"]))
    # A command is left whole, to be copied; a word that is too long stays one.
    long = [line for line in text.splitlines() if len(line) > columns and not line.lstrip().startswith("mma-edge")]
    assert [line for line in long if len(line.split()) > 1] == []
    assert ESCAPE not in text


def test_the_first_line_of_a_long_help_is_short(capsys: pytest.CaptureFixture) -> None:
    text, _ = said(capsys, "run", "--help")
    assert text.splitlines()[0] == "usage: mma-edge run [options] SOURCE [SOURCE ...]"
    for group in ("source:", "model:", "clips:", "output:", "watching a live run:", "examples:"):
        assert f"\n{group}\n" in text
    assert exit_codes(3, 4, 5, 6, 7, 11) in " ".join(text.split())


def test_help_of_a_command_is_the_same_by_two_roads(capsys: pytest.CaptureFixture) -> None:
    direct, _ = said(capsys, "build", "--help")
    assert main(["help", "build"]) == 0 and capsys.readouterr().out == direct
    direct, _ = said(capsys, "--help")
    assert main(["help"]) == 0 and capsys.readouterr().out == direct


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["rnu"], "error: mma-edge has no command 'rnu'; did you mean run? (mma-edge --help lists all)."),
        (["camera"], "error: mma-edge has no command 'camera'; did you mean mma-edge run camera? (mma-edge --help"),
        (["rtsp://me:secret@host/x"], "did you mean mma-edge run rtsp://***@host/x?"),
        (["xyzzy"], "error: mma-edge has no command 'xyzzy'; see mma-edge --help."),
        (["help", "rum"], "error: mma-edge has no command 'rum'; did you mean run?"),
        (["run", "sample", "--bundel", "x"], "error: mma-edge run has no option --bundel; did you mean --bundle?"),
        (["run", "sample", "--bundel=rtsp://a:secret@b"], "error: mma-edge run has no option --bundel; did you mean"),
        (["info", "a", "b"], "error: mma-edge info has no use for 'b'; see mma-edge info --help."),
        (["run", "sample", "--hop", "fast"], "error: mma-edge run: argument --hop: invalid float value: 'fast'; see"),
        (["completion", "tcsh"], "error: mma-edge completion: SHELL tcsh; expected one of bash, zsh, fish"),
    ],
)
def test_a_mistake_is_one_line_with_what_was_meant(capsys: pytest.CaptureFixture, argv: list[str], line: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    out, err = capsys.readouterr()
    assert caught.value.code == 2 and out == "" and err.count("\n") == 1
    assert line in err and "secret" not in err


def test_run_without_a_source_shows_three_to_try(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    _, err = said(capsys, "run")
    first, *more = err.splitlines()
    assert first == "error: mma-edge run needs SOURCE; see mma-edge run --help."
    assert more[0] == "try:" and len(more) == 4 and all(line.startswith("  mma-edge run ") for line in more[1:])
    monkeypatch.setenv("COLUMNS", "40")
    _, err = said(capsys, "run")
    assert all(len(line) <= 40 for line in err.splitlines()[1:] if "--output" not in line)


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_colour_is_for_terminals_or_as_the_environment_says(variables: dict[str, str], coloured: bool) -> None:
    hidden = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "NO_COLOR")}
    code = "import sys; from mma_edge.cli import main; sys.exit(main(sys.argv[1:]))"
    for argv in ([], ["--help"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *argv],
            capture_output=True,
            text=True,
            env={**hidden, **variables, "TERM": "xterm"},
        )
        assert bool(re.search(r"\x1b\[[\d;]*3\d", done.stdout)) == coloured, argv


def test_exit_codes_are_named_once_and_in_order() -> None:
    assert exit_codes(7, 3) == "exit codes: 0 done, 2 usage, 3 file or stream, 7 output, 130 interrupted"
    assert list(EXIT_CODES) == sorted(EXIT_CODES)


def test_explanations_stand_in_one_column_or_below() -> None:
    text = "examples:\n  a b          short\n  a longer --one  and more\n  no comment\n\nWords\nof one paragraph.\n"
    assert lay_out(text, 60).splitlines() == [
        "examples:",
        "  a b             short",
        "  a longer --one  and more",
        "  no comment",
        "",
        "Words of one paragraph.",
    ]
    narrow = lay_out(text, 20).splitlines()
    assert narrow[1:5] == ["  a b", "      short", "  a longer --one", "      and more"]
    # Two spaces before an option are no explanation.
    assert lay_out("  mma-train --a x  --b y\n", 80) == "  mma-train --a x  --b y\n"
