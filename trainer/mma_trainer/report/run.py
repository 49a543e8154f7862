"""The page of a training run: what was asked, what came out, and how it got there; one file that needs nothing else."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

from mma_trainer.evaluation.figures import metric_figures
from mma_trainer.evaluation.metrics import Metrics
from mma_trainer.report.blocks import (
    INTERVAL_NOTE,
    headline,
    published_table,
    recall_and_confusion,
    value_table,
    write_report,
)
from mma_trainer.report.figures import training_curves
from mma_trainer.report.page import Block, Code, Figure, Folded, Heading, Page, Table, Text
from mma_trainer.report.paper import PUBLISHED

MAX_EPOCH_ROWS = 60


def write_run_report(
    folder: Path,
    metrics: Metrics,
    config: Mapping,
    provenance: Mapping[str, object],
    data: Mapping[str, object] | None = None,
) -> Path:
    """Write RUN/report.html, whose path is returned, and RUN/metrics.json; OutputError where that fails.

    Args:
        folder: of the run; its `log.csv` gives the curves and is read as it is found.
        metrics: of the result on the validation clips.
        config: of the model, as plain values (`MMADFERConfig.to_dict`); its `labels` name the classes.
        provenance: as the checkpoint carries it: command, dataset, recipe, where the first weights come from.
        data: counts of the data, e.g. {"training clips": 9364, "validation clips": 2341}.
    """
    figures = metric_figures(metrics, config["labels"])
    blocks: list[Block] = [headline(figures), Text(INTERVAL_NOTE)]
    if command := provenance.get("command"):
        blocks.append(Code(str(command)))
    if data:
        blocks.append(value_table("Data", data))
    blocks += recall_and_confusion(figures, level=2)
    if (dataset := provenance.get("dataset")) in PUBLISHED:
        ours = ("this run, one fold", metrics.uar, metrics.war)
        blocks += [Heading("Beside the paper"), Folded("Table 1 of the paper", [published_table(dataset, [ours])])]
    if log := read_log(folder / "log.csv"):
        blocks += [Heading("Curves"), Figure(training_curves(log), "Loss, UAR and WAR per epoch")]
        blocks.append(Folded("The log, epoch by epoch", [_epochs(log)]))
    if isinstance(recipe := provenance.get("recipe"), Mapping):
        blocks += [Heading("Recipe"), value_table("Hyper-parameters", recipe)]
    rest = {key: value for key, value in provenance.items() if key not in ("recipe", "command", "dataset")}
    blocks += [
        Heading("Model"),
        Folded("Every number of the architecture", [value_table("Config", config)]),
        Heading("Provenance"),
        Folded("As the checkpoint carries it", [Code(json.dumps(rest, indent=2, default=str))]),
    ]
    name = provenance.get("dataset", "")
    page = Page(f"Training run {folder.name}" + (f": {name}" if name else ""), blocks)
    return write_report(folder, page, {**figures, "data": dict(data or {})})


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


def _epochs(log: dict[str, list[float]]) -> Table:
    """The log as a table; of a long one evenly spaced rows, the last among them."""
    count = len(log["epoch"])
    step = -(-count // MAX_EPOCH_ROWS)
    rows = [tuple(f"{column[row]:.4g}" for column in log.values()) for row in range((count - 1) % step, count, step)]
    return Table("Epochs" if step == 1 else f"Every {step}th epoch", tuple(key.replace("_", " ") for key in log), rows)
