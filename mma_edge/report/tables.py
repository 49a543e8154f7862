"""The tables of a report, as HTML text. Whatever comes from outside is escaped here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from mma_edge.report.figures import Coverage, Dwell, Speaker
from mma_edge.report.palette import UNCERTAIN_COLOUR
from mma_edge.report.recording import Event, Mark
from mma_edge.report.series import Series
from mma_edge.types import UNCERTAIN

DARK_CELL = 0.55
"""Share from which the ink of a matrix cell changes."""
MOST_ROWS = 500
"""Of a list of marks or events on the page."""


def clock(time_s: float, tenths: bool = False) -> str:
    """Seconds as people say them: 4:05, 1:04:05; "-" for what is no time."""
    if not abs(time_s) < 1e12:  # NaN neither
        return "-"
    tens = round(10 * abs(time_s)) if tenths else 10 * round(abs(time_s))
    sign = "-" if time_s < 0 and tens else ""
    minutes, rest = divmod(tens, 600)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest / 10:04.1f}" if tenths else f"{rest // 10:02d}"
    return sign + (f"{hours}:{minutes:02d}:{seconds}" if hours else f"{minutes}:{seconds}")


def share(part: float, whole: float) -> str:
    """In percent."""
    return f"{100 * part / whole:.1f} %" if whole > 0 else "-"


def table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]], prose: Sequence[int] = (0,)) -> str:
    """Cells are HTML already; columns that are not `prose` are numbers. "" where there are no rows."""
    if not rows:
        return ""
    kinds = ["" if column in prose else ' class="number"' for column in range(len(header))]
    head = "".join(f'<th scope="col"{kind}>{cell}</th>' for cell, kind in zip(header, kinds, strict=True))
    lines = []
    for first, *rest in rows:
        cells = "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(rest, kinds[1:], strict=True))
        lines.append(f'<tr><th scope="row"{kinds[0]}>{first}</th>{cells}</tr>')
    body = "\n".join(lines)
    head = f"<thead><tr>{head}</tr></thead>" if any(header) else ""
    return f'<div class="wide"><table><caption>{caption}</caption>{head}<tbody>\n{body}\n</tbody></table></div>'


def swatch(colour: str, label: str) -> str:
    """A class's name with its colour; "uncertain" is thin here too."""
    thin = ' class="swatch thin"' if colour == UNCERTAIN_COLOUR else ' class="swatch"'
    return f'<span class="class"><i{thin} style="background:{colour}"></i>{escape(label)}</span>'


def coverage_table(found: Coverage) -> str:
    """Of one source."""
    names = {
        "answered_s": "with an answer",
        "face_s": "about a face",
        "voice_s": "with a voice in it",
        "both_s": "of face and voice together",
        "uncertain_s": "uncertain",
    }
    rows = [
        (name, clock(getattr(found, key), True), share(getattr(found, key), found.length_s))
        for key, name in names.items()
    ]
    rows.append(
        (
            "without any answer",
            clock(found.length_s - found.answered_s, True),
            share(found.length_s - found.answered_s, found.length_s),
        )
    )
    return table(f"Of {clock(found.length_s, True)}, time with several faces counted once", ("", "time", "share"), rows)


def dwell_table(found: Sequence[Dwell], colours: dict[str, str], order: Sequence[str]) -> str:
    """A row for each class that can occur; "uncertain" only where it does."""
    by_label = {dwell.label: dwell for dwell in found}
    whole_s = sum(dwell.total_s for dwell in found)
    rows = []
    for label in [*reversed(order), UNCERTAIN]:
        dwell = by_label[label]
        if dwell.times or label != UNCERTAIN:
            lengths = [f"{value:.1f}" if dwell.times else "-" for value in (dwell.mean_s, dwell.longest_s)]
            name = swatch(colours[label], label)
            rows.append((name, clock(dwell.total_s, True), share(dwell.total_s, whole_s), str(dwell.times), *lengths))
    header = ("label", "total", "share", "times", "mean, s", "longest, s")
    return table("How long each label was held (dwell time)", header, rows)


