"""What accuracy results look like to people: one bundle in depth, or a grid of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mma_benchmarks.figures import condition_bars, confusion
from mma_benchmarks.grid.page import engine_blocks, refused_blocks, refused_table
from mma_benchmarks.result import Result
from mma_benchmarks.schema import AccuracyCell, AccuracyGrid, Condition
from mma_trainer.evaluation.calibration import ECE_BINS
from mma_trainer.evaluation.robustness import CLEAN
from mma_trainer.report.blocks import FUSION_CAPTION, FUSION_HEADER, HONEST_NOTE, fusion_rows, honest_range
from mma_trainer.report.page import Block, Figure, Gallery, Heading, Matrix, Table, Text, number, percent

METRICS_NOTE = (
    "UAR: mean of the per-class recall, over the classes that occur in the set. WAR: share of right answers. "
    "Loss: mean negative log-likelihood in nats (guessing among {classes} classes costs {guessing:.3f}). "
    f"ECE: distance between stated confidence and share of right answers, {ECE_BINS} equal-width bins. {HONEST_NOTE} "
    "Probabilities are calibrated by the bundle's temperature."
)
COUNT_NOTE = "Confusion, rows true, columns predicted, clips"
GRID_NOTE = (
    "UAR: mean of the per-class recall. WAR: share of right answers. Loss: mean negative log-likelihood, nats. ECE: "
    f"distance between stated confidence and share of right answers. {HONEST_NOTE} All cells saw the same clips."
)


def cells_of(result: Result) -> list[AccuracyCell]:
    """Those of a grid, or the one that the whole result is about."""
    if isinstance(result.results, AccuracyGrid):
        return result.results.cells
    return [result.bundle.accuracy_cell(result.bundle.name, result.results.conditions)]


def unspoiled(conditions: Sequence[Condition]) -> list[Condition]:
    """The clips as they are, with both modalities or one."""
    return [entry for entry in conditions if entry.spoiled_by is None]


def key_table(results: Sequence[Result]) -> Table:
    """One row per cell and condition; `results` are of one kind."""
    is_grid = isinstance(results[0].results, AccuracyGrid)
    rows = []
    for cell in [cell for result in results for cell in cells_of(result)]:
        names = (cell.subject, f"{cell.runner} {cell.precision}") if is_grid else (f"{cell.subject} {cell.precision}",)
        for entry in unspoiled(cell.conditions):
            shares = (
                percent(entry.uar),
                percent(entry.war),
                number(entry.loss, 3),
                percent(entry.ece),
                honest_range(entry.ece_of_honest),
            )
            rows.append((*names, entry.name, str(entry.num_clips), *shares))
    figures = ("set: what the model gets", "clips", "UAR %", "WAR %", "loss", "ECE %", "honest")
    if is_grid:
        return Table("Accuracy over the grid", ("model", "backend", *figures), rows, prose=(1, 2))
    return Table("Accuracy at a glance", ("bundle", *figures), rows, prose=(1,))


def recall_table(cell: AccuracyCell) -> Table:
    """Recall per class and condition, percent."""
    rows = [(entry.name, *map(percent, entry.recall)) for entry in unspoiled(cell.conditions)]
    return Table("Recall per class, percent", ("condition", *cell.labels), rows)


def spoiled_tables(cell: AccuracyCell) -> list[Table]:
    """What is lost where clips are spoiled, and what fusion gains as the sound gets worse; [] if not measured."""
    clean = {entry.name: entry for entry in unspoiled(cell.conditions)}
    rows = []
    for entry in cell.conditions:
        if entry.spoiled_by is not None:
            pairs = [(getattr(clean[entry.name], key), getattr(entry, key)) for key in ("uar", "war")]
            shares = [text for before, after in pairs for text in (percent(after), _points(before, after))]
            rows.append((entry.name, entry.spoiled_by, *shares, percent(entry.ece), honest_range(entry.ece_of_honest)))
    if not rows:
        return []
    header = ("set: what the model gets", "spoiled by", "UAR %", "lost", "WAR %", "lost", "ECE %", "honest")
    tables = [Table("Spoiled clips, and percentage points lost to clean ones", header, rows, prose=(1,))]
    fusion = []
    for name in dict.fromkeys(entry.set for entry in cell.conditions):
        uar = {_condition_name(entry): entry.uar for entry in cell.conditions if entry.set == name}
        fusion += [(name, *row) for row in fusion_rows(uar, 1)]
    return [*tables, Table(FUSION_CAPTION, ("set", *FUSION_HEADER), fusion, prose=(1,))] if fusion else tables


def _points(before: float | None, after: float | None) -> str:
    return "-" if before is None or after is None else f"{100 * (before - after):.1f}"


def _condition_name(entry: Condition) -> str:
    """The name that `evaluation.robustness.Condition` has for it."""
    alone = "" if entry.condition == "video and audio" else entry.condition
    return ", ".join(filter(None, (alone, entry.spoiled_by))) or CLEAN


def console_tables(result: Result) -> list[Table]:
    cells = cells_of(result)
    tables = [key_table([result])] if cells else []
    if not isinstance(result.results, AccuracyGrid):
        return [*tables, recall_table(*cells), *spoiled_tables(*cells)]
    return [*tables, refused_table(result.results)] if result.results.refused else tables


def caveats(result: Result) -> list[Text]:
    """What each set is, once; the pseudo set's warning set apart."""
    descriptions = {entry.set: entry.description for cell in cells_of(result) for entry in cell.conditions}
    return [Text(f"{name}: {text}.", note=name == "pseudo") for name, text in descriptions.items()]


def blocks(result: Result) -> list[Block]:
    """The section of one result, without machine and bundle."""
    cells = cells_of(result)
    tables: list[Block] = [*caveats(result), key_table([result])] if cells else []
    if not isinstance(result.results, AccuracyGrid):
        return [*tables, *_in_depth(*cells)]
    if cells:
        tables.append(Text(GRID_NOTE))
        for cell in cells:
            if spoiled := spoiled_tables(cell):
                tables += [Heading(f"Robustness, {_name(cell)}", 3), *spoiled]
        tables += [Heading("Confusion", 3), *map(_matrices, cells)]
    return [*tables, *engine_blocks(result.results), *refused_blocks(result.results)]


def _in_depth(cell: AccuracyCell) -> list[Block]:
    """Figures and tables of one cell."""
    classes = len(cell.labels)
    pictures, counts = [], []
    spoiled = spoiled_tables(cell)
    for entry in unspoiled(cell.conditions):
        pictures.append(Figure(confusion(entry, cell.labels), f"Confusion matrix, {entry.name}"))
        rows = [(label, *map(str, row)) for label, row in zip(cell.labels, entry.confusion, strict=True)]
        counts.append(Table(f"{COUNT_NOTE}, {entry.name}", ("true", *cell.labels), rows))
    return [
        Text(METRICS_NOTE.format(classes=classes, guessing=math.log(classes))),
        Heading("By what the model gets", 3),
        Figure(condition_bars(unspoiled(cell.conditions)), "UAR and WAR per set and modality"),
        recall_table(cell),
        *([Heading("Robustness", 3), *spoiled] if spoiled else ()),
        Heading("Confusion", 3),
        Gallery(pictures),
        *counts,
    ]


def _matrices(cell: AccuracyCell) -> Gallery:
    labels = tuple(cell.labels)
    entries = unspoiled(cell.conditions)
    return Gallery([Matrix(f"{_name(cell)}: {e.set}, {e.condition}", labels, e.confusion) for e in entries])


def _name(cell: AccuracyCell) -> str:
    return f"{cell.subject}, {cell.runner} {cell.precision}"
