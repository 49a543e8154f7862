"""What an accuracy result looks like to people."""

from __future__ import annotations

import math

from mma_benchmarks.result import Result
from mma_trainer.report.page import Block, Figure, Gallery, Heading, Table, Text

METRICS_NOTE = (
    "UAR: mean of the per-class recall, over the classes that occur in the set. WAR: share of right answers. "
    "Loss: mean negative log-likelihood in nats (guessing among {classes} classes costs {guessing:.3f}). "
    "ECE: distance between stated confidence and share of right answers, 15 equal-width bins. "
    "Probabilities are calibrated by the bundle's temperature."
)
COUNT_NOTE = "Confusion, rows true, columns predicted, clips"


def key_table(results: list[Result]) -> Table:
    """One row per condition of each result."""
    rows = []
    for result in results:
        for entry in result.results["conditions"]:
            figures = (percent(entry["uar"]), percent(entry["war"]), number(entry["loss"], 3), percent(entry["ece"]))
            row = (f"{entry['set']}: {entry['condition']}", str(entry["num_clips"]), *figures)
            rows.append((f"{result.bundle['name']} {result.bundle['precision']}", *row))
    header = ("bundle", "set: what the model gets", "clips", "UAR %", "WAR %", "loss", "ECE %")
    return Table("Accuracy at a glance", header, rows, prose=(1,))


def recall_table(result: Result) -> Table:
    """Recall per class and condition, percent."""
    rows = [
        (f"{entry['set']}: {entry['condition']}", *map(percent, entry["recall"]))
        for entry in result.results["conditions"]
    ]
    return Table("Recall per class, percent", ("condition", *result.bundle["labels"]), rows)


def console_tables(result: Result) -> list[Table]:
    return [key_table([result]), recall_table(result)]


def caveats(result: Result) -> list[Block]:
    """What each set is, once; the pseudo set's warning set apart."""
    blocks: list[Block] = []
    for name, text in {entry["set"]: entry["description"] for entry in result.results["conditions"]}.items():
        blocks.append(Text(f"{name}: {text}.", note=name == "pseudo"))
    return blocks


def accuracy_blocks(result: Result) -> list[Block]:
    """The section of one result, without machine and bundle."""
    from mma_benchmarks.figures import condition_bars, confusion

    labels = tuple(result.bundle["labels"])
    conditions = result.results["conditions"]
    blocks: list[Block] = [
        *caveats(result),
        key_table([result]),
        Text(METRICS_NOTE.format(classes=len(labels), guessing=math.log(len(labels)))),
        Heading("By what the model gets", 3),
        Figure(condition_bars(conditions), "UAR and WAR per set and modality"),
        recall_table(result),
        Heading("Confusion", 3),
    ]
    names = [f"{entry['set']}: {entry['condition']}" for entry in conditions]
    pictures = [
        Figure(confusion(entry, labels), f"Confusion matrix, {name}")
        for entry, name in zip(conditions, names, strict=True)
    ]
    blocks.append(Gallery(pictures))
    for entry, name in zip(conditions, names, strict=True):
        rows = [(label, *map(str, row)) for label, row in zip(labels, entry["confusion"], strict=True)]
        blocks.append(Table(f"{COUNT_NOTE}, {name}", ("true", *labels), rows))
    return blocks


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
