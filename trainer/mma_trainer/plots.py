"""Pictures of a run: curves over the epochs and the confusion matrix."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before pyplot: a server has no screen

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from mma_trainer.metrics import Metrics


def plot_curves(rows: list[dict], path: Path) -> None:
    """Loss, UAR and WAR per epoch."""
    epochs = [row["epoch"] for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axes, lines in (
        (left, {"train_loss": "training", "val_loss": "validation"}),
        (right, {"train_war": "training WAR", "val_war": "validation WAR", "val_uar": "validation UAR"}),
    ):
        for key, label in lines.items():
            axes.plot(epochs, [row[key] for row in rows], marker=".", label=label)
    left.set(xlabel="epoch", ylabel="cross-entropy (nats)")
    right.set(xlabel="epoch", ylabel="recall", ylim=(0, 1))
    for axes in (left, right):
        axes.legend()
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_confusion(axes: Axes, metrics: Metrics, labels: tuple[str, ...], title: str) -> None:
    """Row-normalised confusion matrix with the recall in percent in each cell."""
    totals = metrics.confusion.sum(axis=1, keepdims=True)
    share = np.divide(metrics.confusion, totals, out=np.zeros(metrics.confusion.shape), where=totals > 0)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), [f"{label} ({n})" for label, n in zip(labels, totals[:, 0], strict=True)])
    axes.set(xlabel="predicted", ylabel="true (clips)", title=title)
    for row in range(len(labels)):
        for column in range(len(labels)):
            colour = "white" if share[row, column] > 0.6 else "black"
            axes.text(
                column, row, f"{100 * share[row, column]:.0f}", ha="center", va="center", color=colour, fontsize=8
            )


def plot_confusion(metrics: Metrics, labels: tuple[str, ...], path: Path) -> None:
    """The confusion matrix as a picture of its own."""
    side = 2.5 + 0.45 * len(labels)
    figure, axes = plt.subplots(figsize=(side + 1, side), layout="constrained")
    draw_confusion(axes, metrics, labels, f"UAR {100 * metrics.uar:.2f} %   WAR {100 * metrics.war:.2f} %")
    figure.savefig(path, dpi=110)
    plt.close(figure)