def transition_table(counts: np.ndarray, states: Sequence[str], order: Sequence[str]) -> str:
    """Changes from the row's label to the column's; states that never changed are left out."""
    places = [states.index(label) for label in [*reversed(order), UNCERTAIN]]
    places = [place for place in places if counts[place].any() or counts[:, place].any()]
    if not places:
        return "<p>The label never changed from one answer to the next.</p>"
    head = "".join(f'<th scope="col">{escape(states[place])}</th>' for place in places)
    rows = []
    for row in places:
        total = int(counts[row].sum())
        cells = []
        for column in places:
            count = int(counts[row, column])
            part = count / total if total else 0.0
            ink = ' class="full"' if part >= DARK_CELL else ""
            text = f"{100 * part:.0f} %<small>{count}</small>" if count else "·"
            cells.append(f'<td{ink} style="--share:{part:.3f}">{text}</td>')
        rows.append(f'<tr><th scope="row">{escape(states[row])}</th>{"".join(cells)}<td class="sum">{total}</td></tr>')
    caption = "Changes of the label: from that of the row to that of the column, share of the row and count"
    return (
        f'<div class="wide"><table class="matrix"><caption>{caption}</caption><thead><tr><th></th>{head}'
        f'<th scope="col">changes</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def faces_table(many: Sequence[Series], length_s: float, mostly: Sequence[str]) -> str:
    """A row for each face and the voice alone; `mostly` says what each was, as HTML."""
    rows = []
    for series, most in zip(many, mostly, strict=True):
        bases = [float(series.holds_s[series.basis == basis].sum()) for basis in range(3)]
        unsure_s = float(series.holds_s[series.chosen == len(series.labels)].sum())
        rows.append(
            (
                escape(series.name),
                clock(float(series.held_from_s[0])),
                clock(float(series.held_to_s[-1])),
                f"{len(series.end_s):,}",
                clock(series.answered_s, True),
                share(series.answered_s, length_s),
                *(share(seconds, series.answered_s) for seconds in bases),
                share(unsure_s, series.answered_s),
                most,
            )
        )
    header = ("", "from", "to", "answers", "time", "of all", "face and voice", "face", "voice", "uncertain", "mostly")
    return table("Each face: when it was there, and what the answers about it rest on", header, rows, prose=(0, 10))


def speaker_table(found: Sequence[Speaker]) -> str:
    rows = [
        (
            f"Face {speaker.track_id}",
            clock(speaker.seconds, True),
            "-" if math.isnan(speaker.mean_speaking) else f"{speaker.mean_speaking:.2f}",
        )
        for speaker in found
    ]
    caption = "Several faces: how long each was taken for the speaker, so had the sound alone"
    return table(caption, ("", "time", "mean of speaking"), rows)


def mark_table(marks: Sequence[Mark]) -> str:
    rows = [
        (str(number), clock(mark.time_s, True), escape(mark.key or ""), escape(mark.text) or "-")
        for number, mark in enumerate(marks[:MOST_ROWS], 1)
    ]
    return table(_cut("Marks", len(marks)), ("no.", "time", "key", "text"), rows, prose=(0, 2, 3))


def event_table(events: Sequence[Event]) -> str:
    rows = [
        (
            "-" if event.start_s is None else clock(event.start_s, True),
            "-" if event.end_s is None else clock(event.end_s, True),
            escape(event.kind),
            escape(event.text),
        )
        for event in events[:MOST_ROWS]
    ]
    return table(_cut("Gaps, losses, notices", len(events)), ("from", "to", "kind", "what"), rows, prose=(0, 1, 2, 3))


def _cut(caption: str, count: int) -> str:
    return f"{caption}, the first {MOST_ROWS} of {count:,}" if count > MOST_ROWS else caption
