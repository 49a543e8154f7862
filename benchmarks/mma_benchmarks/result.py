"""One file format for every benchmark, and the one place that reads and writes it.

A result is one JSON object (schema version 1):

    schema_version   1
    kind             "latency", "accuracy", "training", "grid", "accuracy-grid" or "streaming"
    created          UTC, "YYYY-MM-DDTHH:MM:SSZ"
    command          the command line as typed
    machine          name, cpu, cores_logical, cores_usable, instruction_sets, memory_gib, os, python,
                     libraries {name: version}, gpus, load_average (1 minute, before the first run)
    bundle           name, manifest_sha256, labels, image_size, precision, backend, engine
                     (of a training: the model, without a manifest; of a grid: the first of its subjects)
    results          of the kind: see `mma_benchmarks.schema`

Durations end in `_ms` or `_s`, a "summary" is what `stats.summarise` returns, null stands for a
figure that does not exist (the recall of a class without clips). Unknown keys are refused, as
they may change what the figures mean.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from itertools import count
from pathlib import Path

from mma_benchmarks.machine.facts import slug
from mma_benchmarks.schema import RESULTS, SCHEMA, SCHEMA_VERSION, Maybe
from mma_edge.errors import DataError, OutputError

_EXPECTED = "a result of mma-bench latency, accuracy, training or streaming"


@dataclass(frozen=True)
class Result:
    """One benchmark run; the attributes are the keys of the JSON object."""

    kind: str
    created: str
    command: str
    machine: dict
    bundle: dict
    results: dict
    schema_version: int = SCHEMA_VERSION


def utc_now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def to_json(result: Result) -> str:
    """The JSON text; every NaN has to be None by now."""
    return json.dumps(asdict(result), indent=1, allow_nan=False) + "\n"


def read_result(path: Path) -> Result:
    """Read and check one result.

    Raises:
        DataError: missing, no JSON, of another schema or kind, or with a value of the wrong type.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_nan)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist", _EXPECTED) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error})", _EXPECTED) from error
    if not isinstance(data, dict) or "schema_version" not in data:
        raise DataError(f"{path} has no schema_version", _EXPECTED)
    if type(data["schema_version"]) is not int or data["schema_version"] != SCHEMA_VERSION:
        raise DataError(
            f"{path} has schema version {data['schema_version']!r}",
            f"version {SCHEMA_VERSION}",
            "make the page with the mma-bench that made the file, or measure again",
        )
    problem = _mismatch(data, SCHEMA, "")
    if problem is None and data["kind"] not in RESULTS:
        problem = f"kind is {data['kind']!r}"
    problem = problem or _mismatch(data["results"], RESULTS[data["kind"]], "results") or _inconsistency(data)
    if problem:
        raise DataError(f"{path}: {problem}", _EXPECTED, "measure again")
    return Result(**{field.name: data[field.name] for field in fields(Result)})


def _mismatch(value: object, schema: object, where: str) -> str | None:
    """The first place where `value` is not what `schema` says, in words; None if it fits."""
    if isinstance(schema, Maybe):
        return None if value is None else _mismatch(value, schema.schema, where)
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return f"{where} is a {type(value).__name__}"
        if set(schema) == {"*"}:
            schema = dict.fromkeys(value, schema["*"])
        if set(value) != set(schema):
            return f"{where or 'the object'} lacks or does not know {sorted(set(value) ^ set(schema))}"
        parts = [(value[key], schema[key], f"{where}.{key}".lstrip(".")) for key in schema]
    elif isinstance(schema, list):
        if not isinstance(value, list):
            return f"{where} is a {type(value).__name__}"
        parts = [(item, schema[0], f"{where}[{index}]") for index, item in enumerate(value)]
    else:
        # bool is an int to Python, not to us.
        fits = isinstance(value, schema) and (schema is bool or not isinstance(value, bool))
        return None if fits else f"{where} is {value!r:.60}"
    return next((problem for part in parts if (problem := _mismatch(*part))), None)


def _inconsistency(data: dict) -> str | None:
    """Values of the right type that no page could be made of, in words."""
    results = data["results"]
    if data["kind"] == "latency":
        if not results["runs"] or not results["stages"] or not results["source"]["media_s"] > 0:
            return "results has no runs, no stages or no seconds of media"
        return None
    if data["kind"] == "training":
        return None if results["runs"] else "results.runs is empty"
    if data["kind"] == "streaming":
        return None if results["ways"] else "results.ways is empty"
    if data["kind"] == "grid":
        subjects = {subject["name"] for subject in results["subjects"]}
        unknown = [row["subject"] for row in (*results["cells"], *results["refused"]) if row["subject"] not in subjects]
        return f"results.subjects lacks {unknown[0]!r}" if unknown else _no_rows(results)
    if data["kind"] == "accuracy-grid":
        problems = [
            _conditions_mismatch(cell["conditions"], len(cell["labels"]), f"results.cells[{index}].conditions")
            for index, cell in enumerate(results["cells"])
        ]
        return next(filter(None, problems), None) or _no_rows(results)
    return _conditions_mismatch(results["conditions"], len(data["bundle"]["labels"]), "results.conditions")


def _no_rows(results: dict) -> str | None:
    return None if results["cells"] or results["refused"] else "results has neither cells nor refused"


def _conditions_mismatch(conditions: list[dict], num_classes: int, where: str) -> str | None:
    for index, entry in enumerate(conditions):
        rows = [entry["recall"], entry["confusion"], *entry["confusion"]]
        if any(len(row) != num_classes for row in rows):
            return f"{where}[{index}] is not about {num_classes} classes"
    return None if conditions else f"{where} is empty"


def _no_nan(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def default_folder() -> Path:
    """`benchmarks/results` of a checkout where there is one, else `results`; below the current directory."""
    checkout = Path("benchmarks") / "results"
    return checkout if checkout.is_dir() else Path("results")


def free_stem(folder: Path, result: Result, suffixes: tuple[str, ...]) -> Path:
    """`folder/<date>_<machine>_<kind>_<bundle>`, with a counter if files of that name are there already."""
    date = result.created.translate(str.maketrans("", "", "-:"))
    stem = "_".join([date, result.machine["name"], result.kind, slug(result.bundle["name"])])
    for number in count(1):
        path = folder / (stem if number == 1 else f"{stem}-{number}")
        if not any(Path(f"{path}{suffix}").exists() for suffix in suffixes):
            return path
    raise AssertionError("count() has no end")


def make_folder(folder: Path) -> None:
    """Create the folder of the results, before anything is measured for it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be made ({error.strerror})", "a folder", "choose another --output"
        ) from error
    if not writable:
        raise OutputError(f"{folder} may not be written to", "a folder of yours", "choose another --output")


def write_atomically(path: Path, text: str) -> None:
    """Write a whole file or nothing: readers never see half of it, and a full disk spares the old one."""
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files for one's own eyes
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        hint = "choose another --output"
        raise OutputError(f"{path} cannot be written ({error.strerror})", "a writable folder", hint) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
