"""Lays the ribbons of a recording out as a figure: one or two columns of a journal wide, words of 6 to 8 points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mma_edge.report.columns import drawn, for_screen
from mma_edge.report.palette import BASIS_COLOURS, LOSS_COLOUR, MARK_COLOUR, UNCERTAIN_COLOUR, colours, stacked
from mma_edge.report.paper.drawing import INK, SOFT, Area, Drawing, Line, Picture, Words
from mma_edge.report.paper.png import text_width_mm
from mma_edge.report.pictures import Strip, Strips
from mma_edge.report.recording import Recording, SourceRecording
from mma_edge.report.ribbon import HEIGHT, STRIPS, THIN, spans, stacked_areas
from mma_edge.report.series import BASES, Series
from mma_edge.report.tables import clock
from mma_edge.report.timeline import split, tick_step_s
from mma_edge.types import UNCERTAIN

WIDTHS_MM = {1: 88.0, 2: 180.0}
"""By columns. Journals differ by a few millimetres: these fit into those of IEEE, Nature, PLOS and Elsevier."""
LEFT_MM, RIGHT_MM = 9.0, 1.0
MOST_MM = 235.0
"""Height of a page's text."""
MOST_SOURCES, MOST_PANELS = 4, 8
"""So much has room on a page."""
AREA_MM, LEAST_AREA_MM = {1: 14.0, 2: 20.0}, 5.0
STRIP_MM, BASIS_MM, ALONE_MM, PICTURE_MM = 2.0, 1.2, 0.6, {1: 7.0, 2: 9.0}
HEADING_MM, AXIS_MM, BETWEEN_MM, LEGEND_MM = 4.0, 6.0, 2.0, 16.0
PANEL_MM = HEADING_MM + STRIP_MM + BASIS_MM + ALONE_MM + BETWEEN_MM + 2.0
"""Of a ribbon all but its area and its pictures."""
MARK_MM, MARK_ROWS = 3.0, 3
LOSS_MM = 0.6
SMALL, PLAIN = 6.0, 7.0
COLUMNS_PER_MM = 4
GAP_COLOUR = "#E4E7EA"


@dataclass(frozen=True)
class _Scale:
    """Where times of a source lie."""

    source: SourceRecording
    left: float
    width: float

    def x(self, time_s: float) -> float:
        part = (time_s - self.source.from_s) / max(self.source.length_s, 1e-9)
        return self.left + self.width * min(max(part, 0.0), 1.0)

    def of_ms(self, time_ms: float | np.ndarray) -> float | np.ndarray:
        return self.left + self.width * time_ms / max(1000 * self.source.length_s, 1e-6)


def figure_of(recording: Recording, strips: Strips, columns: int) -> tuple[Drawing, int]:
    """Ribbons below each other, those of one source over one axis, and the key; and how many faces had no room.

    Pictures are left out where they have no room either.
    """
    drawing = Drawing(WIDTHS_MM[columns])
    sources = [(number, source) for number, source in enumerate(recording.sources) if source.series][:MOST_SOURCES]
    most = MOST_PANELS // max(len(sources), 1)
    shown = [(number, source, _longest(split(source)[0], most)) for number, source in sources]
    panels = sum(len(many) for *_, many in shown)
    pictured = sum(bool(_strip(strips, number, series).pictures) for number, _, many in shown for series in many)
    room_mm = MOST_MM - LEGEND_MM - len(shown) * (AXIS_MM + MARK_ROWS * MARK_MM + HEADING_MM) - panels * PANEL_MM
    least_mm = panels * LEAST_AREA_MM
    if room_mm - pictured * PICTURE_MM[columns] < least_mm:
        strips, pictured = {}, 0
    area_mm = min(AREA_MM[columns], (room_mm - pictured * PICTURE_MM[columns]) / max(panels, 1))
    y = 1.0
    for number, source, many in shown:
        if len(shown) > 1:
            drawing.add(Words(LEFT_MM, y + 2.6, source.name, PLAIN + 1))
            y += HEADING_MM
        y = _source(drawing, y, source, many, strips.get(number, {}), area_mm, PICTURE_MM[columns])
    drawing.height_mm = _legend(drawing, y, recording) + 1.0
    return drawing, sum(len(source.series) for source in recording.sources) - panels


def _longest(many: Sequence[Series], most: int) -> list[Series]:
    """Those with answers for the longest time, in their order."""
    kept = sorted(many, key=lambda series: -series.answered_s)[:most]
    return [series for series in many if series in kept]


