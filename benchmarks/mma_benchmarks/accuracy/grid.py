"""Accuracy over a grid of bundles, backends and precisions: each cell in a process of its own, one after the other."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

from mma_benchmarks.accuracy.measure import AccuracyOptions, measure_accuracy
from mma_benchmarks.grid.subjects import Subject, subject_of_bundle
from mma_benchmarks.machine.facts import describe_machine
from mma_benchmarks.result import Result, to_json, utc_now
from mma_edge.errors import MMAEdgeError, UsageError
from mma_edge.precisions import BACKEND_CHOICES, PRECISIONS


def measure_accuracy_grid(
    bundles: Sequence[Path | None],
    backends: Sequence[str],
    precisions: Sequence[str],
    options: AccuracyOptions,
    command: str,
    advance: Callable[[str], None] = lambda step: None,
) -> Result:
    """Run the benchmark.

    Args:
        bundles: folders, None for the default model. precisions: (): all that a bundle has.
        options: of every cell; its backend and precision are replaced by the cell's.
        advance: called before each cell with its name.

    Raises:
        UsageError: an unknown backend or precision. BundleError: a bundle that cannot be read.
    """
    for option, given, known in (("--backend", backends, BACKEND_CHOICES), ("--precision", precisions, PRECISIONS)):
        if unknown := [name for name in given if name not in known]:
            raise UsageError(f"{option} {unknown[0]}", f"one of {', '.join(known)}")
    machine = describe_machine()
    subjects = [subject_of_bundle(folder, None) for folder in bundles]
    cells, refused = [], []
    for subject in subjects:
        for runner, precision in product(backends, precisions or subject.bundles):
            advance(f"{subject.name}, {runner} {precision}")
            asked = dataclasses.replace(options, backend=runner, precision=precision)
            found = run_child(subject.any_bundle, asked)
            if isinstance(found, str):
                key = {"subject": subject.name, "runner": runner, "precision": precision, "batch": options.batch}
                refused.append({**key, "why": found})
            else:
                cells.append(_cell(subject, found))
    settings = {"sets": list(dict.fromkeys(options.sets)), "limit": options.limit, "batch": options.batch}
    results = {"settings": settings, "cells": cells, "refused": refused}
    from mma_benchmarks.grid.measure import grid_facts

    return Result("accuracy-grid", utc_now(), command, machine, grid_facts(subjects), results)


def run_child(bundle: Path, options: AccuracyOptions) -> dict | str:
    """The accuracy result of one cell as JSON has it, or why there is none."""
    asked = {**dataclasses.asdict(options), "data": str(options.data), "bundle": str(bundle)}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-m", "mma_benchmarks.accuracy.grid", json.dumps(asked)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout[done.stdout.index("{") :])
    if done.returncode < 0:
        return f"the process was ended by {signal.Signals(-done.returncode).name}"
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return last.removeprefix("error: ")[:400]


def _cell(subject: Subject, found: dict) -> dict:
    bundle = found["bundle"]
    return {
        "subject": subject.name,
        "manifest_sha256": bundle["manifest_sha256"],
        "labels": bundle["labels"],
        "runner": bundle["backend"],
        "precision": bundle["precision"],
        "details": bundle["engine"],
        "conditions": found["results"]["conditions"],
    }


def main(request: str) -> int:
    """The child's side: one result as JSON on stdout."""
    asked = json.loads(request)
    bundle = asked.pop("bundle")
    try:
        options = AccuracyOptions(**{**asked, "data": Path(asked["data"]), "sets": tuple(asked["sets"])})
        result = measure_accuracy(bundle, options, "")
    except MMAEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(to_json(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
