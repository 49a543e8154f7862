"""Promises of completion: real shells read the scripts of all five programs, and offer what may follow."""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
from collections.abc import Callable, Iterator

import pytest
from shells import NAMES, completed

from mma_benchmarks.cli import build_parser as bench_parser
from mma_benchmarks.cli import main as bench
from mma_edge.cli import build_parser, main
from mma_edge.manual.completion import SHELLS
from mma_edge.manual.pages import commands_of
from mma_export.cli import main as export
from mma_trainer.__main__ import evaluate, train
from mma_trainer.commands import COMMANDS

PROGRAMS: dict[str, tuple[Callable, tuple[str, ...]]] = {
    "mma-edge": (main, ("completion",)),
    "mma-train": (train, ("--completion",)),
    "mma-eval": (evaluate, ("--completion",)),
    "mma-export": (export, ("--completion",)),
    "mma-bench": (bench, ("--completion",)),
}
"""Program -> its entry point, and what comes before the shell's name."""
BACKENDS = {"auto", "tensorrt", "cuda", "openvino", "cpu"}
LINES: dict[str, set[str]] = {
    "mma-edge ": set(commands_of(build_parser())),
    "mma-edge ru": {"run"},
    "mma-edge run --ba": {"--backend"},
    "mma-edge run --backend ": BACKENDS,
    "mma-edge run sample --streaming ": {"exact", "rolling", "auto"},
    "mma-edge run sample --voice-gate ": {"off"},
    "mma-edge run sample --web 8765 --backe": {"--backend"},
    "mma-edge build --precision i": {"int8"},
    "mma-edge run ca": {"camera", "cafe.mp4"},
    "mma-edge run camera tal": {"talk.mp4"},
    "mma-edge run sample --bundle b": {"bundles"},
    "mma-edge run sample --output ta": {"talk.mp4"},
    "mma-edge doctor --sync m": {"microphone"},
    "mma-edge convert talk.jsonl --to ": {"elan", "textgrid", "boris", "vtt", "srt", "csv", "parquet"},
    "mma-edge help ": set(commands_of(build_parser())),
    "mma-edge completion ": set(SHELLS),
    "mma-train --dataset p": {"prepared", "pseudo"},
    "mma-train ab": {"ablate"},
    "mma-train tune bund": {"bundles"},
    "mma-train tune bundles --overw": {"--overwrite"},
    "mma-train ablate --table mod": {"modality"},
    "mma-eval --robust": {"--robustness"},
    "mma-eval --set faces-": {"faces-agreed", "faces-fer2013"},
    "mma-export --checkpoint ta": {"talk.mp4"},
    "mma-export --precision b": {"bf16"},
    "mma-bench ": set(commands_of(bench_parser())),
    "mma-bench latency --backend ": BACKENDS,
    "mma-bench soak --ev": {"--every"},
}

WITHOUT_WORDS = ("mma-edge run sample --web ", "mma-edge run sample --mqtt ")
"""Signs that a shell must not take for its own; what is offered there, files or nothing, is the shell's choice."""


@pytest.fixture(scope="module", params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    pytest.importorskip("shtab", reason="shtab is not installed")
    if not shutil.which(request.param):
        pytest.skip(f"{request.param} is not installed")
    return request.param


@pytest.fixture(scope="module")
def offered(shell: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, set[str]]]:
    folder = tmp_path_factory.mktemp("here")
    (folder / "bundles" / "mine").mkdir(parents=True)
    for name in ("talk.mp4", "cafe.mp4", "b.txt"):
        (folder / name).touch()
    scripts = tmp_path_factory.mktemp(shell) / "scripts"
    scripts.mkdir()
    for program in PROGRAMS:
        (scripts / NAMES[shell].format(program)).write_text(script(program, shell))
    return completed(shell, scripts, folder, [*LINES, *WITHOUT_WORDS])


def script(program: str, shell: str) -> str:
    """What the program prints."""
    entry, before = PROGRAMS[program]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            code = entry([*before, shell])
        except SystemExit as error:
            code = error.code
    assert not code
    return out.getvalue()


@pytest.mark.parametrize("line", LINES)
def test_the_shell_offers_what_may_follow(offered: dict[str, set[str]], line: str) -> None:
    assert offered[line] == LINES[line]


@pytest.mark.parametrize("shell_name", SHELLS)
def test_every_option_is_in_the_script_of_each_shell(shell_name: str) -> None:
    pytest.importorskip("shtab", reason="shtab is not installed")
    text = script("mma-edge", shell_name)
    for name, parser in commands_of(build_parser()).items():
        options = [option for each in parser._actions for option in each.option_strings if option.startswith("--")]
        assert [each for each in options if (each[2:] if shell_name == "fish" else each) not in text] == [], name
    text = script("mma-train", shell_name)
    assert [name for name in COMMANDS if name not in text] == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_without_shtab_completion_says_what_to_install(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    entry, before = PROGRAMS[program]
    try:
        code = entry([*before, "bash"])
    except SystemExit as error:
        code = error.code
    out, err = capsys.readouterr()
    assert code == 11 and out == "" and 'pip install "mma-edge[completion]"' in err