def _strip(strips: Strips, number: int, series: Series) -> Strip:
    return strips.get(number, {}).get(series.track_id, Strip())


def _source(
    drawing: Drawing,
    y: float,
    source: SourceRecording,
    many: Sequence[Series],
    strips: Mapping[int | None, Strip],
    area_mm: float,
    picture_mm: float,
) -> float:
    """The panels of one source from `y` down; returns where they end."""
    scale = _Scale(source, LEFT_MM, drawing.width_mm - LEFT_MM - RIGHT_MM)
    several = any(series.alone.any() for series in source.series)
    y = _mark_texts(drawing, y, scale)
    edges = []  # of the panels, for the lines of the marks
    for series in many:
        drawing.add(Words(LEFT_MM, y + 2.8, series.name, PLAIN))
        y += HEADING_MM
        start = y
        y = _panel(drawing, y, scale, series, several, area_mm)
        edges.append((start, y))
        y = _pictures(drawing, y, scale, strips.get(series.track_id, Strip()), picture_mm) + BETWEEN_MM
    for mark in source.marks:
        x = scale.x(mark.time_s)
        drawing.add(*(Line(x, start, x, stop, MARK_COLOUR, 0.25, (0.8, 0.6)) for start, stop in edges))
    return _axis(drawing, y - BETWEEN_MM, scale)


def _panel(
    drawing: Drawing,
    y: float,
    scale: _Scale,
    series: Series,
    several: bool,
    area_mm: float,
) -> float:
    source, right = scale.source, scale.left + scale.width
    drawing.rectangles(_losses(scale, "gap", y, y + area_mm), GAP_COLOUR)
    labels = stacked(series.labels)
    order = [series.labels.index(label) for label in labels]
    fills = [colours(series.labels)[label] for label in labels]
    whole = drawn(series, order, source.from_s)
    span_ms = max(round(1000 * source.length_s), 1)
    kept = whole[for_screen(whole, 0, span_ms, round(scale.width * COLUMNS_PER_MM))]
    for areas, colour in zip(stacked_areas(kept), reversed(fills), strict=True):
        polygons = []
        for times_ms, tops in areas:
            x, up = scale.of_ms(times_ms), y + area_mm * tops / HEIGHT
            edge = np.column_stack([x, up])
            polygons.append(np.concatenate([[(x[0], y + area_mm)], edge, [(x[-1], y + area_mm)]]))
        drawing.add(Area(polygons, colour))
    drawing.rectangles(_losses(scale, "drop", y, y + LOSS_MM), LOSS_COLOUR)
    for part, text in ((0.0, "100 %"), (0.5, "50"), (1.0, "0")):
        drawing.add(Line(scale.left - 0.8, y + area_mm * part, scale.left, y + area_mm * part))
        drawing.add(Words(scale.left - 1.2, y + area_mm * part + 0.75, text, SMALL, "end", SOFT))
    drawing.add(Line(scale.left, y, scale.left, y + area_mm), Line(scale.left, y + area_mm, right, y + area_mm))
    y += area_mm + 0.5
    for state, colour in enumerate(fills):
        drawing.rectangles(_boxes(scale, spans(kept, kept.chosen == state), y, y + STRIP_MM), colour)
    thin = [y + STRIP_MM * edge / HEIGHT for edge in THIN]
    drawing.rectangles(_boxes(scale, spans(kept, kept.chosen == len(fills)), *thin), UNCERTAIN_COLOUR)
    y += STRIP_MM + 0.4
    for name, colour in BASIS_COLOURS.items():
        low, high = (y + BASIS_MM * edge / HEIGHT for edge in STRIPS[name])
        drawing.rectangles(_boxes(scale, spans(kept, kept.basis == BASES.index(name)), low, high), colour)
    y += BASIS_MM
    if several and series.track_id is not None:
        drawing.rectangles(_boxes(scale, spans(kept, kept.alone), y + 0.3, y + 0.3 + ALONE_MM), INK)
        y += 0.3 + ALONE_MM
    return y


def _losses(scale: _Scale, kind: str, top: float, bottom: float) -> list[tuple[float, float, float, float]]:
    """Boxes of the source's events of a kind that have a place."""
    found = [each for each in scale.source.events if each.kind == kind and None not in (each.start_s, each.end_s)]
    return [(scale.x(each.start_s), top, scale.x(each.end_s), bottom) for each in found]


