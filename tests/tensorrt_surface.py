"""For maintainers: writes the names and signatures of TensorRT's and cuda-python's bindings as small JSON files.

    pip download --no-deps --only-binary=:all: -d DIR tensorrt-cu12-bindings==10.3.0    # then unzip it into a folder
    python tests/tensorrt_surface.py FOLDER tests/tensorrt_api/tensorrt-10.3.json       # has tensorrt_bindings/
    python tests/tensorrt_surface.py --cuda tests/tensorrt_api/cuda-13.json             # of the cuda-bindings installed

NVIDIA's bindings can be imported without TensorRT and without a GPU when three empty libraries stand in for it
(gcc makes them). Nothing may be instantiated then. `tests/test_tensorrt_contract.py` holds our code to these files.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

STUBBED = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
# Kinds of layers of hand-made networks and plugins: nothing here builds either, and they are two thirds of the names.
LEFT_OUT = re.compile(r"..Layer$|Plugin|Algorithm|^I.*Attention|^IMoE|Calibrator|^ISym|Conditional|^ILoop|^IIf")
SIGNATURE = re.compile(r"^(?:\d+\. )?(\w+)\((.*)\) -> (.+)$")


def surface(module: ModuleType) -> dict:
    """Classes, their members and signatures: {"version", "classes": {name: ...}, "functions": [...]}.

    A class is {"members": {name: None or [{"args", "required", "returns"}, ...]}, "enum": [...]}; None is no method.
    """
    classes, functions = {}, []
    for name, value in vars(module).items():
        if name.startswith("_") or LEFT_OUT.search(name):
            continue
        if inspect.isclass(value):
            classes[name] = {"members": _members(value), "enum": list(getattr(value, "__members__", {}))}
            for inner, nested in vars(value).items():
                if inspect.isclass(nested) and hasattr(nested, "__members__"):
                    classes[f"{name}.{inner}"] = {"members": {}, "enum": list(nested.__members__)}
        elif callable(value):
            functions.append(name)
    return {"version": module.__version__, "classes": classes, "functions": sorted(functions)}


def cuda_surface(module: ModuleType, version: str) -> dict:
    """{"version", "functions": {name: number of arguments}, "enums": {name: members}, "constants": [...]}."""
    functions, enums, constants = {}, {}, []
    for name, value in vars(module).items():
        if not name.startswith("cuda"):
            continue
        if inspect.isclass(value) and hasattr(value, "__members__"):  # 13.5 has an enum of its own kind
            if name in ("cudaError_t", "cudaMemcpyKind", "cudaStreamCaptureMode"):
                enums[name] = list(value.__members__)
        elif isinstance(value, int):
            constants.append(name)
        elif callable(value) and not inspect.isclass(value):
            first = (value.__doc__ or "").splitlines()[0]
            if match := re.match(rf"{name}\((.*)\)", first):
                functions[name] = len([part for part in match[1].split(",") if part.strip()])
    return {"version": version, "functions": functions, "enums": enums, "constants": sorted(constants)}


def _members(cls: type) -> dict[str, list[dict] | None]:
    members = {}
    for name in dir(cls):
        if name.startswith("_") and name != "__init__":
            continue
        value = getattr(cls, name)
        members[name] = _signatures(value.__doc__ or "", name) if callable(value) else None
    return members


def _signatures(doc: str, name: str) -> list[dict]:
    """The overloads that pybind11 wrote into the docstring."""
    found = []
    for line in doc.splitlines():
        match = SIGNATURE.match(line.strip())
        if match and match[1] == name and not match[2].startswith("*"):
            args = [part for part in _split(match[2]) if not part.startswith("self")]
            short = match[3].rpartition(".")[2].strip("'\"<> ")
            names = [re.split(r"[:=]", part)[0].strip() for part in args]
            required = sum(" = " not in part for part in args)
            found.append({"args": names, "required": required, "returns": short})
    return found


def _split(text: str) -> list[str]:
    """Arguments separated by commas outside brackets."""
    parts, depth, current = [], 0, ""
    for letter in text:
        depth += (letter in "[(<") - (letter in "])>")
        if letter == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += letter
    return [part for part in [*parts, current.strip()] if part]


def import_bindings(folder: Path) -> ModuleType:
    """`tensorrt_bindings` of an unpacked wheel, on stand-ins for the libraries that it links."""
    with (folder / "tensorrt_bindings" / "__init__.py").open() as file:
        major = next(line for line in file if line.startswith("__version__")).split('"')[1].split(".")[0]
    libs = Path(tempfile.mkdtemp()) / "tensorrt_libs"
    libs.mkdir()
    source = libs / "stub.c"
    source.write_text("\n".join(f"void *{name}(void) {{ return 0; }}" for name in STUBBED))
    loads = ["import ctypes"]
    for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        soname = f"lib{library}.so.{major}"
        subprocess.run(
            ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", str(libs / soname), str(source)], check=True
        )
        loads.append(f"ctypes.CDLL({str(libs / soname)!r}, ctypes.RTLD_GLOBAL)")
    (libs / "__init__.py").write_text("\n".join(loads))
    sys.path[:0] = [str(libs.parent), str(folder)]
    return importlib.import_module("tensorrt_bindings")


def main(argv: list[str]) -> int:
    if len(argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    if argv[0] == "--cuda":
        from importlib.metadata import version

        found = cuda_surface(importlib.import_module("cuda.bindings.runtime"), version("cuda-bindings"))
    else:
        found = surface(import_bindings(Path(argv[0])))
    # One class a line: compact, and a new version's changes can be read in a diff.
    lines = [f" {json.dumps(key)}: {_block(value)}" for key, value in found.items()]
    Path(argv[1]).write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return 0


def _block(value: object) -> str:
    if not isinstance(value, dict):
        return json.dumps(value)
    return "{\n" + ",\n".join(f"  {json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()) + "\n }"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
