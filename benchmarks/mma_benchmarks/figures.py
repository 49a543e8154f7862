"""Figures of the pages as SVG text; the only module of the benchmarks that imports matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from mma_benchmarks.schema import Condition, GridCell, Part, Summary
from mma_benchmarks.soak.schema import SoakSample
from mma_trainer.evaluation.metrics import Metrics
from mma_trainer.report.figures import BLUE, GREEN, ORANGE, STYLE, WIDTH_IN, draw_confusion, svg_text

GREY, PALE_BLUE, DARK_BLUE, PURPLE = "#9aa4ae", "#a9c6ea", "#2b5f9e", "#8e6bbf"
CONDITION_COLOURS = {"video and audio": BLUE, "video only": ORANGE, "audio only": GREEN}
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


@matplotlib.rc_context(STYLE)
def stage_bars(parts: Mapping[str, Part]) -> str:
    """Share of the wall time per stage, one bar each; "other" is what is left."""
    names, shares = list(parts), [100 * part.share for part in parts.values()]
    axes = _axes(0.9 + 0.42 * len(names))
    bars = axes.barh(names, shares, color=[GREY if name == "other" else BLUE for name in names])
    texts = [f"{100 * part.share:.1f} %   {part.per_run_ms:.0f} ms" for part in parts.values()]
    axes.bar_label(bars, texts, padding=4)
    axes.set_xlabel("share of the clip's wall time (%); beside the bars also in ms per run")
    axes.set_xlim(0, 1.28 * max(shares))  # room for the text beside the longest bar
    return _svg(axes)


@matplotlib.rc_context(STYLE)
def latency_boxes(rows: Mapping[str, Summary]) -> str:
    """One box per label, ms on a logarithmic axis: p25 to p75, median, whiskers p5 and p95, points p99 and maximum."""
    p5, p25, p50, p75, p95, p99, slowest = (
        np.array([getattr(row, key) for row in rows.values()])
        for key in ("p5", "p25", "p50", "p75", "p95", "p99", "max")
    )
    heights = np.arange(1, len(rows) + 1)
    axes = _axes(0.9 + 0.5 * len(rows))
    axes.hlines(heights, p5, p95, color=BLUE, linewidth=1.5, zorder=1)
    axes.scatter([*p5, *p95], [*heights, *heights], marker="|", s=70, color=BLUE)
    axes.barh(heights, p75 - p25, 0.5, p25, color=PALE_BLUE, edgecolor=BLUE)
    axes.vlines(p50, heights - 0.25, heights + 0.25, color=DARK_BLUE, linewidth=2.5)
    axes.scatter([*p99, *slowest], [*heights, *heights], s=18, facecolors="none", edgecolors=ORANGE)
    axes.set_xscale("log")
    axes.set_yticks(heights, list(rows))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for height, row in zip(heights, rows.values(), strict=True):
        text, place = f"p50 {row.p50:.3g}   p95 {row.p95:.3g}", ("axes fraction", "data")
        axes.annotate(text, (1.01, height), xycoords=place, va="center")
    axes.set_xlabel("ms per call, logarithmic")
    return _svg(axes)


@matplotlib.rc_context(STYLE)
def condition_bars(conditions: Sequence[Condition]) -> str:
    """UAR and WAR per set and modality condition."""
    places = np.arange(len(conditions))
    axes = _axes(1.1 + 0.62 * len(conditions))
    colours = [CONDITION_COLOURS.get(entry.condition, GREY) for entry in conditions]
    for offset, key, alpha in ((-0.19, "uar", 1.0), (0.19, "war", 0.5)):
        values = [100 * (getattr(entry, key) or 0.0) for entry in conditions]
        bars = axes.barh(places + offset, values, 0.36, color=colours, alpha=alpha)
        axes.bar_label(bars, [f"{key.upper()} {value:.1f}" for value in values], padding=4)
    num_classes = len(conditions[0].recall)  # guessing finds 1 in C of every class, also of a rare one
    axes.axvline(100 / num_classes, color="#555", linewidth=1, linestyle="--")
    axes.set_yticks(places, [entry.name for entry in conditions])
    axes.set(xlabel=f"percent (full colour UAR, pale WAR; dashed: UAR of guessing among {num_classes})", xlim=(0, 112))
    axes.set_xticks(range(0, 101, 20))
    return _svg(axes)


@matplotlib.rc_context(STYLE)
def confusion(entry: Condition, labels: Sequence[str]) -> str:
    """Confusion matrix of one condition, rows normalised."""
    side = 2.6 + 0.45 * len(labels)
    figure, axes = plt.subplots(figsize=(side + 0.8, side), layout="constrained")
    draw_confusion(axes, Metrics(np.array(entry.confusion)), tuple(labels), f"{entry.name} (% of the true class)")
    return svg_text(figure)


@matplotlib.rc_context(STYLE)
def speed_bars(cells: Sequence[GridCell]) -> str:
    """Median milliseconds per call, one bar each, the fastest on top; a line to p95, the ratio to eager beside it."""
    cells = sorted(cells, key=lambda cell: cell.call_ms.p50)
    medians, slow = np.array([(cell.call_ms.p50, cell.call_ms.p95) for cell in cells]).T
    axes = _axes(0.9 + 0.42 * len(cells))
    places = np.arange(len(cells))
    axes.barh(places, medians, color=[PRECISION_COLOURS.get(cell.precision, GREY) for cell in cells])
    axes.hlines(places, medians, slow, color="#0a0b0c", linewidth=1)
    for place, cell in zip(places, cells, strict=True):
        text = f"{cell.call_ms.p50:.3g} ms" + ("" if cell.speedup is None else f"   {cell.speedup:.2f} x eager")
        axes.annotate(text, (slow[place], place), xytext=(6, 0), textcoords="offset points", va="center")
    axes.set_yticks(places, [f"{cell.runner} {cell.precision}" for cell in cells])
    # Room for the text beside the longest bar.
    axes.set(xlabel="ms per call: bar the median, line to p95; colour by precision", xlim=(0, 1.35 * slow.max()))
    return _svg(axes)


@matplotlib.rc_context(STYLE)
def accuracy_against_latency(points: Sequence[Point], what: str) -> str:
    """Share of right answers (of `what`) over milliseconds per clip (logarithmic): up and to the left is better.

    One marker per model, one colour per precision.
    """
    models = list(dict.fromkeys(point.model for point in points))
    axes = _axes(4.6)
    shares = 100 * np.array([point.share for point in points])
    for model, marker in zip(models, cycle(MARKERS), strict=False):
        own = [point for point in points if point.model == model]
        places = [point.ms for point in own], [100 * point.share for point in own]
        colours = [PRECISION_COLOURS.get(point.precision, GREY) for point in own]
        axes.scatter(*places, marker=marker, color=colours, s=60, label=model)
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
    return _svg(axes, "both")


@matplotlib.rc_context(STYLE)
def soak_curves(samples: Sequence[SoakSample]) -> str:
    """Memory in MiB, left, and the age's 95th percentile in ms, right, over the minutes."""
    minutes = [sample.at_s / 60 for sample in samples]
    axes = _axes(3.0)
    axes.plot(minutes, [sample.memory_mib for sample in samples], color=BLUE)
    axes.set(xlabel="minutes", ylabel="memory, MiB (blue)")
    ages = axes.twinx()
    ages.plot(minutes, [np.nan if s.age_p95_ms is None else s.age_p95_ms for s in samples], color=ORANGE)
    ages.set_ylabel("age p95, ms (orange)")
    ages.set_ylim(bottom=0)
    ages.spines[["top"]].set_visible(False)
    return _svg(axes, "y")


def _axes(height_in: float) -> plt.Axes:
    """Of the page's width."""
    return plt.subplots(figsize=(WIDTH_IN, height_in), layout="constrained")[1]


def _svg(axes: plt.Axes, grid: str = "x") -> str:
    """The finished figure; with grid lines along x alone its bars run from top to bottom."""
    if grid == "x":
        axes.invert_yaxis()
    axes.grid(axis=grid, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return svg_text(axes.figure)


def _shifts(points: Sequence[Point]) -> list[int]:
    """Points upwards for each name, so that names of points at about the same place stand above one another."""
    shifts: list[int] = []
    for point in points:
        near = [
            shift
            for other, shift in zip(points, shifts, strict=False)
            if abs(np.log(other.ms / point.ms)) < 0.35 and abs(other.share - point.share) < 0.02
        ]
        shifts.append(max(near, default=-LABEL_STEP) + LABEL_STEP)
    return shifts
