"""Figures of the grids as SVG text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from mma_benchmarks.figures import GREY
from mma_trainer.report_figures import BLUE, GREEN, ORANGE, STYLE, WIDTH_IN, svg_text

PURPLE = "#8e6bbf"
PRECISION_COLOURS = {"fp32": BLUE, "fp16": GREEN, "bf16": PURPLE, "int8": ORANGE}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LABEL_STEP = 13  # points between the names of points that lie close together


@dataclass(frozen=True)
class Point:
    """One way to run one model: how long a clip takes it and how often it is right (a share)."""

    model: str
    name: str
    precision: str
    ms: float
    share: float


def speed_bars(cells: Sequence[dict]) -> str:
    """Median milliseconds per call, one bar each, the fastest on top; a line to p95, the ratio to eager beside it."""
    cells = sorted(cells, key=lambda cell: cell["call_ms"]["p50"])
    names = [f"{cell['runner']} {cell['precision']}" for cell in cells]
    medians = np.array([cell["call_ms"]["p50"] for cell in cells])
    slow = np.array([cell["call_ms"]["p95"] for cell in cells])
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH_IN, 0.9 + 0.42 * len(cells)), layout="constrained")
        places = np.arange(len(cells))
        colours = [PRECISION_COLOURS.get(cell["precision"], GREY) for cell in cells]
        axes.barh(places, medians, color=colours)
        axes.hlines(places, medians, slow, color="#0a0b0c", linewidth=1)
        for place, cell in zip(places, cells, strict=True):
            text = f"{cell['call_ms']['p50']:.3g} ms"
            text += "" if cell["speedup"] is None else f"   {cell['speedup']:.2f} x eager"
            axes.annotate(text, (slow[place], place), xytext=(6, 0), textcoords="offset points", va="center")
        axes.set_yticks(places, names)
        # Room for the text beside the longest bar.
        axes.set(xlabel="ms per call: bar the median, line to p95; colour by precision", xlim=(0, 1.35 * slow.max()))
        axes.invert_yaxis()
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        return svg_text(figure)


def accuracy_against_latency(points: Sequence[Point], what: str) -> str:
    """Share of right answers over milliseconds per clip (logarithmic): up and to the left is better.

    Args:
        points: one marker per model, one colour per precision. what: what the share is of, for the axis.
    """
    models = list(dict.fromkeys(point.model for point in points))
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(WIDTH_IN, 4.6), layout="constrained")
        shares = 100 * np.array([point.share for point in points])
        for index, model in enumerate(models):
            own = [point for point in points if point.model == model]
            axes.scatter(
                [point.ms for point in own],
                [100 * point.share for point in own],
                marker=MARKERS[index % len(MARKERS)],
                color=[PRECISION_COLOURS.get(point.precision, GREY) for point in own],
                s=60,
                label=model,
            )
        for point, shift in zip(points, _shifts(points), strict=True):
            place = (point.ms, 100 * point.share)
            axes.annotate(point.name, place, xytext=(8, 4 + shift), textcoords="offset points", fontsize=9)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if str(value)[0] in "25" else "")
        room = max(1.0, 0.35 * (shares.max() - shares.min()))
        times = [point.ms for point in points]
        axes.set_xlim(0.8 * min(times), 1.9 * max(times))
        axes.set_ylim(max(0.0, shares.min() - room), min(100.0, shares.max() + room) + 0.01)
        axes.set(xlabel="ms per clip, median, batch 1, logarithmic; colour by precision", ylabel=f"{what}, percent")
        if len(models) > 1:
            axes.legend(loc="lower right")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        return svg_text(figure)


def _shifts(points: Sequence[Point]) -> list[int]:
    """Points upwards for each name, so that names of points at about the same place stand above one another."""
    shifts: list[int] = []
    for index, point in enumerate(points):
        near = [
            shifts[other]
            for other in range(index)
            if abs(np.log(points[other].ms / point.ms)) < 0.35 and abs(points[other].share - point.share) < 0.02
        ]
        shifts.append(max(near) + LABEL_STEP if near else 0)
    return shifts
