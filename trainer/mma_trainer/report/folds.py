"""What the folds of a data set give together: mean and spread, beside the paper, as tables and as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from mma_edge.errors import OutputError
from mma_edge.files import to_json, write_text
from mma_trainer.evaluation.metrics import Metrics, finite
from mma_trainer.report.figures import plot_confusion
from mma_trainer.report.page import Block, Heading, Matrix, Page, Table, Text, Tiles, to_html, to_markdown, to_rich
from mma_trainer.report.paper import PUBLISHED

ONE, TWO = "one clip", "mean of two clips"
PICTURE = "confusion.png"


@dataclass(frozen=True, eq=False)
class FoldSummary:
    """Metrics of every fold, in order.

    Attributes:
        dataset: "dfew", "mafw" or "prepared". labels: class names.
        one_clip, two_clips: per fold, with one clip of each video and with the mean of two.
        options: what they were trained with.
    """

    dataset: str
    labels: tuple[str, ...]
    one_clip: Sequence[Metrics]
    two_clips: Sequence[Metrics]
    options: dict

    @property
    def protocols(self) -> dict[str, Sequence[Metrics]]:
        return {ONE: self.one_clip, TWO: self.two_clips}

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
            mean, deviation = spread([getattr(metrics, key) for metrics in folds])
            entry |= {f"{key}_mean": finite(mean), f"{key}_deviation": finite(deviation)}
        protocols[name.replace(" ", "_")] = entry
    published = [vars(row) for row in PUBLISHED.get(summary.dataset, ())]
    labels = list(summary.labels)
    return {
        "dataset": summary.dataset,
        "labels": labels,
        **protocols,
        "published_percent": published,
        "options": summary.options,
    }


def fold_table(summary: FoldSummary) -> Table:
    """UAR and WAR per fold, their mean and spread."""
    header = ("fold", "test clips", *(f"{key}, {name}" for name in summary.protocols for key in ("UAR", "WAR")))
    columns = [[getattr(m, key) for m in folds] for folds in summary.protocols.values() for key in ("uar", "war")]
    rows = [
        (str(index + 1), f"{metrics.num_clips:,}", *(_percent(column[index]) for column in columns))
        for index, metrics in enumerate(summary.one_clip)
    ]
    spreads = [spread(column) for column in columns]
    total = f"{sum(metrics.num_clips for metrics in summary.one_clip):,}"
    rows.append(("mean", total, *(_percent(mean) for mean, _ in spreads)))
    rows.append(("deviation", "", *(_percent(deviation) for _, deviation in spreads)))
    return Table("Per fold, percent; deviation: standard deviation between the folds", header, rows)


def recall_table(summary: FoldSummary) -> Table:
    """Recall of every class, mean over the folds, and per fold with one clip."""
    folds = [f"fold {index}" for index in range(1, len(summary.one_clip) + 1)]
    ones, twos = (np.array([m.recall for m in folds_]) for folds_ in (summary.one_clip, summary.two_clips))
    rows = [
        (
            label,
            _percent(spread(ones[:, place])[0]),
            _percent(spread(twos[:, place])[0]),
            *(_percent(value) for value in ones[:, place]),
        )
        for place, label in enumerate(summary.labels)
    ]
    return Table("Recall per class, percent", ("class", f"mean, {ONE}", f"mean, {TWO}", *folds), rows)


def paper_table(summary: FoldSummary) -> Table:
    """This run beside what is published for the data set, percent."""
    rows = [(row.method, row.modalities, f"{row.uar:.2f}", f"{row.war:.2f}", row.source) for row in _published(summary)]
    for name, folds in summary.protocols.items():
        means = (_percent(spread([getattr(metrics, key) for metrics in folds])[0]) for key in ("uar", "war"))
        rows.append((f"this run, {name}", "", *means, f"mean of {len(folds)} folds"))
    return Table("Beside published figures, percent", ("method", "modalities", "UAR", "WAR", "source"), rows, (1, 4))


def _published(summary: FoldSummary) -> tuple:
    return PUBLISHED.get(summary.dataset, ())


def summary_page(summary: FoldSummary) -> Page:
    count = len(summary.one_clip)
    tiles = []
    for name, folds in summary.protocols.items():
        for key in ("uar", "war"):
            mean, deviation = spread([getattr(metrics, key) for metrics in folds])
            between = f"± {_percent(deviation)} between folds"
            tiles.append((f"{key.upper()}, {name}", f"{_percent(mean)} %", between))
    blocks: list[Block] = [
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
    ]
    for name in summary.protocols:
        counts = summary.confusion(name).confusion.tolist()
        blocks.append(Matrix(f"{name}: rows true, percent of the row, below it clips", summary.labels, counts))
    options = [(key.replace("_", " "), str(value)) for key, value in summary.options.items() if value is not None]
    blocks += [
        Heading("Options"),
        Table("As given; the recipe's defaults are the paper's", ("", "value"), options, (1,)),
    ]
    return Page(f"{summary.dataset.upper()}, {count} folds", blocks)


def write_summary(summary: FoldSummary, folder: Path) -> list[Path]:
    """summary.json, .md and .html, and the summed confusion matrix as a picture (one clip)."""
    page = summary_page(summary)
    texts = {".json": to_json(to_dict(summary)), ".md": to_markdown(page), ".html": to_html(page)}
    paths = [folder / f"summary{suffix}" for suffix in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_text(path, text)
    picture = folder / PICTURE
    try:
        plot_confusion(summary.confusion(ONE), summary.labels, picture)
    except OSError as error:
        raise OutputError(f"cannot write {picture}: {error.strerror}", hint="choose another --run") from error
    return [*paths, picture]


def print_summary(summary: FoldSummary, console: Console) -> None:
    for table in (fold_table(summary), recall_table(summary), paper_table(summary)):
        console.print(to_rich(table), highlight=False)


def _percent(value: float) -> str:
    return f"{100 * value:.2f}" if np.isfinite(value) else "-"
