"""What several results say together: accuracy against latency, and the paper's figures beside ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mma_benchmarks.result import Result
from mma_trainer.report.page import Block, Figure, Heading, Table, Text
from mma_trainer.report.paper import PUBLISHED

BEST_KNOWN = ("pseudo", "video and audio")
"""Set and condition that a model is placed by, where it was measured; else the first that was."""
PAPER_NOTE = (
    "The paper's figures are of DFEW and MAFW, five folds, with weights that are not ours to ship; ours are of other "
    "sets. Put side by side they compare nothing; they say how far the method goes."
)


@dataclass(frozen=True)
class Way:
    """One way to run one model."""

    manifest_sha256: str
    runner: str
    precision: str


def joined_blocks(results: Sequence[Result]) -> list[Block]:
    """The sections that need more than one result; empty where none fits another."""
    return [*_tradeoff(results), *_paper(results)]


def latencies(results: Sequence[Result]) -> Iterator[tuple[Way, str, str, dict]]:
    """(way, model, machine, summary of the milliseconds of one clip) of every result that timed batch 1."""
    for result in results:
        machine = result.machine["cpu"]
        if result.kind == "latency":
            way = Way(result.bundle["manifest_sha256"], result.bundle["backend"], result.bundle["precision"])
            yield way, result.bundle["name"], machine, result.results["predict_ms"]
        elif result.kind == "grid":
            digests = {subject["name"]: subject["manifest_sha256"] for subject in result.results["subjects"]}
            for cell in result.results["cells"]:
                if cell["batch"] == 1:
                    way = Way(digests[cell["subject"]], cell["runner"], cell["precision"])
                    yield way, cell["subject"], machine, cell["call_ms"]


def accuracies(results: Sequence[Result]) -> dict[Way, list[dict]]:
    """The conditions that were measured of each way; of the same way the newest result counts."""
    found: dict[Way, list[dict]] = {}
    for result in sorted(results, key=lambda result: result.created):
        if result.kind == "accuracy":
            way = Way(result.bundle["manifest_sha256"], result.bundle["backend"], result.bundle["precision"])
            found[way] = result.results["conditions"]
        elif result.kind == "accuracy-grid":
            for cell in result.results["cells"]:
                found[Way(cell["manifest_sha256"], cell["runner"], cell["precision"])] = cell["conditions"]
    return found


def placing(conditions: Sequence[dict]) -> dict:
    """The condition that a model is placed by."""
    return next((c for c in conditions if (c["set"], c["condition"]) == BEST_KNOWN), conditions[0])


def _tradeoff(results: Sequence[Result]) -> list[Block]:
    from mma_benchmarks.figures import Point, accuracy_against_latency

    right = accuracies(results)
    machines = {machine for _, _, machine, _ in latencies(results)}
    points, rows = [], []
    for way, model, machine, ms in latencies(results):
        if way not in right:
            continue
        entry = placing(right[way])
        name = f"{way.runner} {way.precision}" + (f", {machine}" if len(machines) > 1 else "")
        if entry["war"] is not None:
            points.append(Point(model, name, way.precision, ms["p50"], entry["war"]))
        figures = ("-" if entry[key] is None else f"{100 * entry[key]:.1f}" for key in ("uar", "war"))
        rows.append((model, name, f"{ms['p50']:.1f}", f"{ms['p95']:.1f}", *figures, _condition(entry)))
    if not points:
        return []
    what = {_condition(placing(right[way])) for way, *_ in latencies(results) if way in right}
    axis = f"WAR, {what.pop()}" if len(what) == 1 else "WAR, of the set in the table"
    header = ("model", "backend", "p50 ms", "p95 ms", "UAR %", "WAR %", "set: what the model gets")
    return [
        Heading("Accuracy against latency"),
        Figure(accuracy_against_latency(points, axis), "Share of right answers over milliseconds per clip"),
        Table("Accuracy and latency of the same way to run the same model", header, rows, prose=(1, 6)),
    ]


def _paper(results: Sequence[Result]) -> list[Block]:
    entries = accuracies(results)
    if not entries:
        return []
    rows = [
        (row.method, row.modalities, name.upper(), f"{row.uar:.2f}", f"{row.war:.2f}", row.source)
        for name, published in PUBLISHED.items()
        for row in published
    ]
    names = _model_names(results)
    for way, conditions in entries.items():
        for entry in conditions:
            figures = ("-" if entry[key] is None else f"{100 * entry[key]:.2f}" for key in ("uar", "war"))
            ours = f"{names[way]}, {way.runner} {way.precision}"
            rows.append((ours, entry["condition"], entry["set"], *figures, "measured here"))
    header = ("method", "modalities", "set", "UAR %", "WAR %", "from")
    table = Table("Published, and measured here on other sets", header, rows, prose=(1, 2, 5))
    return [Heading("Beside the paper"), table, Text(PAPER_NOTE)]


def _model_names(results: Sequence[Result]) -> dict[Way, str]:
    names: dict[Way, str] = {}
    for result in results:
        if result.kind == "accuracy":
            bundle = result.bundle
            names[Way(bundle["manifest_sha256"], bundle["backend"], bundle["precision"])] = bundle["name"]
        elif result.kind == "accuracy-grid":
            for cell in result.results["cells"]:
                names[Way(cell["manifest_sha256"], cell["runner"], cell["precision"])] = cell["subject"]
    return names


def _condition(entry: dict) -> str:
    return f"{entry['set']}: {entry['condition']}"
