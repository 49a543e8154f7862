"""The folds of a data set put together: mean and spread, beside the paper, as tables and as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from mma_edge.files import to_json, write_text
from mma_trainer.evaluation.metrics import Metrics, finite
from mma_trainer.report.blocks import published_table, value_table
from mma_trainer.report.figures import plot_confusion
from mma_trainer.report.page import Heading, Matrix, Page, Table, Text, Tiles, percent, to_html, to_markdown, to_rich
from mma_trainer.report.paper import PUBLISHED, Published

ONE, TWO = "one clip", "mean of two clips"


@dataclass(frozen=True, eq=False)
class FoldSummary:
    """Metrics of every fold, in order, with one clip of each video and with the mean of two."""

    dataset: str  # "dfew", "mafw" or "prepared"
    labels: tuple[str, ...]
    one_clip: Sequence[Metrics]
    two_clips: Sequence[Metrics]
    options: dict  # what they were trained with

    @property
    def protocols(self) -> dict[str, Sequence[Metrics]]:
        return {ONE: self.one_clip, TWO: self.two_clips}

    @property
    def columns(self) -> dict[str, list[float]]:
        """Every fold's value by name: "UAR, one clip", "WAR, one clip" ..."""
        return {
            f"{key.upper()}, {name}": [getattr(metrics, key) for metrics in folds]
            for name, folds in self.protocols.items()
            for key in ("uar", "war")
        }

    @property
    def published(self) -> tuple[Published, ...]:
        return PUBLISHED.get(self.dataset, ())

    def confusion(self, protocol: str) -> Metrics:
        """The folds' matrices added up: every video of the data set once."""
        return Metrics(np.sum([metrics.confusion for metrics in self.protocols[protocol]], axis=0))


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean over the folds that have a value, and the sample standard deviation (NaN for a single fold)."""
    there = [value for value in values if np.isfinite(value)]
    mean = float(np.mean(there)) if there else float("nan")
    return mean, float(np.std(there, ddof=1)) if len(there) > 1 else float("nan")


def to_dict(summary: FoldSummary) -> dict:
    """summary.json: shares from 0 to 1; null where there is none."""
    protocols = {}
    for name, folds in summary.protocols.items():
        recalls = np.array([metrics.recall for metrics in folds])
        entry = {
            "folds": [
                {
                    "fold": index,
                    "num_clips": metrics.num_clips,
                    "uar": finite(metrics.uar),
                    "war": finite(metrics.war),
                    "recall": [finite(value) for value in metrics.recall],
                    "confusion": metrics.confusion.tolist(),
                }
                for index, metrics in enumerate(folds, 1)
            ],
            "recall_mean": [finite(spread(column)[0]) for column in recalls.T],
            "confusion_sum": summary.confusion(name).confusion.tolist(),
        }
        for key in ("uar", "war"):
            mean, deviation = spread(summary.columns[f"{key.upper()}, {name}"])
            entry |= {f"{key}_mean": finite(mean), f"{key}_deviation": finite(deviation)}
        protocols[name.replace(" ", "_")] = entry
    return {
        "dataset": summary.dataset,
        "labels": list(summary.labels),
        **protocols,
        "published_percent": [vars(row) for row in summary.published],
        "options": summary.options,
    }


def fold_table(summary: FoldSummary) -> Table:
    """UAR and WAR per fold, their mean and spread."""
    clips = [metrics.num_clips for metrics in summary.one_clip]
    names = [*(str(fold) for fold in range(1, len(clips) + 1)), "mean", "deviation"]
    totals = [*(f"{count:,}" for count in (*clips, sum(clips))), ""]
    columns = ([percent(value, 2) for value in (*column, *spread(column))] for column in summary.columns.values())
    header, rows = ("fold", "test clips", *summary.columns), list(zip(names, totals, *columns, strict=True))
    return Table("Per fold, percent; deviation: standard deviation between the folds", header, rows)


def recall_table(summary: FoldSummary) -> Table:
    """Recall of every class, mean over the folds, and per fold with one clip."""
    ones, twos = (np.array([m.recall for m in folds]).T for folds in summary.protocols.values())
    rows = [
        (label, *(percent(value, 2) for value in (spread(one)[0], spread(two)[0], *one)))
        for label, one, two in zip(summary.labels, ones, twos, strict=True)
    ]
    folds = [f"fold {index}" for index in range(1, len(summary.one_clip) + 1)]
    return Table("Recall per class, percent", ("class", f"mean, {ONE}", f"mean, {TWO}", *folds), rows)


def paper_table(summary: FoldSummary) -> Table:
    """This run beside what is published for the data set, percent."""
    ours = []
    for name, folds in summary.protocols.items():
        uar, war = (spread(summary.columns[f"{key}, {name}"])[0] for key in ("UAR", "WAR"))
        ours.append((f"this run, {name}, mean of {len(folds)} folds", uar, war))
    return published_table(summary.dataset, ours)


def summary_page(summary: FoldSummary) -> Page:
    spreads = {name: [percent(value, 2) for value in spread(column)] for name, column in summary.columns.items()}
    tiles = [(name, f"{mean} %", f"± {deviation} between folds") for name, (mean, deviation) in spreads.items()]
    caption = "{}: rows true, percent of the row, below it clips"
    matrices = [
        Matrix(caption.format(name), summary.labels, summary.confusion(name).confusion.tolist())
        for name in summary.protocols
    ]
    options = {key: str(value) for key, value in summary.options.items() if value is not None}
    blocks = [
        Tiles(tiles),
        Text(
            "UAR: mean of the per-class recall. WAR: share of right answers. Of each video one clip of 16 frames, or "
            "the mean of the probabilities of two uniformly sampled ones. The last epoch of each fold counts; none is "
            "chosen."
        ),
        fold_table(summary),
        Heading("Beside the paper"),
        paper_table(summary),
        Heading("Recall per class"),
        recall_table(summary),
        Heading("Confusion, all folds added up"),
        *matrices,
        Heading("Options"),
        value_table("As given; the recipe's defaults are the paper's", options),
    ]
    return Page(f"{summary.dataset.upper()}, {len(summary.one_clip)} folds", blocks)


def write_summary(summary: FoldSummary, folder: Path) -> list[Path]:
    """summary.json, .md and .html, and the summed confusion matrix as a picture (one clip)."""
    page, picture = summary_page(summary), folder / "confusion.png"
    texts = {"json": to_json(to_dict(summary)), "md": to_markdown(page), "html": to_html(page)}
    paths = {folder / f"summary.{suffix}": text for suffix, text in texts.items()}
    for path, text in paths.items():
        write_text(path, text)
    plot_confusion(summary.confusion(ONE), summary.labels, picture)
    return [*paths, picture]


def print_summary(summary: FoldSummary, console: Console) -> None:
    for table in (fold_table(summary), recall_table(summary), paper_table(summary)):
        console.print(to_rich(table), highlight=False)
