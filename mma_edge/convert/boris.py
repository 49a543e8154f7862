"""Events as BORIS 8 and 9 export them ("Export events", tabular), for the scripts that read such tables.

A face is the subject, an emotion a state of it: one row where it starts, one where it stops. A mark is a point event.
BORIS itself opens projects (.boris) only.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from mma_edge.convert.timeline import MARKS, TimeLine
from mma_edge.files import write_text

COLUMNS = (
    *("Observation id", "Observation date", "Description", "Observation duration", "Observation type", "Source"),
    *("Time offset (s)", "Media duration (s)", "FPS", "Subject", "Behavior", "Behavioral category", "Behavior type"),
    *("Time", "Media file name", "Image index", "Image file path", "Comment"),
)
"""Those of an observation without independent variables and modifiers."""
_NONE = "NA"
_NO_SUBJECT = "No focal subject"


def write_boris(time_lines: Sequence[TimeLine], path: Path) -> None:
    """One table: each source is an observation. Columns are separated by tabs, in a .csv by commas."""
    text = io.StringIO()
    table = csv.writer(text, delimiter="," if path.suffix.lower() == ".csv" else "\t", lineterminator="\n")
    table.writerow(COLUMNS)
    for time_line in time_lines:
        table.writerows(_rows(time_line))
    write_text(path, text.getvalue())


def _rows(time_line: TimeLine) -> Iterator[list[str]]:
    media = time_line.media
    kind, source, file, duration, rate = "Live observation", _NONE, _NONE, _NONE, _NONE
    if media:
        kind, file = "Media file(s)", media.path.name
        source = f"player #1:{file}"
        duration = _NONE if media.duration_ms is None else f"{media.duration_ms / 1000:.3f}"
        rate = _NONE if media.rate_fps is None else f"{media.rate_fps:.3f}"
    first = [time_line.source, "", "", f"{time_line.end_ms / 1000:.3f}", kind, source, "0", duration, rate]
    # At the same time a state stops before the next one starts.
    events = [(mark.time_ms, 2, _NO_SUBJECT, mark.text, MARKS, "POINT") for mark in time_line.marks]
    for tier in time_line.tiers:
        for segment in tier.segments:
            events.append((segment.start_ms, 1, tier.name, segment.label, "emotion", "START"))
            events.append((segment.end_ms, 0, tier.name, segment.label, "emotion", "STOP"))
    for time_ms, _, subject, behaviour, category, what in sorted(events):
        index = _NONE if media is None or media.rate_fps is None else str(round(time_ms / 1000 * media.rate_fps))
        event = [subject, behaviour, category, what, f"{time_ms / 1000:.3f}"]
        yield [*first, *event, file, index, _NONE, ""]
