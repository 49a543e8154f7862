"""Promises of the guides: their commands run, every command has one, and each is found from the README."""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from shown import DOCS, PAGES, ROOT, SCRIPTS, commands, words

from mma_edge.cli import build_parser, main
from mma_edge.errors import EXIT_CODES, MMAEdgeError
from mma_edge.manual.pages import actions_of, commands_of, man_page
from mma_edge.sources import sample_path

FILES = ("talk.mp4", "clip.mp4", "FILE", "VIDEO")
"""What pages call a video of yours; here it is the sample."""
SESSIONS = ("talk", "monday")
"""And their sessions."""
WRITTEN = {"--output", "-o", "--stats", "--session", "--sessions", "--sync-film", "--svg", "--png"}
"""Options that name what is written."""
ELSEWHERE = {"--web", "--health", "--mqtt", "--lsl", "--ray", "--realtime", "--sync", "--from"}
"""Options that go on without end or take long, need somebody else, or a longer film."""


def script(name: str) -> ModuleType:
    """A program of docs/, as a module."""
    path = DOCS / name
    spec = importlib.util.spec_from_file_location(path.stem + "_of_docs", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def given(argv: list[str]) -> list[tuple[argparse.Action, list]]:
    """Each argument and option of a command that differs from its default, with its values."""
    parser = build_parser()
    values = vars(parser.parse_args(argv))
    return [
        (action, value if isinstance(value, list) else [value])
        for action in commands_of(parser)[argv[0]]._actions
        if (value := values.get(action.dest)) != action.default and not isinstance(action, argparse._HelpAction)
    ]


def can_run(argv: list[str], folder: Path) -> bool:
    """Whether everything that it reads is here, and is no device, no network and nothing that takes long."""
    if argv[0] in ("serve", "build"):
        return False
    try:
        arguments = given(argv)
    except SystemExit:
        return False  # --help and the like
    for action, values in arguments:
        options = set(action.option_strings)
        if options & ELSEWHERE or {*values} & {"tensorrt", "cuda"}:
            return False
        is_source = not options and action.dest != "name" and not action.choices
        is_read = (is_source or action.type is Path) and not options & WRITTEN
        if is_read and not all(str(value) == "sample" or (folder / value).exists() for value in values):
            return False
    return True


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands of all pages run, one after the other: what one writes, another may read."""
    folder = tmp_path_factory.mktemp("docs")
    for name in FILES:
        shutil.copyfile(sample_path(), folder / name)
    for name in SESSIONS if "--session" in commands_of(build_parser())["run"].format_help() else ():
        assert main(["run", "sample", "--quiet", "--session", str(folder / name)]) == 0
    return folder


@pytest.fixture(scope="module")
def done() -> list[list[str]]:
    """The commands that ran already."""
    return []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_shown_really_run(
    page: Path, place: Path, done: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(place))
    for command in commands(page):
        program, *argv = words(command)
        if program == "mma-edge" and argv and argv not in done and can_run(argv, place):
            done.append(argv)
            make_room(argv)
            assert ran(argv) == 0, command


def make_room(argv: list[str]) -> None:
    """Take away what a command of another page has written under the same name."""
    for action, values in given(argv):
        path = Path(str(values[0]))
        if WRITTEN & set(action.option_strings) and path.exists():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def ran(argv: list[str]) -> int:
    """The exit code. Devices of the machine that runs the tests stay closed."""
    known = commands_of(build_parser())[argv[0]].format_help()
    more = [option for option in ("--no-devices", "--overwrite") if option in known and "--sync-film" not in argv]
    if argv[0] == "serve" and "--web" not in argv:
        more += ["--web", "0"]  # the usual port may be in use on the machine that runs the tests
    return main([*argv, *more])


def test_what_can_run_is_told_from_what_cannot(tmp_path: Path) -> None:
    (tmp_path / "talk.mp4").touch()
    for line in ("run sample", "run talk.mp4 --output out.jsonl", "info", "help run", "doctor --sync-film f.mp4"):
        assert can_run(line.split(), tmp_path), line
    for line in (
        "run camera",
        "run other.mp4",
        "run sample --bundle bundles/mine",
        "run sample --backend cuda",
        "run left=camera:0 right=camera:1",
        "run rtsp://host/stream",
        "build",
        "doctor --sync camera",
        "run talk.mp4 --realtime",
        "run sample --health 8080",
    ):
        assert not can_run(line.split(), tmp_path), line


def test_the_page_of_commands_is_that_of_the_parsers() -> None:
    made = script("make_commands.py")
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "run: python docs/make_commands.py"
    assert {name.split()[0] for name in made.parsers()} == set(SCRIPTS)


def test_every_command_has_a_guide() -> None:
    guides = [page.read_text(encoding="utf-8") for page in PAGES if page.name not in ("README.md", "commands.md")]
    known = commands_of(build_parser())
    assert len(known) > 5
    assert [name for name in known if not any(f"mma-edge {name}" in text for text in guides)] == []


def test_every_page_is_found_from_the_readme() -> None:
    found, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        found.add(page)
        if not page.exists():  # test_readme.py says which link leads nowhere
            continue
        links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        waiting += [
            target
            for link in links
            if "://" not in link and (target := (page.parent / link).resolve()).suffix == ".md" and target not in found
        ]
    assert sorted(page.name for page in set(DOCS.rglob("*.md")) - found) == []


def test_every_argument_says_what_it_is() -> None:
    parsers = script("make_commands.py").parsers()
    silent = [(name, each.dest) for name, parser in parsers.items() for each in actions_of(parser) if each.help is None]
    assert [each for each in silent if each[1] not in ("==SUPPRESS==", "subcommand")] == []


def test_every_error_has_an_exit_code_of_the_table() -> None:
    def below(kind: type) -> Iterator[type]:
        yield kind
        for each in kind.__subclasses__():
            yield from below(each)

    kinds = [kind for kind in below(MMAEdgeError) if kind.__module__.startswith("mma_")]
    assert len(kinds) > 8
    assert {kind.exit_code for kind in kinds} <= set(EXIT_CODES)


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
@pytest.mark.parametrize("command", [None, *commands_of(build_parser())])
def test_man_pages_are_clean_troff_and_hold_every_option(command: str | None) -> None:
    root = build_parser()
    chosen = root if command is None else commands_of(root)[command]
    page = man_page(chosen, root)
    done = subprocess.run(["groff", "-man", "-ww", "-Tascii", "-P-c"], input=page, capture_output=True, text=True)
    assert done.returncode == 0 and not [line for line in done.stderr.splitlines() if "an-old" not in line]
    shown = re.sub(r".\x08", "", done.stdout)  # bold, as typewriters write it
    options = [option for each in chosen._actions for option in each.option_strings if option.startswith("--")]
    assert [option for option in options if option not in shown and option not in ("--help", "--version")] == []
    assert "EXIT STATUS" in shown


def test_the_readme_shows_every_picture_that_can_be_made_and_each_is_small() -> None:
    pictures = script("pictures/make.py")
    shown = re.findall(r"!\[[^\]]{20,}\]\(docs/pictures/([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(pictures.wanted()), "run docs/pictures/make.py, look, and show them in the README"
    for name in shown:
        file = DOCS / "pictures" / name
        assert 0 < file.stat().st_size < pictures.LARGEST, name
        if file.suffix == ".svg":
            text = file.read_text(encoding="utf-8")
            assert not re.search(r"url\((?!#)|https?://(?!www\.w3\.org)", text.split("-->")[-1]), (
                f"{name} loads something"
            )


def test_a_picture_of_a_terminal_shows_what_is_left_on_it() -> None:
    screen = script("pictures/make.py").screen
    assert screen("one\ntwo\r\x1b[2K\x1b[1A\x1b[2Kthree\nfour\n\n") == ["three", "four"]
