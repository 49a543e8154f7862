"""Our code names nothing of TensorRT and cuda-python that the real packages lack; the fakes have nothing they lack.

The real surfaces lie in tensorrt_api/ (tensorrt_surface.py takes them from NVIDIA's bindings): TensorRT 10.3, 10.13,
10.16 and 11.4, cuda-python 12 and 13. What our code names is read from its source.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path

import fake_cudart
import fake_tensorrt
import pytest
from tensorrt_surface import surface

ENGINES = Path(__file__).parents[1] / "mma_edge" / "engines"
SOURCES = sorted((ENGINES / "tensorrt").glob("*.py"))
API = Path(__file__).with_name("tensorrt_api")
VERSIONS = ("10.3", "10.13", "10.16", "11.4")
NEEDED = {
    "Builder.build_serialized_network",
    "Builder.create_network",
    "IBuilderConfig.clear_flag",
    "IBuilderConfig.progress_monitor",
    "IBuilderConfig.set_timing_cache",
    "ICudaEngine.create_execution_context",
    "IExecutionContext.execute_async_v3",
    "IExecutionContext.set_input_shape",
    "IExecutionContext.set_tensor_address",
    "ILogger.Severity.ERROR",
    "IOptimizationProfile.set_shape",
    "ITimingCache.serialize",
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
    "OnnxParser.parse_from_file",
    "ParserError.node_operator",
    "Runtime.deserialize_cuda_engine",
}
"""The reader of our source must have seen at least these, or it has gone blind."""


def load(name: str) -> dict:
    return json.loads((API / f"{name}.json").read_text())


class Reader(ast.NodeVisitor):
    """Problems of one source against one surface; `seen` are the names it could check."""

    def __init__(self, source: str, api: dict) -> None:
        self.classes, self.functions = api["classes"], api["functions"]
        self.types: dict[str, str] = {}
        self.seen: set[str] = set()
        self.problems: list[str] = []
        # Names so much TensorRT's own that one on something of unknown type is a gap in this check.
        self.telling = {name for cls in self.classes.values() for name in cls["members"] if name.count("_") >= 1}
        tree = ast.parse(source)
        self.own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        # Twice: an attribute may be used above the line that gives it its type.
        for _ in range(2):
            self.problems.clear()
            self.visit(tree)

    def type_of(self, node: ast.expr | None) -> str | None:
        """Class of what an expression gives: "IBuilderConfig"; "class ILogger" for the class itself."""
        if isinstance(node, (ast.Name, ast.Attribute)) and (known := self.types.get(ast.unparse(node))):
            return known
        if isinstance(node, ast.Attribute):
            if ast.unparse(node.value) == "trt":
                return f"class {node.attr}"
            owner = self.type_of(node.value)
            if owner and owner.startswith("class ") and f"{owner[6:]}.{node.attr}" in self.classes:
                return f"{owner}.{node.attr}"
        if isinstance(node, ast.Call):
            called = self.type_of(node.func)
            if called and called.startswith("class "):
                return called[6:]
            if isinstance(node.func, ast.Attribute) and (owner := self.type_of(node.func.value)):
                members = self.classes.get(owner, {"members": {}})["members"]
                returns = {one["returns"] for one in members.get(node.func.attr) or []}
                return next(iter(returns & set(self.classes)), None)
        return None

    def annotated(self, target: str, annotation: ast.expr | None) -> None:
        for node in ast.walk(annotation) if annotation else ():
            if isinstance(node, ast.Subscript):
                return  # a container of them, not one
        for node in ast.walk(annotation) if annotation else ():
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "trt":
                self.types[target] = node.attr
                self.check_name(node)

    def visit_arg(self, node: ast.arg) -> None:
        self.annotated(node.arg, node.annotation)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.annotated(ast.unparse(node.target), node.annotation)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        found = self.type_of(node.value)
        for target in node.targets:
            if found:
                self.types[ast.unparse(target)] = found
        self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in map(self.type_of, node.bases):
            if base and base.startswith("class "):
                self.check_overrides(base[6:], node)
        self.generic_visit(node)

    def check_overrides(self, base: str, node: ast.ClassDef) -> None:
        """What TensorRT calls must take what TensorRT gives."""
        for method in node.body:
            signatures = self.classes.get(base, {"members": {}})["members"].get(getattr(method, "name", ""))
            if signatures and method.name != "__init__":
                given = [arg.arg for arg in method.args.args[1:]]
                self.seen.add(f"{base}.{method.name}")
                if all(given != one["args"] for one in signatures):
                    self.problems.append(f"{base}.{method.name} is called with {signatures}, takes {given}")

    def check_name(self, node: ast.Attribute) -> None:
        self.seen.add(node.attr)
        if node.attr not in self.classes and node.attr not in self.functions and node.attr != "__version__":
            self.problems.append(f"line {node.lineno}: trt.{node.attr} does not exist")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        if ast.unparse(node.value) == "trt":
            self.check_name(node)
            return
        owner = self.type_of(node.value)
        if owner is None or owner.removeprefix("class ") not in self.classes:
            if node.attr in self.telling - self.own and not node.attr.startswith("__"):
                self.problems.append(f"line {node.lineno}: {ast.unparse(node)} is of a type that this test cannot tell")
            return
        name = owner.removeprefix("class ")
        entry = self.classes[name]
        # self.own: methods of our own subclasses of their classes.
        known = {*entry["members"], *entry["enum"], *self.own}
        if node.attr not in known and f"{name}.{node.attr}" not in self.classes:
            self.problems.append(f"line {node.lineno}: {name}.{node.attr} does not exist")
        self.seen.add(f"{name}.{node.attr}")

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        if not isinstance(node.func, ast.Attribute) or any(isinstance(arg, ast.Starred) for arg in node.args):
            return
        owner, method = self.type_of(node.func.value), node.func.attr
        if ast.unparse(node.func.value) == "trt":
            owner, method = method, "__init__"
        if owner is None or method not in self.classes.get(owner, {"members": {}})["members"]:
            return
        signatures = self.classes[owner]["members"][method]
        if signatures is None:
            self.problems.append(f"line {node.lineno}: {owner}.{method} is no method")
            return
        keywords = {keyword.arg for keyword in node.keywords}
        count = len(node.args) + len(keywords)
        fits = [
            one for one in signatures if one["required"] <= count <= len(one["args"]) and keywords <= {*one["args"]}
        ]
        if signatures and not fits:
            self.problems.append(f"line {node.lineno}: {owner}.{method} takes {signatures}, gets {count} {keywords}")


def read_all(api: dict) -> tuple[set[str], list[str]]:
    seen, problems = set(), []
    for path in SOURCES:
        reader = Reader(path.read_text(encoding="utf-8"), api)
        seen |= reader.seen
        problems += [f"{path.name}: {problem}" for problem in reader.problems]
    return seen, problems


@pytest.mark.parametrize("version", VERSIONS)
def test_our_code_names_only_what_this_tensorrt_has(version: str) -> None:
    api = load(f"tensorrt-{version}")
    assert api["version"].startswith(version)
    seen, problems = read_all(api)
    assert problems == []
    assert seen >= NEEDED


def test_our_code_names_only_what_the_installed_tensorrt_has() -> None:
    for name in ("tensorrt", "tensorrt_bindings"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        assert read_all(surface(module))[1] == []
        return
    pytest.skip("no bindings of TensorRT are installed")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("config.set_flag(trt.BuilderFlag.FP16)", "BuilderFlag.FP16 does not exist"),
        ("builder.build_engine(network, config)", "Builder.build_engine does not exist"),
        ("builder.create_network()", None),  # the flags may be left out
        ("builder.create_network(1, 2)", "gets 2"),
        ("profile.set_shape('mel', (1,), minimum=(1,), max=(1,))", "minimum"),
        ("network.num_inputs()", "is no method"),
        ("thing.execute_async_v3(0)", "cannot tell"),
        ("trt.IInt8EntropyCalibrator2", "does not exist"),
        ("class A(trt.ILogger):\n    def log(self, message): pass", "ILogger.log is called with"),
    ],
)
def test_the_reader_finds_what_is_wrong(line: str, said: str | None) -> None:
    start = (
        "builder: trt.Builder = make()\nnetwork = builder.create_network(0)\nconfig = builder.create_builder_config()\n"
        "profile = builder.create_optimization_profile()\n"
    )
    problems = Reader(start + line, load("tensorrt-11.4")).problems
    assert (problems == []) if said is None else (len(problems) == 1 and said in problems[0])


@pytest.mark.parametrize("version", VERSIONS)
def test_the_fake_tensorrt_has_nothing_that_the_real_one_lacks(version: str) -> None:
    api = load(f"tensorrt-{version}")["classes"]
    fakes = {name: cls for name, cls in vars(fake_tensorrt).items() if inspect.isclass(cls) and name in api}
    assert {"Builder", "Runtime", "IExecutionContext", "ICudaEngine", "OnnxParser"} <= set(fakes)
    defined = [
        cls for cls in vars(fake_tensorrt).values() if inspect.isclass(cls) and cls.__module__ == "fake_tensorrt"
    ]
    assert {cls.__name__ for cls in defined} <= set(api)
    for name, cls in fakes.items():
        for member in fake_members(cls):
            assert member in {*api[name]["members"], *api[name]["enum"]}, f"{name}.{member}"
            method, signatures = getattr(cls, member, None), api[name]["members"].get(member)
            if inspect.isfunction(method) and signatures:
                args = list(inspect.signature(method).parameters)[1:]
                assert any(args == one["args"][: len(args)] for one in signatures), f"{name}.{member}{args}"


def fake_members(cls: type) -> Iterator[str]:
    """Public names of a fake, those that its methods set on self included."""
    if hasattr(cls, "__members__"):
        yield from cls.__members__
        return
    yield from (name for name in vars(cls) if not name.startswith("_"))
    for node in ast.walk(ast.parse(inspect.getsource(cls))):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and not node.attr.startswith("_"):
            yield node.attr


@pytest.mark.parametrize("version", ["12", "13"])
def test_device_memory_names_only_what_this_cuda_python_has(version: str) -> None:
    api = load(f"cuda-{version}")
    tree = ast.parse((ENGINES / "gpu" / "cuda_python.py").read_text(encoding="utf-8"))
    names = {node.attr for node in ast.walk(tree) if is_cudart(node)}
    assert len(names) > 25 and "cudaGraphLaunch" in names
    assert names <= {*api["functions"], *api["enums"], *api["constants"]}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and is_cudart(node.func):
            assert len(node.args) == api["functions"][node.func.attr], ast.unparse(node)
        if isinstance(node, ast.Attribute) and is_cudart(node.value) and node.value.attr in api["enums"]:
            assert node.attr in api["enums"][node.value.attr]


def is_cudart(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and ast.unparse(node.value) == "cudart"


@pytest.mark.parametrize("version", ["12", "13"])
def test_the_fake_cudart_has_nothing_that_the_real_one_lacks(version: str) -> None:
    api = load(f"cuda-{version}")
    for name, value in vars(fake_cudart).items():
        if not name.startswith("cuda"):
            continue
        if inspect.isclass(value):
            assert set(value.__members__) <= set(api["enums"][name])
        elif callable(value):
            assert len(inspect.signature(value).parameters) == api["functions"][name], name
        else:
            assert name in api["constants"]
