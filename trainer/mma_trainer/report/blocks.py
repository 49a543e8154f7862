"""Blocks that the pages of runs, evaluations and folds share, and the two files that hold such a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mma_edge.files import to_json, write_text
from mma_trainer.report.page import Bars, Block, Heading, Matrix, Page, Table, Tiles, number, percent, to_html

REPORT = "report.html"
METRICS = "metrics.json"
INTERVAL_NOTE = (
    "UAR: mean of the per-class recall, over the classes that occur. WAR: share of right answers. Loss: mean "
    "cross-entropy in nats. Intervals are 95 %: Wilson's for shares, for UAR a bootstrap over the clips of each class. "
    "They take the clips as independent; many clips of few speakers are not, and deserve wider ones."
)


def headline(figures: Mapping, more: Sequence[tuple[str, str, str]] = ()) -> Tiles:
    """The figures to be seen first: UAR and WAR with their intervals, `more`, loss and number of clips.

    Args:
        figures: `evaluation.figures.metric_figures`, here and below.
    """
    tiles = []
    for key in ("uar", "war"):
        low, high = figures[f"{key}_interval"]
        tiles.append((key.upper(), percent(figures[key], 2, " %"), f"95 %: {percent(low)} to {percent(high)}"))
    loss = ("Loss", number(figures["loss"], 3), "nats")
    return Tiles([*tiles, *more, loss, ("Clips", f"{figures['num_clips']:,}", "evaluated")])


def recall_and_confusion(figures: Mapping, level: int) -> list[Block]:
    """Recall of each class with Wilson's interval, and the confusion matrix, under headings of a level."""
    totals = [sum(row) for row in figures["confusion"]]
    columns = (figures["labels"], figures["recall"], figures["recall_intervals"], totals)
    rows = [(label, recall, *bounds, f"{total:,} clips") for label, recall, bounds, total in zip(*columns, strict=True)]
    caption = "Rows true, columns predicted: percent of the row, below it clips"
    return [
        Heading("Recall per class", level),
        Bars("Recall, percent, with 95 % intervals", rows),
        Heading("Confusion", level),
        Matrix(caption, tuple(figures["labels"]), figures["confusion"]),
    ]


def value_table(caption: str, values: Mapping[str, object]) -> Table:
    """Names and plain values, one a row."""
    rows = [(key.replace("_", " "), _text(value)) for key, value in values.items()]
    return Table(caption, ("", "value"), rows, prose=(1,))


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def write_report(folder: Path, page: Page, metrics: Mapping[str, object]) -> Path:
    """Write metrics.json and report.html; returns the path of the latter. OutputError where one cannot be written."""
    write_text(folder / METRICS, to_json(metrics))
    write_text(folder / REPORT, to_html(page))
    return folder / REPORT
