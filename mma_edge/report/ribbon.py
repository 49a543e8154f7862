"""The ribbon of one face on the page: stacked probabilities over time, and strips below them.

Shapes are in milliseconds from the left edge and stretched to the width of the page, so that one drawing serves a
telephone and a wide screen. assets/report/page.js draws the same paths again when the reader zooms.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

import numpy as np

from mma_edge.report.columns import Drawn, furthest_two
from mma_edge.report.palette import BASIS_COLOURS, UNCERTAIN_COLOUR
from mma_edge.report.series import BASES

COLUMNS = 500
"""Of the drawing that the page comes with: two answers in each, about one per pixel of a wide screen."""
HEIGHT = 1000
"""Of a drawing, in its own units."""
_STRIPS = {"both": (0, HEIGHT), "face": (0, HEIGHT // 2), "voice": (HEIGHT // 2, HEIGHT)}
_THIN = (3 * HEIGHT // 8, 5 * HEIGHT // 8)


def ribbon_svg(data: Drawn, colours: Sequence[str], span_ms: int, several: bool) -> str:
    """Three or four drawings: the area, what was chosen, what it rests on, and with several faces who spoke."""
    kept = data[furthest_two(data, 0, span_ms, COLUMNS)]
    areas = zip(area_paths(kept, span_ms), reversed(colours), strict=True)
    # An answer without a class or basis that is drawn leaves its strip empty.
    chosen = [_strip(kept, kept.chosen == k, 0, HEIGHT) for k in range(len(colours))]
    chosen.append(_strip(kept, kept.chosen == len(colours), *_THIN))
    basis = [_strip(kept, kept.basis == BASES.index(name), *_STRIPS[name]) for name in BASIS_COLOURS]
    drawings = [
        _drawing("area", span_ms, areas),
        _drawing("chosen", span_ms, zip(chosen, [*colours, UNCERTAIN_COLOUR], strict=True)),
        _drawing("basis", span_ms, zip(basis, BASIS_COLOURS.values(), strict=True)),
    ]
    if several:
        drawings.append(_drawing("alone", span_ms, [(_strip(kept, kept.alone, 0, HEIGHT), "currentColor")]))
    return "".join(drawings)


def area_paths(data: Drawn, span_ms: int) -> list[str]:
    """One path for each class, from the top of the stack down: each lies over those before it, down to the bottom."""
    total = np.maximum(data.levels.sum(axis=1, dtype=np.int64), 1)
    sums = data.levels.cumsum(axis=1, dtype=np.int64)
    # Rounded half up, as the page's script does it.
    tops = HEIGHT - (2 * HEIGHT * sums + total[:, None]) // (2 * total[:, None])
    firsts = np.flatnonzero(data.begins).tolist()
    runs = list(zip(firsts, [*firsts[1:], len(data.end_ms)], strict=True))
    starts, ends = data.start_ms.tolist(), data.end_ms.tolist()
    paths = []
    for top in reversed(tops.T.tolist()):
        parts = []
        for first, last in runs:
            points = "L".join(f"{ends[i]},{top[i]}" for i in range(first, last))
            parts.append(f"M{starts[first]},{HEIGHT}V{top[first]}L{points}V{HEIGHT}Z")
        paths.append("".join(parts))
    return paths


def _strip(data: Drawn, of: np.ndarray, top: int, bottom: int) -> str:
    """A path of one rectangle for each stretch of answers in the mask `of`."""
    starts, ends = data.start_ms.tolist(), data.end_ms.tolist()
    # An answer that is drawn stands for those left out since the one before it.
    begins = data.begins
    new = of & (begins | ~np.concatenate([[False], of[:-1]]))
    last = of & np.append(begins[1:] | ~of[1:], True)
    parts = []
    for i, k in zip(np.flatnonzero(new).tolist(), np.flatnonzero(last).tolist(), strict=True):
        from_ms = starts[i] if begins[i] else ends[i - 1]
        parts.append(f"M{from_ms},{top}H{ends[k]}V{bottom}H{from_ms}Z")
    return "".join(parts)


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
    }
    return {name: base64.b64encode(np.ascontiguousarray(array).tobytes()).decode() for name, array in arrays.items()}
