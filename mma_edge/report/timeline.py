"""The time lines of one source on the page: marks, losses, a ribbon for each face, and the short faces together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mma_edge.report.columns import Drawn, drawn, for_screen
from mma_edge.report.figures import dwells, stretches
from mma_edge.report.palette import colours, stacked
from mma_edge.report.pictures import Strip
from mma_edge.report.recording import Event, SourceRecording
from mma_edge.report.ribbon import packed, ribbon_svg
from mma_edge.report.series import Series
from mma_edge.report.tables import clock, share, swatch

MOST_RIBBONS, FEW_FACES, SHORT_SHARE = 8, 3, 0.03
"""Faces of a source with a ribbon of their own: FEW_FACES, and up to MOST_RIBBONS of those that were there for longer
than SHORT_SHARE of the time. The others share one."""
MOST_ANSWERS = 150_000
"""Of all ribbons together that the page holds; of more, those are kept that `for_screen` keeps."""
MOST_BANDS, MOST_MARKS, MARK_ROWS = 400, 300, 3
STATIC_PICTURES = 12
"""Pictures side by side before the page's script has seen how wide it is."""
_TICKS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)


def split(source: SourceRecording) -> tuple[list[Series], list[Series]]:
    """Those with a ribbon of their own, by their number, and those that share one."""
    faces = sorted((s for s in source.series if s.track_id is not None), key=lambda s: -s.answered_s)
    long = sum(s.answered_s >= SHORT_SHARE * source.length_s for s in faces)
    count = min(max(long, FEW_FACES), MOST_RIBBONS)
    return [s for s in source.series if s.track_id is None or s in faces[:count]], faces[count:]


def mostly(series: Series) -> tuple[str, float]:
    """The label held longest, and for which share of the answered time."""
    most = max(dwells([series]), key=lambda dwell: dwell.total_s)
    return most.label, most.total_s / max(series.answered_s, 1e-9)


