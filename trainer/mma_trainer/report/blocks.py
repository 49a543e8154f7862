"""Blocks that the pages of runs, evaluations and folds share, and the two files that hold such a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mma_edge.files import to_json, write_text
from mma_trainer.evaluation.robustness import CLEAN, REAL_NOISE
from mma_trainer.report.page import Bars, Block, Heading, Matrix, Page, Table, Tiles, number, percent, to_html
from mma_trainer.report.paper import PAPER, PUBLISHED

REPORT, METRICS = "report.html", "metrics.json"
ROBUSTNESS_HEADER = ("condition", "UAR", "to clean", "WAR", "to clean", "ECE")
FUSION_HEADER = ("sound", "both", "video only", "audio only", "both to the better")
FUSION_CAPTION = "UAR of both together and of each alone, and the gain over the better alone in percentage points"
FIT_HEADER = ("clips with", "from", "clips", "T was", "T", "ECE at T = 1", "ECE was", "ECE now", "NLL was", "NLL now")
HONEST_NOTE = (
    "Honest: what answers of the same confidences, each right as often as it says, would show in the mean, and in 19 "
    "of 20 cases at most; few clips never show 0."
)
INTERVAL_NOTE = (
    "UAR: mean of the per-class recall, over the classes that occur. WAR: share of right answers. Loss: mean "
    "cross-entropy in nats. Intervals are 95 %: Wilson's for shares, for UAR a bootstrap over the clips of each class. "
    "They take the clips as independent. Where the speakers are known, whole speakers are drawn for UAR and WAR; "
    "recall keeps Wilson's interval, which is too narrow for many clips of few speakers."
)


def honest_range(errors: Sequence[float] | None) -> str:
    """The range of `evaluation.calibration.honest_error` in percent; results of before it was measured have none."""
    return "-" if errors is None else " to ".join(map(percent, errors))


def headline(figures: Mapping, more: Sequence[tuple[str, str, str]] = ()) -> Tiles:
    """The figures to be seen first; here and below `figures` are those of `evaluation.figures.metric_figures`."""
    tiles = []
    for key in ("uar", "war"):
        low, high = map(percent, figures[f"{key}_interval"])
        tiles.append((key.upper(), percent(figures[key], 2, " %"), f"95 %: {low} to {high}"))
    loss = ("Loss", number(figures["loss"], 3), "nats")
    return Tiles([*tiles, *more, loss, ("Clips", f"{figures['num_clips']:,}", "evaluated")])


def published_table(dataset: str, ours: Sequence[tuple[str, float, float]]) -> Table:
    """All rows of the paper's Table 1 on a data set, then ours: name, UAR and WAR as fractions."""
    rows = [
        (row.method, row.modalities, str(row.resolution or "-"), number(row.uar, 2), number(row.war, 2))
        for row in PUBLISHED.get(dataset, ())
    ]
    rows += [(name, "", "", percent(uar, 2), percent(war, 2)) for name, uar, war in ours]
    caption = f"Beside published figures, percent, mean of five folds ({PAPER}, Table 1)"
    return Table(caption, ("method", "modalities", "px", "UAR", "WAR"), rows, (1,))


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


def robustness_rows(rows: Sequence[Mapping], digits: int, unit: str = "") -> list[tuple[str, ...]]:
    """The conditions of `evaluation.figures.figures_of`, in percent; differences in percentage points."""
    cells = []
    for row in rows:
        uar, war, ece = (percent(row[key], digits, unit) for key in ("uar", "war", "ece"))
        uar_difference, war_difference = (f"{100 * row[f'{key}_difference']:+.{digits}f}" for key in ("uar", "war"))
        cells.append((row["condition"], uar, uar_difference, war, war_difference, ece))
    return cells


def fusion_rows(uar: Mapping[str, float | None], digits: int, unit: str = "") -> list[tuple[str, ...]]:
    """UAR of both modalities beside each alone, as the sound gets worse; none where a set has one modality.

    `uar` is by the names of `evaluation.robustness.conditions`, as fractions.
    """
    rows = []
    for name in (CLEAN, *REAL_NOISE):
        names = (name, "video only", "audio only" if name == CLEAN else f"audio only, {name}")
        if all(uar.get(key) is not None for key in names):
            both, *alone = (uar[key] for key in names)
            cells = (percent(value, digits, unit) for value in (both, *alone))
            rows.append((name, *cells, f"{100 * (both - max(alone)):+.{digits}f}"))
    return rows


def calibration_rows(record: Mapping, digits: int, unit: str = "", grouping: str = "") -> list[tuple[str, ...]]:
    """The fits of `evaluation.figures.calibration_record`; `grouping`: "," separates thousands of clips."""
    return [
        (
            name,
            fit["source"],
            f"{fit['num_clips']:{grouping}}",
            *(number(fit[key], 3) for key in ("temperature_before", "temperature")),
            *(percent(fit[key], digits, unit) for key in ("ece_raw", "ece_before", "ece_after")),
            *(number(fit[key], 3) for key in ("nll_before", "nll_after")),
        )
        for name, fit in record["fits"].items()
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
