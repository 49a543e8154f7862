"""The page of a training run: what was asked, what came out, and how it got there; one file that needs nothing else."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mma_edge.files import to_json, write_text
from mma_trainer.evaluation.figures import metric_figures
from mma_trainer.evaluation.metrics import Metrics
from mma_trainer.report.figures import training_curves
from mma_trainer.report.page import (
    Bars,
    Block,
    Code,
    Figure,
    Folded,
    Heading,
    Matrix,
    Page,
    Table,
    Text,
    Tiles,
    to_html,
)

if TYPE_CHECKING:
    from mma_trainer.model import MMADFERConfig

REPORT = "report.html"
METRICS = "metrics.json"
INTERVAL_NOTE = (
    "UAR: mean of the per-class recall, over the classes that occur. WAR: share of right answers. Loss: mean "
    "cross-entropy in nats. Intervals are 95 %: Wilson's for shares, for UAR a bootstrap over the clips of each class. "
    "They take the clips as independent; many clips of few speakers are not, and deserve wider ones."
)
MAX_EPOCH_ROWS = 60


def write_run_report(
    folder: Path,
    metrics: Metrics,
    config: MMADFERConfig,
    provenance: Mapping[str, object],
    data: Mapping[str, object] | None = None,
) -> Path:
    """Write RUN/report.html and RUN/metrics.json at the end of a training run.

    Args:
        folder: of the run; its `log.csv` gives the curves and is read as it is found.
        metrics: of the result on the validation clips.
        config: of the model; its labels name the classes.
        provenance: as the checkpoint carries it: command, dataset, recipe, where the first weights come from.
        data: counts of the data, e.g. {"training clips": 9364, "validation clips": 2341}.

    Returns:
        Path of the page.

    Raises:
        OutputError: it cannot be written.
    """
    figures = metric_figures(metrics, config.labels)
    log = read_log(folder / "log.csv")
    name = provenance.get("dataset", "")
    blocks: list[Block] = [
        *headline(figures),
        Text(INTERVAL_NOTE),
        *_origin(provenance, data),
        Heading("Recall per class"),
        recall_bars(figures),
        Heading("Confusion"),
        confusion_matrix(figures),
    ]
    if log:
        blocks += [Heading("Curves"), Figure(_curves(log), "Loss, UAR and WAR per epoch")]
        blocks.append(Folded("The log, epoch by epoch", [_epochs(log)]))
    recipe = provenance.get("recipe")
    if isinstance(recipe, Mapping):
        blocks += [Heading("Recipe"), _values("Hyper-parameters", recipe)]
    blocks += [Heading("Model"), Folded("Every number of the architecture", [_values("Config", config.to_dict())])]
    rest = {key: value for key, value in provenance.items() if key not in ("recipe", "command", "dataset")}
    blocks += [
        Heading("Provenance"),
        Folded("As the checkpoint carries it", [Code(json.dumps(rest, indent=2, default=str))]),
    ]
    title = f"Training run {folder.name}" + (f": {name}" if name else "")
    page = folder / REPORT
    write_text(folder / METRICS, to_json({**figures, "data": dict(data or {})}))
    write_text(page, to_html(Page(title, blocks)))
    return page


def headline(figures: Mapping) -> list[Block]:
    """The figures to be seen first."""
    tiles = [(key.upper(), percent(figures[key]), interval(figures[f"{key}_interval"])) for key in ("uar", "war")]
    loss = "-" if figures["loss"] is None else f"{figures['loss']:.3f}"
    return [Tiles([*tiles, ("Loss", loss, "nats"), ("Clips", f"{figures['num_clips']:,}", "evaluated")])]


def recall_bars(figures: Mapping) -> Bars:
    """Recall of each class with Wilson's interval."""
    totals = [sum(row) for row in figures["confusion"]]
    columns = (figures["labels"], figures["recall"], figures["recall_intervals"], totals)
    rows = [(label, recall, *bounds, f"{total:,} clips") for label, recall, bounds, total in zip(*columns, strict=True)]
    return Bars("Recall, percent, with 95 % intervals", rows)


def confusion_matrix(figures: Mapping, caption: str = "") -> Matrix:
    caption = caption or "Rows true, columns predicted: percent of the row, below it clips"
    return Matrix(caption, tuple(figures["labels"]), figures["confusion"])


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def interval(bounds: Sequence[float]) -> str:
    return f"95 %: {100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}"


def _origin(provenance: Mapping[str, object], data: Mapping[str, object] | None) -> list[Block]:
    blocks: list[Block] = []
    if command := provenance.get("command"):
        blocks.append(Code(str(command)))
    if data:
        blocks.append(_values("Data", data))
    return blocks


def _values(caption: str, values: Mapping[str, object]) -> Table:
    rows = [(key.replace("_", " "), _value(value)) for key, value in values.items()]
    return Table(caption, ("", "value"), rows, prose=(1,))


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def read_log(path: Path) -> dict[str, list[float]]:
    """The columns of a log.csv that are numbers in every row; {} when there is none."""
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        return {}
    columns: dict[str, list[float]] = {}
    for key in rows[0] if rows else ():
        try:
            columns[key] = [float(row[key]) for row in rows]
        except (TypeError, ValueError):
            continue  # empty in some rows, or text
    return columns if "epoch" in columns else {}


def _curves(log: dict[str, list[float]]) -> str:
    return training_curves(log["epoch"], {key: values for key, values in log.items() if key != "epoch"})


def _epochs(log: dict[str, list[float]]) -> Table:
    """The log as a table; of a long one evenly spaced rows, the last among them."""
    count = len(log["epoch"])
    step = -(-count // MAX_EPOCH_ROWS)
    shown = sorted({*range(count - 1, -1, -step)})
    rows = [tuple(f"{log[key][row]:.4g}" for key in log) for row in shown]
    return Table("Epochs" if step == 1 else f"Every {step}th epoch", tuple(key.replace("_", " ") for key in log), rows)
