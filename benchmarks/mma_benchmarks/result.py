"""One file format for every benchmark, and the one place that reads and writes it.

A result is one JSON object: a `Result`, whose `results` are a dataclass of `mma_benchmarks.schema`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import types
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from mma_benchmarks.schema import RESULTS, AccuracyCell, Condition, problem_of
from mma_edge import files
from mma_edge.engines.power import Power
from mma_edge.errors import DataError, OutputError

SCHEMA_VERSION = 2
READABLE_VERSIONS = (1, 2)
"""What later versions added has a default, so that files of the earlier ones are read."""
_KINDS = "latency, accuracy, training, streaming, voice, faces, speaking, soak, batch or dashboard"
EXPECTED = f"a result of mma-bench {_KINDS}"
T = TypeVar("T")
Advance = Callable[[str], None]
"""Takes the name of each step of a measurement before it begins."""


@dataclass(frozen=True)
class Machine:
    name: str
    cpu: str
    cores_logical: int
    cores_usable: int
    instruction_sets: list[str]
    memory_gib: float
    os: str
    python: str
    libraries: dict[str, str]
    gpus: list[str]
    load_average: float  # over one minute, before the first run
    power: Power | None = None  # of a Jetson, before the first run


@dataclass(frozen=True)
class Model:
    """What was measured: a bundle; of a training the model, without a manifest; of a grid the first of its subjects."""

    name: str
    manifest_sha256: str
    labels: list[str]
    image_size: int
    precision: str
    backend: str
    engine: str

    def accuracy_cell(self, subject: str, conditions: list[Condition]) -> AccuracyCell:
        """What an accuracy grid says of it."""
        own = (self.manifest_sha256, self.labels, self.backend, self.precision, self.engine)
        return AccuracyCell(subject, *own, conditions)


@dataclass(frozen=True)
class Result:
    """One benchmark run."""

    kind: str  # a key of RESULTS
    created: str  # UTC, "YYYY-MM-DDTHH:MM:SSZ"
    command: str  # as typed
    machine: Machine
    bundle: Model
    results: Any  # of the dataclass of this kind
    schema_version: int = SCHEMA_VERSION


def utc_now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def to_json(result: Result) -> str:
    """The JSON text; every NaN has to be None by now."""
    return files.to_json(asdict(result))


def read_result(path: Path) -> Result:
    """Read and check one result.

    Raises:
        DataError: missing, not JSON, of another schema or kind, or with a value of the wrong type.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_nan)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist", EXPECTED) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error})", EXPECTED) from error
    if not isinstance(data, dict) or "schema_version" not in data:
        raise DataError(f"{path} has no schema_version", EXPECTED)
    version = data["schema_version"]
    if type(version) is not int or version not in READABLE_VERSIONS:
        expected = f"version {' or '.join(map(str, READABLE_VERSIONS))}"
        hint = "make the page with the mma-bench that made the file, or measure again"
        raise DataError(f"{path} has schema version {version!r}", expected, hint)
    try:
        result = from_dict(Result, data)
        if result.kind not in RESULTS:
            raise ValueError(f"kind is {result.kind!r}")
        result = dataclasses.replace(result, results=from_dict(RESULTS[result.kind], result.results, "results"))
        if problem := problem_of(result.results, len(result.bundle.labels)):
            raise ValueError(problem)
    except ValueError as error:
        raise DataError(f"{path}: {error}", EXPECTED, "measure again") from error
    return result


def from_dict(kind: type[T], value: Any, where: str = "") -> T:
    """`value`, as JSON holds it, turned into the type `kind`: a dataclass, list[T], dict[str, T], T | None, one of
    several plain types, or plain.

    An int passes for a float, a bool never for a number. An unknown key is refused like a missing one without a
    default: it may change what the figures mean.

    Raises:
        ValueError: names the first place that does not fit, as a path from `where`.
    """
    if kind is Any:
        return value
    if isinstance(kind, types.UnionType):
        kinds = get_args(kind)
        return None if value is None else from_dict(type(value) if type(value) in kinds else kinds[0], value, where)
    container = dict if dataclasses.is_dataclass(kind) else get_origin(kind)
    if container and not isinstance(value, container):
        raise ValueError(f"{where or 'the object'} is a {type(value).__name__}")
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        optional = {field.name for field in dataclasses.fields(kind) if field.default is not dataclasses.MISSING}
        if different := (set(value) ^ set(hints)) - optional:
            raise ValueError(f"{where or 'the object'} lacks or does not know {sorted(different)}")
        return kind(**{key: from_dict(hints[key], item, f"{where}.{key}".lstrip(".")) for key, item in value.items()})
    if container is list:
        return [from_dict(get_args(kind)[0], item, f"{where}[{index}]") for index, item in enumerate(value)]
    if container is dict:
        return {key: from_dict(get_args(kind)[1], item, f"{where}.{key}") for key, item in value.items()}
    # bool is an int to Python, not to us.
    if isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"{where} is {value!r:.60}")


def _refuse_nan(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def default_folder() -> Path:
    """`benchmarks/results` of a checkout where there is one, else `results`; below the current directory."""
    checkout = Path("benchmarks") / "results"
    return checkout if checkout.is_dir() else Path("results")


def free_paths(folder: Path, result: Result, suffixes: Sequence[str]) -> list[Path]:
    """`folder/<date>_<machine>_<kind>_<bundle><suffix>`, with a counter if files of that name are there already."""
    date = result.created.translate(str.maketrans("", "", "-:"))
    stem = "_".join([date, result.machine.name, result.kind, slug(result.bundle.name)])
    stems = chain([stem], (f"{stem}-{number}" for number in count(2)))
    candidates = ([folder / f"{name}{suffix}" for suffix in suffixes] for name in stems)
    return next(paths for paths in candidates if not any(path.exists() for path in paths))


def make_folder(folder: Path) -> None:
    """Create the folder of the results, before anything is measured for it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError as error:
        what = f"{folder} cannot be made ({error.strerror})"
        raise OutputError(what, "a folder", "choose another --output") from error
    if not writable:
        raise OutputError(f"{folder} may not be written to", "a folder of yours", "choose another --output")


def write_texts(paths: list[Path], texts: Sequence[str]) -> list[Path]:
    """Write each file whole or not at all; returns `paths`."""
    for path, text in zip(paths, texts, strict=True):
        try:
            with files.replaced(path) as aside:
                aside.write_text(text, encoding="utf-8")
        except OSError as error:
            hint = "choose another --output"
            raise OutputError(f"{path} cannot be written ({error.strerror})", "a writable folder", hint) from error
    return paths


def slug(text: str) -> str:
    """Lower-case letters, digits and dots joined by dashes; safe in a file name."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "unknown"
