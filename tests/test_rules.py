"""The house's rules: no torch in the runtime, imports in one direction and in no circle, files and rooms of a size that
can be taken in."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each may import those after it, never those before.
PACKAGES = {
    "mma_benchmarks": ROOT / "benchmarks" / "mma_benchmarks",
    "mma_export": ROOT / "export" / "mma_export",
    "mma_trainer": ROOT / "trainer" / "mma_trainer",
    "mma_edge": ROOT / "mma_edge",
}
NOT_AT_RUN_TIME = ("torch", "torchvision", "torchaudio", "onnx", "onnxscript", "soundfile", "matplotlib")
MAX_LINES = 400
MAX_MODULES = 12


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of every import of a file, those inside functions and TYPE_CHECKING blocks included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            yield node.lineno, node.module
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("import_module", "__import__"):
                yield node.lineno, node.args[0].value


def module_name(package: str, path: Path) -> str:
    parts = path.relative_to(PACKAGES[package]).with_suffix("").parts
    return ".".join((package, *(part for part in parts if part != "__init__")))


def import_graph(modules: dict[str, Path]) -> dict[str, set[str]]:
    """Module -> those of `modules` that it imports anywhere in its text, as `imported` finds them."""
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = {name for _, name in imported(path)}
        # `from package import module` names the module last.
        names |= {
            f"{node.module}.{alias.name}"
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        graph[module] = (names & set(modules)) - {module}
    return graph


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Groups of modules that reach each other."""

    def reached(start: str) -> set[str]:
        seen, waiting = set(), [start]
        while waiting:
            fresh = graph[waiting.pop()] - seen
            seen |= fresh
            waiting += fresh
        return seen

    reach = {module: reached(module) for module in graph}
    groups = [frozenset(other for other in reach[m] if m in reach[other]) for m in graph if m in reach[m]]
    return [set(group) for group in dict.fromkeys(groups)]


def offences(package: str, forbidden: tuple[str, ...]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sorted(PACKAGES[package].rglob("*.py"))
        for line, name in imported(path)
        if name.split(".")[0] in forbidden
    ]


def test_the_runtime_names_neither_torch_nor_what_builds_models() -> None:
    assert len(list(PACKAGES["mma_edge"].rglob("*.py"))) > 10  # the walk sees the package
    assert offences("mma_edge", NOT_AT_RUN_TIME) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    modules = {module_name(package, path): path for path in PACKAGES[package].rglob("*.py")}
    assert circles(import_graph(modules)) == []


def test_a_circle_is_found_however_it_is_written(tmp_path: Path) -> None:
    texts = {
        "a": "if TYPE_CHECKING:\n    from p.b import B",
        "b": "def f():\n    from p import c",
        "c": "import p.a",
        "d": "import p.a",
    }
    modules = {}
    for name, text in texts.items():
        modules[f"p.{name}"] = tmp_path / f"{name}.py"
        modules[f"p.{name}"].write_text(text + "\n")
    assert circles(import_graph(modules)) == [{"p.a", "p.b", "p.c"}]


@pytest.mark.parametrize("room", ["report", "evaluation"])
def test_reports_and_evaluation_import_no_torch(room: str) -> None:
    assert list((PACKAGES["mma_trainer"] / room).glob("*.py"))
    assert [line for line in offences("mma_trainer", ("torch",)) if f"mma_trainer/{room}/" in line] == []
    names = [module_name("mma_trainer", path) for path in sorted((PACKAGES["mma_trainer"] / room).rglob("*.py"))]
    assert run(f"import {', '.join(names)}\nprint('torch' in sys.modules)") == "False"


def test_no_room_has_too_many_modules() -> None:
    for package, root in PACKAGES.items():
        for folder in {path.parent for path in root.rglob("*.py")}:
            assert len(list(folder.glob("*.py"))) <= MAX_MODULES, f"{package}: {folder}"


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    order = list(PACKAGES)
    assert offences(package, tuple(order[: order.index(package)])) == []


def test_the_walk_finds_every_way_to_import(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text(
        "import torch.nn as nn\nif x:\n    from torch import Tensor\n"
        "def f():\n    import os, torch\n    importlib.import_module('torch.fx')\n    __import__('torch')\n"
    )
    assert [line for line, name in imported(file) if name.startswith("torch")] == [1, 3, 5, 6, 7]


def run(program: str, *argv: object) -> str:
    # The same places to import from as this process, but nothing imported yet.
    setup = f"import sys; sys.path[:] = {sys.path!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", setup + program, *map(str, argv)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_predicting_leaves_torch_unloaded(tiny_bundle: Path) -> None:
    program = """
import numpy as np
import mma_edge, mma_edge.pipeline, mma_edge.sources, mma_edge.faces.detect, mma_edge.faces.track, mma_edge.cli
from mma_edge.audio import log_mel
recognizer = mma_edge.load(sys.argv[1])
mel = log_mel(np.zeros(16000, np.float32), 16000)
answer = recognizer.predict(np.zeros((1, 16, 16, 16, 3), np.uint8), mel[None])
assert answer.shape == (1, 3)
print(sorted({name.split(".")[0] for name in sys.modules} & set(sys.argv[2:])))
"""
    assert run(program, tiny_bundle, *NOT_AT_RUN_TIME, "mma_trainer", "mma_export", "mma_benchmarks") == "[]"


def test_import_mma_edge_waits_for_no_heavy_library() -> None:
    program = "import mma_edge\nprint(sorted({'onnxruntime', 'cv2', 'av', 'torch'} & set(sys.modules)))"
    assert run(program) == "[]"


def test_no_file_is_too_long_to_be_read_in_one_sitting() -> None:
    folders = (*PACKAGES.values(), ROOT / "tests")
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for folder in folders
        for path in folder.rglob("*.py")
    }
    assert len(lengths) > 50
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}
