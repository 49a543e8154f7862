"""What several results say together: accuracy against latency, and the paper's figures beside ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mma_benchmarks.accuracy.page import cells_of, unspoiled
from mma_benchmarks.figures import Point, accuracy_against_latency
from mma_benchmarks.result import Result
from mma_benchmarks.schema import Accuracy, AccuracyCell, AccuracyGrid, Condition, Summary
from mma_trainer.report.page import Block, Figure, Heading, Table, Text, percent
from mma_trainer.report.paper import PUBLISHED

BEST_KNOWN = tuple((name, "video and audio") for name in ("av-javanese/04,05", "av-javanese", "pseudo"))
"""Set and condition that a model is placed by, the first that was measured; else the first of all."""
PAPER_NOTE = (
    "The paper's figures are of DFEW and MAFW, five folds, with weights that are not ours to ship; ours are of other "
    "sets. Put side by side they compare nothing; they say how far the method goes."
)


class Way(NamedTuple):
    """One way to run one model."""

    manifest_sha256: str
    runner: str
    precision: str


def joined_blocks(results: Sequence[Result]) -> list[Block]:
    """The sections that need more than one result; empty where none fits another."""
    return [*_tradeoff(results), *_paper(results)]


def latencies(results: Sequence[Result]) -> Iterator[tuple[Way, str, str, Summary]]:
    """(way, model, machine, milliseconds of one clip) of every result that timed batch 1."""
    for result in results:
        machine, model, found = result.machine.cpu, result.bundle, result.results
        if result.kind == "latency":
            yield Way(model.manifest_sha256, model.backend, model.precision), model.name, machine, found.predict_ms
        elif result.kind == "grid":
            digests = {subject.name: subject.manifest_sha256 for subject in found.subjects}
            for cell in found.cells:
                if cell.batch == 1:
                    way = Way(digests[cell.subject], cell.runner, cell.precision)
                    yield way, cell.subject, machine, cell.call_ms


def accuracies(results: Sequence[Result]) -> dict[Way, AccuracyCell]:
    """What was measured of each way; of the same way the newest result counts."""
    return {
        Way(cell.manifest_sha256, cell.runner, cell.precision): cell
        for result in sorted(results, key=lambda result: result.created)
        if isinstance(result.results, (Accuracy, AccuracyGrid))
        for cell in cells_of(result)
    }


def placing(conditions: Sequence[Condition]) -> Condition:
    """The condition that a model is placed by."""
    known = {(c.set, c.condition): c for c in conditions if c.spoiled_by is None}
    return next((known[key] for key in BEST_KNOWN if key in known), conditions[0])


def _tradeoff(results: Sequence[Result]) -> list[Block]:
    placed = {way: placing(cell.conditions) for way, cell in accuracies(results).items()}
    timed = list(latencies(results))
    several_machines = len({machine for _, _, machine, _ in timed}) > 1
    points, rows = [], []
    for way, model, machine, ms in timed:
        if entry := placed.get(way):
            name = f"{way.runner} {way.precision}" + (f", {machine}" if several_machines else "")
            times = (f"{ms.p50:.1f}", f"{ms.p95:.1f}")
            rows.append((model, name, *times, percent(entry.uar), percent(entry.war), entry.name))
            if entry.war is not None:
                points.append(Point(model, name, way.precision, ms.p50, entry.war))
    if not points:
        return []
    what = {row[-1] for row in rows}
    axis = f"WAR, {what.pop()}" if len(what) == 1 else "WAR, of the set in the table"
    header = ("model", "backend", "p50 ms", "p95 ms", "UAR %", "WAR %", "set: what the model gets")
    return [
        Heading("Accuracy against latency"),
        Figure(accuracy_against_latency(points, axis), "Share of right answers over milliseconds per clip"),
        Table("Accuracy and latency of the same way to run the same model", header, rows, prose=(1, 6)),
    ]


def _paper(results: Sequence[Result]) -> list[Block]:
    cells = accuracies(results).values()
    if not cells:
        return []
    rows = [
        (row.name, row.modalities, name.upper(), f"{row.uar:.2f}", f"{row.war:.2f}", row.source)
        for name, published in PUBLISHED.items()
        for row in published
        if row.uar is not None
    ]
    for cell in cells:
        ours = f"{cell.subject}, {cell.runner} {cell.precision}"
        for entry in unspoiled(cell.conditions):
            figures = (percent(entry.uar, 2), percent(entry.war, 2))
            rows.append((ours, entry.condition, entry.set, *figures, "measured here"))
    header = ("method", "modalities", "set", "UAR %", "WAR %", "from")
    table = Table("Published, and measured here on other sets", header, rows, prose=(1, 2, 5))
    return [Heading("Beside the paper"), table, Text(PAPER_NOTE)]
