"""Figures in one style: SVG text that takes the ink of the page around it, in light and dark, and PNG files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before pyplot: a server has no screen

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mma_edge.errors import OutputError
from mma_edge.files import replaced
from mma_trainer.evaluation.calibration import Bin
from mma_trainer.evaluation.metrics import Metrics

BLUE, ORANGE, GREEN = "#4a8bd3", "#d9822b", "#3fa06b"
INK = "#0a0b0c"  # replaced by the page's own ink in an SVG
WIDTH_IN = 9.0
# Glyphs as outlines: the reader's machine need not have our font. A fixed salt: the same figures, the same file.
STYLE = {
    "svg.fonttype": "path",
    "svg.hashsalt": "mma-trainer",
    "font.size": 10,
    "axes.axisbelow": True,
    "savefig.transparent": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color", "grid.color"), INK),
}
# (label, colour, axes: loss on the left, shares on the right) of the columns of a log
LINES = {
    "train_loss": ("training", BLUE, 0),
    "val_loss": ("validation", ORANGE, 0),
    "train_war": ("training WAR", BLUE, 1),
    "val_war": ("validation WAR", ORANGE, 1),
    "val_uar": ("validation UAR", GREEN, 1),
}


@matplotlib.rc_context(STYLE)
def training_curves(columns: Mapping[str, Sequence[float]]) -> str:
    """Loss on the left; UAR and WAR in percent on the right, over the column "epoch"; absent columns are not drawn."""
    return svg_text(_curves(columns))


@matplotlib.rc_context(STYLE)
def plot_curves(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """The training curves of a run's log as a picture; OutputError where it cannot be written."""
    _write_png(_curves({key: [row[key] for row in rows] for key in ("epoch", *LINES)}), path)


def _curves(columns: Mapping[str, Sequence[float]]) -> Figure:
    epochs = columns["epoch"]
    figure, both = plt.subplots(1, 2, figsize=(WIDTH_IN, 3.4), layout="constrained")
    for key, (label, colour, side) in LINES.items():
        if key in columns:
            values = [(1, 100)[side] * value for value in columns[key]]
            both[side].plot(epochs, values, color=colour, label=label, marker="o" if len(epochs) < 40 else "", ms=3)
    for axes in both:
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        if axes.lines:
            axes.legend()
        _plain(axes)
    both[0].set_ylabel("cross-entropy, nats")
    both[1].set(ylabel="percent", ylim=(0, 100))
    return figure


@matplotlib.rc_context(STYLE)
def reliability_diagram(bins: Sequence[Bin]) -> str:
    """Accuracy against confidence, the area of a dot its share of the answers; the diagonal is honest."""
    figure, axes = _right_answers("stated confidence, percent")
    axes.plot([0, 100], [0, 100], color=INK, linewidth=1, linestyle="--", alpha=0.6)
    confidence, accuracy = ([100 * getattr(b, key) for b in bins] for key in ("confidence", "accuracy"))
    axes.plot(confidence, accuracy, color=BLUE, linewidth=1.2)
    axes.scatter(confidence, accuracy, s=[8 + 400 * b.share for b in bins], color=BLUE, alpha=0.7, linewidths=0)
    return svg_text(figure)


@matplotlib.rc_context(STYLE)
def abstention_curve(curve: Sequence[dict]) -> str:
    """Accuracy of the answers given, against the share of clips that get one."""
    figure, axes = _right_answers("clips answered, percent")
    axes.plot(*([100 * row[key] for row in curve] for key in ("coverage", "accuracy")), color=BLUE)
    return svg_text(figure)


def _right_answers(xlabel: str) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(4.6, 3.4), layout="constrained")
    axes.set(xlabel=xlabel, ylabel="right answers, percent", xlim=(0, 103), ylim=(0, 103))
    _plain(axes)
    return figure, axes


@matplotlib.rc_context(STYLE)
def difference_bars(names: Sequence[str], clean: float, values: Sequence[float]) -> str:
    """UAR of each condition in percent; the dashed line is the clean one."""
    figure, axes = plt.subplots(figsize=(WIDTH_IN, 0.8 + 0.3 * len(names)), layout="constrained")
    bars = axes.barh(list(names), [100 * value for value in values], color=BLUE, height=0.68)
    axes.bar_label(bars, [f"{100 * v:.1f} ({100 * (v - clean):+.1f})" for v in values], padding=4, fontsize=9)
    axes.axvline(100 * clean, color=ORANGE, linestyle="--", linewidth=1.2, zorder=0)
    axes.set(xlabel="UAR, percent (difference to clean)", xlim=(0, max(100 * max(values) * 1.22, 1)))
    axes.invert_yaxis()
    _plain(axes)
    axes.grid(visible=False, axis="y")
    return svg_text(figure)


@matplotlib.rc_context(STYLE)
def plot_confusion(metrics: Metrics, labels: tuple[str, ...], path: Path) -> None:
    """The confusion matrix as a picture of its own; OutputError where it cannot be written."""
    side = 2.5 + 0.45 * len(labels)
    figure, axes = plt.subplots(figsize=(side + 1, side), layout="constrained")
    draw_confusion(axes, metrics, labels, f"UAR {100 * metrics.uar:.2f} %   WAR {100 * metrics.war:.2f} %")
    _write_png(figure, path)


def draw_confusion(axes: Axes, metrics: Metrics, labels: tuple[str, ...], title: str) -> None:
    """Row-normalised confusion matrix with the recall in percent in each cell."""
    totals = metrics.confusion.sum(axis=1, keepdims=True)
    share = np.divide(metrics.confusion, totals, out=np.zeros(metrics.confusion.shape), where=totals > 0)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), [f"{label} ({n})" for label, n in zip(labels, totals[:, 0], strict=True)])
    axes.set(xlabel="predicted", ylabel="true (clips)", title=title)
    for (row, column), value in np.ndenumerate(share):
        colour = "white" if value > 0.6 else "black"
        axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", color=colour, fontsize=8)


def _plain(axes: Axes) -> None:
    axes.grid(alpha=0.15)
    axes.spines[["top", "right"]].set_visible(False)


def svg_text(figure: Figure) -> str:
    """The figure's <svg> element, without prolog and metadata: these name addresses of the web."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :].strip().replace(INK, "currentColor")


def _write_png(figure: Figure, path: Path) -> None:
    try:
        with replaced(path) as aside:
            figure.savefig(aside, format="png", dpi=110, transparent=False, facecolor="white")
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", hint="choose another folder") from error
    finally:
        plt.close(figure)