def timelines(
    number: int, source: SourceRecording, labels: Sequence[str], strips: Mapping[int | None, Strip], most_answers: int
) -> tuple[str, dict[str, Any]]:
    """HTML of one source's time lines, and what the page's script needs to draw and to read them."""
    order = [list(labels).index(label) for label in stacked(labels)]
    chosen = colours(labels)
    fills = [chosen[label] for label in stacked(labels)]
    several = any(series.alone.any() for series in source.series)
    span_ms = max(round(1000 * source.length_s), 1)
    own, short = split(source)
    parts, data = [], []
    for series in own:
        whole = drawn(series, order, source.from_s)
        kept = _fitting(whole, span_ms, most_answers // max(len(own), 1))
        svg = ribbon_svg(kept, fills, span_ms, several and series.track_id is not None)
        parts.append(_figure(number, len(data), source, series, svg, strips.get(series.track_id, Strip())))
        data.append({"name": series.name, "few": len(kept.end_ms) < len(whole.end_ms), **packed(kept)})
    if short:
        parts.append(_short_faces(source, short, chosen))
    lanes = _marks(source) + "".join(parts)
    style = f"--from:0;--span:{span_ms}"
    html = f'{_toolbar(number, source)}<div class="timeline" data-source="{number}" style="{style}">{lanes}</div>'
    return html, {"from": source.from_s, "span": span_ms, "series": data, "told": _told(source)}


def _told(source: SourceRecording) -> list[tuple[int, int, str]]:
    """From, to and text of what is said where the reader points at it."""
    bands = [event for event in source.events if event.start_s is not None][:MOST_BANDS]
    told = [(event.start_s, event.start_s if event.end_s is None else event.end_s, event.text) for event in bands]
    told += [(mark.time_s, mark.time_s, mark.text or mark.key or "mark") for mark in source.marks[:MOST_MARKS]]
    return [(*(round(1000 * (value - source.from_s)) for value in times), text) for *times, text in told]


def _fitting(data: Drawn, span_ms: int, most: int) -> Drawn:
    return data if len(data.end_ms) <= most else data[for_screen(data, 0, span_ms, most // 2)]


def _toolbar(number: int, source: SourceRecording) -> str:
    buttons = "".join(
        f'<button type="button" data-zoom="{what}" aria-label="{name}" title="{name}">{sign}</button>'
        for what, sign, name in (
            ("in", "+", "Zoom in"),
            ("out", "&minus;", "Zoom out"),
            ("back", "&lsaquo;", "Earlier"),
            ("on", "&rsaquo;", "Later"),
            ("all", "All", "The whole time"),
        )
    )
    return (
        f'<div class="toolbar" role="group" aria-label="Time shown of {escape(source.name)}" data-source="{number}">'
        f"{buttons}<output></output></div>"
    )


def _figure(number: int, index: int, source: SourceRecording, series: Series, svg: str, strip: Strip) -> str:
    label, part = mostly(series)
    tint = colours(series.labels)[label]
    facts = (
        f"{clock(float(series.held_from_s[0]))} to {clock(float(series.held_to_s[-1]))}, {len(series.end_s):,} answers"
    )
    words = f"{series.name}: probabilities over time. Mostly {label}."
    limits = (
        f'aria-valuemin="{source.from_s:.1f}" aria-valuemax="{source.to_s:.1f}" aria-valuenow="{source.from_s:.1f}"'
    )
    return (
        f'<figure class="ribbon"><figcaption><b>{escape(series.name)}</b> <span class="soft">{facts}, mostly</span> '
        f'{swatch(tint, label)} <span class="soft">{100 * part:.0f} %</span></figcaption>'
        f'<div class="plot" tabindex="0" role="slider" aria-label="{escape(words)}" {limits} aria-valuetext="" '
        f'data-source="{number}" data-series="{index}">{svg}{_over(source)}</div>'
        f"{_pictures(source, strip)}{_axis(source)}</figure>"
    )


def _at(time_s: float, source: SourceRecording) -> str:
    """Where a time is, for the style sheet."""
    return f"--t:{round(1000 * (time_s - source.from_s))}"


def _over(source: SourceRecording) -> str:
    """What lies over a ribbon: gaps and losses, marks."""
    bands = [event for event in source.events if event.start_s is not None and event.kind in ("gap", "drop", "jump")]
    lines = [f'<i class="mark" style="{_at(mark.time_s, source)}"></i>' for mark in source.marks[:MOST_MARKS]]
    return "".join([*(_band(event, source) for event in bands[:MOST_BANDS]), *lines])


def _band(event: Event, source: SourceRecording) -> str:
    start_s = max(event.start_s, source.from_s)
    end_s = min(max(event.start_s if event.end_s is None else event.end_s, start_s), max(source.to_s, start_s))
    place = f"{_at(start_s, source)};--d:{round(1000 * (end_s - start_s))}"
    kind = "drop" if event.kind == "drop" else "gap"
    return f'<i class="band {kind}" style="{place}"></i>'


def _marks(source: SourceRecording) -> str:
    """The marks' texts in a lane of their own, in rows so that neighbours have room."""
    marks = source.marks[:MOST_MARKS]
    if not marks:
        return ""
    rows = min(MARK_ROWS, len(marks))
    flags = []
    for number, mark in enumerate(marks):
        after = marks[number + rows].time_s if number + rows < len(marks) else source.to_s + source.length_s
        room = f"--n:{round(1000 * (after - source.from_s))};--row:{number % rows}"
        text = mark.text or mark.key or ""
        title = escape(f"{number + 1}. {clock(mark.time_s, True)} {text}".strip())
        flags.append(
            f'<span style="{_at(mark.time_s, source)};{room}" title="{title}"><b>{number + 1}</b> {escape(text)}</span>'
        )
    return f'<div class="marks" style="--rows:{rows}" aria-hidden="true">{"".join(flags)}</div>'


def _pictures(source: SourceRecording, strip: Strip) -> str:
    """A strip of small pictures; the script shows as many as have room."""
    if not strip.pictures:
        return ""
    step = max(1, -(-len(strip.pictures) // STATIC_PICTURES))
    images = "".join(
        f'<img alt="" loading="lazy" decoding="async"{"" if index % step == step // 2 or step == 1 else " hidden"} '
        f'style="{_at(picture.time_s, source)}" src="{picture.address}">'
        for index, picture in enumerate(strip.pictures)
    )
    return f'<div class="pictures" style="--wide:{strip.aspect:.3f}">{images}</div>'


def _axis(source: SourceRecording) -> str:
    step_s = tick_step_s(source.length_s, 8)
    numbers = range(int(-(-source.from_s // step_s)), int(source.to_s // step_s) + 1)
    ticks = [
        f'<span style="{_at(number * step_s, source)}">{clock(number * step_s, step_s < 1)}</span>'
        for number in numbers
    ]
    return f'<div class="axis" aria-hidden="true">{"".join(ticks)}</div>'


def tick_step_s(length_s: float, most: int) -> float:
    """A round time between ticks, so that there are at most `most` and one more."""
    whole_days_s = 86400 * max(1, -(-length_s // (86400 * most)))
    return next((step for step in _TICKS_S if length_s / step <= most), whole_days_s)


def _short_faces(source: SourceRecording, short: Sequence[Series], chosen: Mapping[str, str]) -> str:
    """The others as one drawing: a bar for each, coloured by its label, in as few rows as they need."""
    rows: list[tuple[float, list[Series]]] = []
    for series in sorted(short, key=lambda s: float(s.held_from_s[0])):
        start_s, end_s = float(series.held_from_s[0]), float(series.held_to_s[-1])
        free = next((number for number, (until_s, _) in enumerate(rows) if until_s < start_s), None)
        if free is None:
            rows.append((end_s, [series]))
        else:
            rows[free] = (end_s, [*rows[free][1], series])
    shapes: dict[str, list[str]] = {}
    for number, (_, members) in enumerate(rows):
        for series in members:
            for state, from_s, to_s in stretches(series):
                left, right = (round(1000 * (value - source.from_s)) for value in (from_s, to_s))
                place = f"M{left},{10 * number + 5}H{max(right, left + 1)}"
                shapes.setdefault(chosen[series.states[state]], []).append(place)
    paths = "".join(f'<path stroke="{colour}" d="{"".join(parts)}"/>' for colour, parts in shapes.items())
    span_ms = max(round(1000 * source.length_s), 1)
    box = f'viewBox="0 0 {span_ms} {10 * len(rows)}" preserveAspectRatio="none"'
    style = f"height:{max(0.6, min(0.6 * len(rows), 16)):.1f}rem"
    mean_s = sum(series.answered_s for series in short) / len(short)
    facts = f"each seen for a shorter time, {clock(mean_s, True)} on average: a bar each, in the colour of its label"
    words = f"{len(short)} other faces, each for {share(mean_s, source.length_s)} of the time on average"
    drawing = f'<svg class="bars" {box} style="{style}" aria-hidden="true">{paths}</svg>'
    return (
        f'<figure class="ribbon short"><figcaption><b>{len(short)} other faces</b> <span class="soft">{facts}</span>'
        f'</figcaption><div class="plot" role="img" aria-label="{words}">{drawing}{_over(source)}</div>'
        f"{_axis(source)}</figure>"
    )