def _boxes(scale: _Scale, times_ms: Sequence[tuple[int, int]], top: float, bottom: float) -> list[tuple]:
    return [(scale.of_ms(start), top, scale.of_ms(stop), bottom) for start, stop in times_ms]


def _pictures(drawing: Drawing, y: float, scale: _Scale, strip: Strip, picture_mm: float) -> float:
    """As many as have room side by side."""
    if not strip.pictures:
        return y
    width, free = picture_mm * strip.aspect, scale.left
    for picture in strip.pictures:
        x = min(max(scale.x(picture.time_s) - width / 2, scale.left), scale.left + scale.width - width)
        if x >= free:
            drawing.add(Picture(x, y + 0.6, width, picture_mm, picture.jpeg))
            free = x + width + 0.6
    return y + 0.6 + picture_mm


def _mark_texts(drawing: Drawing, y: float, scale: _Scale) -> float:
    """The marks' texts in up to three rows; one that has no room in any is left out, its line in the ribbons stays."""
    rows: list[list[tuple[float, float]]] = []  # from and to of the texts in each
    lines = []
    for mark in scale.source.marks:
        text, at = mark.text or mark.key or "", scale.x(mark.time_s)
        width = text_width_mm(text, SMALL)
        x = min(at + 0.5, drawing.width_mm - width)
        row = next((number for number, texts in enumerate(rows) if texts[-1][1] < x), len(rows))
        if not text or row == MARK_ROWS:
            continue
        if row == len(rows):
            rows.append([])
        rows[row].append((x - 0.5, x + width + 0.5))
        lines.append((at, row))
        drawing.add(Words(x, y + 2.2 + row * MARK_MM, text, SMALL, "start", MARK_COLOUR))
    for at, first in lines:
        # Down to the ribbon, but through no other text.
        for row in range(first, len(rows)):
            if row == first or not any(start <= at <= stop for start, stop in rows[row]):
                drawing.add(Line(at, y + row * MARK_MM, at, y + (row + 1) * MARK_MM, MARK_COLOUR, 0.15))
    return y + len(rows) * MARK_MM


def _axis(drawing: Drawing, y: float, scale: _Scale) -> float:
    source = scale.source
    step_s = tick_step_s(source.length_s, 5 if scale.width < 100 else 10)
    drawing.add(Line(scale.left, y + 0.6, scale.left + scale.width, y + 0.6))
    unit = "h:min:s" if source.to_s >= 3600 else "min:s"
    drawing.add(Words(scale.left - 2.4, y + 4.0, unit, SMALL, "end", SOFT))
    for number in range(int(-(-source.from_s // step_s)), int(source.to_s // step_s) + 1):
        x = scale.x(number * step_s)
        drawing.add(Line(x, y + 0.6, x, y + 1.4))
        anchor = "end" if x + 4 > drawing.width_mm else "middle"
        drawing.add(Words(x, y + 4.0, clock(number * step_s, step_s < 1), SMALL, anchor, SOFT))
    return y + AXIS_MM


def _legend(drawing: Drawing, y: float, recording: Recording) -> float:
    """Colour and name of everything, in as many rows as it takes."""
    chosen = colours(recording.labels)
    several = any(series.alone.any() for source in recording.sources for series in source.series)
    x, y = LEFT_MM, y + 1.0
    entries = [(chosen[label], label, (0.0, 1.0)) for label in reversed(stacked(recording.labels))]
    edges = {name: (low / HEIGHT, high / HEIGHT) for name, (low, high) in {**STRIPS, UNCERTAIN: THIN}.items()}
    entries.append((UNCERTAIN_COLOUR, UNCERTAIN, edges[UNCERTAIN]))
    texts = {"both": "face and voice", "face": "face alone", "voice": "voice alone"}
    entries += [(BASIS_COLOURS[name], text, edges[name]) for name, text in texts.items()]
    entries += [(INK, "speaks", (0.35, 0.65))] if several else []
    for colour, text, (low, high) in entries:
        width = 3.2 + text_width_mm(text, PLAIN)
        if x + width > drawing.width_mm - RIGHT_MM and x > LEFT_MM:
            x, y = LEFT_MM, y + 3.6
        drawing.rectangles([(x, y + 2.2 * low, x + 2.2, y + 2.2 * high)], colour)
        drawing.add(Words(x + 3.0, y + 2.1, text, PLAIN))
        x += width + 2.0
    return y + 3.0
