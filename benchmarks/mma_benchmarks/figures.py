"""Figures of the pages as SVG text; the only room that imports matplotlib."""

from __future__ import annotations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from mma_trainer.metrics import Metrics
from mma_trainer.plots import draw_confusion
from mma_trainer.report_figures import BLUE, GREEN, ORANGE, STYLE, WIDTH_IN, svg_text

GREY, PALE_BLUE, DARK_BLUE = "#9aa4ae", "#a9c6ea", "#2b5f9e"
CONDITION_COLOURS = {"video and audio": BLUE, "video only": ORANGE, "audio only": GREEN}


def stage_bars(results: dict) -> str:
    """Share of the wall time per stage, one bar each."""
    stages = {**results["stages"], "other": results["other"]}
    names = list(stages)
    shares = [100 * stages[name]["share"] for name in names]
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH_IN, 0.9 + 0.42 * len(names)), layout="constrained")
        bars = axes.barh(names, shares, color=[GREY if name == "other" else BLUE for name in names])
        texts = [
            f"{share:.1f} %   {stages[name]['per_run_ms']:.0f} ms" for name, share in zip(names, shares, strict=True)
        ]
        axes.bar_label(bars, texts, padding=4)
        # Room for the text beside the longest bar.
        axes.set(
            xlabel="share of the clip's wall time (%); beside the bars also in ms per run", xlim=(0, 1.28 * max(shares))
        )
        axes.invert_yaxis()
        _plain(axes, "x")
        return svg_text(figure)


def latency_boxes(rows: dict[str, dict]) -> str:
    """One box per row on a logarithmic axis: p25 to p75, median, whiskers p5 and p95, points p99 and maximum.

    Args:
        rows: label -> summary in milliseconds (`stats.summarise`).
    """
    column = {
        key: np.array([row[key] for row in rows.values()]) for key in ("p5", "p25", "p50", "p75", "p95", "p99", "max")
    }
    heights = np.arange(1, len(rows) + 1)
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH_IN, 0.9 + 0.5 * len(rows)), layout="constrained")
        axes.hlines(heights, column["p5"], column["p95"], color=BLUE, linewidth=1.5, zorder=1)
        axes.scatter([*column["p5"], *column["p95"]], [*heights, *heights], marker="|", s=70, color=BLUE)
        axes.barh(heights, column["p75"] - column["p25"], 0.5, column["p25"], color=PALE_BLUE, edgecolor=BLUE)
        axes.vlines(column["p50"], heights - 0.25, heights + 0.25, color=DARK_BLUE, linewidth=2.5)
        slow = [*column["p99"], *column["max"]]
        axes.scatter(slow, [*heights, *heights], s=18, facecolors="none", edgecolors=ORANGE)
        axes.set_xscale("log")
        axes.set_yticks(heights, list(rows))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        for height, row in enumerate(rows.values(), 1):
            axes.annotate(
                f"p50 {row['p50']:.3g}   p95 {row['p95']:.3g}",
                (1.01, height),
                xycoords=("axes fraction", "data"),
                va="center",
            )
        axes.set_xlabel("ms per call, logarithmic")
        axes.invert_yaxis()
        _plain(axes, "x")
        return svg_text(figure)


def condition_bars(conditions: list[dict]) -> str:
    """UAR and WAR per set and modality condition."""
    labels = [f"{entry['set']}: {entry['condition']}" for entry in conditions]
    places = np.arange(len(conditions))
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH_IN, 1.1 + 0.62 * len(labels)), layout="constrained")
        for offset, key, alpha in ((-0.19, "uar", 1.0), (0.19, "war", 0.5)):
            values = [100 * (entry[key] or 0.0) for entry in conditions]
            colours = [CONDITION_COLOURS.get(entry["condition"], GREY) for entry in conditions]
            bars = axes.barh(places + offset, values, 0.36, color=colours, alpha=alpha)
            axes.bar_label(bars, [f"{key.upper()} {value:.1f}" for value in values], padding=4)
        num_classes = len(conditions[0]["recall"])  # guessing finds 1 in C of every class, also of a rare one
        axes.axvline(100 / num_classes, color="#555", linewidth=1, linestyle="--")
        axes.set_yticks(places, labels)
        axes.set(
            xlabel=f"percent (full colour UAR, pale WAR; dashed: UAR of guessing among {num_classes})", xlim=(0, 112)
        )
        axes.set_xticks(range(0, 101, 20))
        axes.invert_yaxis()
        _plain(axes, "x")
        return svg_text(figure)


def confusion(entry: dict, labels: tuple[str, ...]) -> str:
    """Confusion matrix of one condition, rows normalised."""
    metrics = Metrics(np.array(entry["confusion"]))
    side = 2.6 + 0.45 * len(labels)
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(side + 0.8, side), layout="constrained")
        draw_confusion(axes, metrics, labels, f"{entry['set']}: {entry['condition']} (% of the true class)")
        return svg_text(figure)


def _plain(axes: plt.Axes, grid: str) -> None:
    axes.grid(axis=grid, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
