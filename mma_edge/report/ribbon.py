"""The ribbon of one face on the page: stacked probabilities over time, and strips below them.

Shapes are in milliseconds from the left edge and stretched to the width of the page, so that one drawing serves a
telephone and a wide screen. assets/report/page.js draws the same paths again when the reader zooms.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

import numpy as np

from mma_edge.report.columns import Drawn, for_screen
from mma_edge.report.palette import BASIS_COLOURS, UNCERTAIN_COLOUR
from mma_edge.report.series import BASES

COLUMNS = 500
"""Of the drawing that the page comes with: two answers in each, about one per pixel of a wide screen."""
HEIGHT = 1000
"""Of a drawing, in its own units."""
STRIPS = {"both": (0, HEIGHT), "face": (0, HEIGHT // 2), "voice": (HEIGHT // 2, HEIGHT)}
THIN = (3 * HEIGHT // 8, 5 * HEIGHT // 8)


def ribbon_svg(data: Drawn, colours: Sequence[str], span_ms: int, several: bool) -> str:
    """Three or four drawings: the area, what was chosen, what it rests on, and with several faces who spoke."""
    kept = data[for_screen(data, 0, span_ms, COLUMNS)]
    areas = zip(area_paths(kept), reversed(colours), strict=True)
    # An answer without a class or basis that is drawn leaves its strip empty.
    chosen = [_strip(kept, kept.chosen == k, 0, HEIGHT) for k in range(len(colours))]
    chosen.append(_strip(kept, kept.chosen == len(colours), *THIN))
    basis = [_strip(kept, kept.basis == BASES.index(name), *STRIPS[name]) for name in BASIS_COLOURS]
    drawings = [
        _drawing("area", span_ms, areas),
        _drawing("chosen", span_ms, zip(chosen, [*colours, UNCERTAIN_COLOUR], strict=True)),
        _drawing("basis", span_ms, zip(basis, BASIS_COLOURS.values(), strict=True)),
    ]
    if several:
        drawings.append(_drawing("alone", span_ms, [(_strip(kept, kept.alone, 0, HEIGHT), "currentColor")]))
    return "".join(drawings)


def area_paths(data: Drawn) -> list[str]:
    """One path for each class, from the top of the stack down: each lies over those before it, down to the bottom."""
    paths = []
    for areas in stacked_areas(data):
        parts = []
        for times, tops in areas:
            steps = "".join(f"V{y}H{x}" for x, y in zip(times[1::2].tolist(), tops[1::2].tolist(), strict=True))
            parts.append(f"M{times[0]},{HEIGHT}{steps}V{HEIGHT}Z")
        paths.append("".join(parts))
    return paths


def stacked_areas(data: Drawn) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """For each class, from the top of the stack down, its upper edge in each run of answers without a gap.

    An edge is int64 (2 n,) milliseconds and int64 (2 n,) places from 0 (all) to HEIGHT (nothing): from and up to when
    each answer stands, so that the areas change where the labels do.
    """
    total = np.maximum(data.levels.sum(axis=1, dtype=np.int64), 1)
    sums = data.levels.cumsum(axis=1, dtype=np.int64)
    # Rounded half up, as the page's script does it.
    tops = HEIGHT - (2 * HEIGHT * sums + total[:, None]) // (2 * total[:, None])
    firsts = np.flatnonzero(data.begins)
    runs = [np.arange(*edges) for edges in zip(firsts, [*firsts[1:], len(data.end_ms)], strict=True)]
    # A run begins where its first answer does. An answer stands for those left out before it too.
    times = [np.repeat(np.concatenate([data.start_ms[run[:1]], data.end_ms[run]]), 2)[1:-1] for run in runs]
    columns = list(reversed(tops.T))
    return [[(time, np.repeat(top[run], 2)) for time, run in zip(times, runs, strict=True)] for top in columns]


def spans(data: Drawn, of: np.ndarray) -> list[tuple[int, int]]:
    """From and to, in milliseconds, of each stretch of answers in the mask `of`."""
    starts, ends = data.start_ms.tolist(), data.end_ms.tolist()
    begins = data.begins
    firsts = np.flatnonzero(of & (begins | ~np.concatenate([[False], of[:-1]]))).tolist()
    lasts = np.flatnonzero(of & np.append(begins[1:] | ~of[1:], True)).tolist()
    # An answer that is drawn stands for those left out since the one before it.
    return [
        (starts[first] if begins[first] else ends[first - 1], ends[last])
        for first, last in zip(firsts, lasts, strict=True)
    ]


def _strip(data: Drawn, of: np.ndarray, top: int, bottom: int) -> str:
    """A path of one rectangle for each stretch."""
    return "".join(f"M{left},{top}H{right}V{bottom}H{left}Z" for left, right in spans(data, of))


def _drawing(kind: str, span_ms: int, paths: Iterable[tuple[str, str]]) -> str:
    shapes = "".join(f'<path fill="{colour}" d="{path}"/>' for path, colour in paths)
    box = f'viewBox="0 0 {max(span_ms, 1)} {HEIGHT}" preserveAspectRatio="none"'
    return f'<svg class="{kind}" {box} aria-hidden="true">{shapes}</svg>'


def packed(data: Drawn) -> dict[str, object]:
    """The answers for the page's script."""
    arrays = {
        "start": data.start_ms.astype("<u4"),
        "end": data.end_ms.astype("<u4"),
        "levels": data.levels,
        "chosen": data.chosen,
        "basis": data.basis,
        "alone": data.alone.astype(np.uint8),
        "begins": data.begins.astype(np.uint8),
    }
    return {name: base64.b64encode(np.ascontiguousarray(array).tobytes()).decode() for name, array in arrays.items()}
