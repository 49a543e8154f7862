"""Praat's TextGrid in its long text format: an interval tier per face, a point tier for the marks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mma_edge.convert.timeline import MARKS, Segment, Tier, TimeLine, seconds
from mma_edge.files import write_text


def write_textgrid(time_line: TimeLine, path: Path) -> None:
    """One file for one source."""
    write_text(path, "".join(f"{line}\n" for line in _lines(time_line)))


def _lines(time_line: TimeLine) -> Iterator[str]:
    end = seconds(time_line.end_ms)
    yield from ('File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end}")
    yield from ("tiers? <exists>", f"size = {len(time_line.tiers) + bool(time_line.marks)}", "item []:")
    for number, tier in enumerate(time_line.tiers, 1):
        intervals = list(_covering(tier, time_line.end_ms))
        yield from _tier_head(number, "IntervalTier", tier.name, end)
        yield f"        intervals: size = {len(intervals)}"
        for place, interval in enumerate(intervals, 1):
            yield f"        intervals [{place}]:"
            yield f"            xmin = {seconds(interval.start_ms)}"
            yield f"            xmax = {seconds(interval.end_ms)}"
            yield f"            text = {_quoted(interval.label)}"
    if time_line.marks:
        yield from _tier_head(len(time_line.tiers) + 1, "TextTier", MARKS, end)
        yield f"        points: size = {len(time_line.marks)}"
        for place, mark in enumerate(time_line.marks, 1):
            yield f"        points [{place}]:"
            yield f"            number = {seconds(mark.time_ms)}"
            yield f"            mark = {_quoted(mark.text)}"


def _tier_head(number: int, kind: str, name: str, end: str) -> Iterator[str]:
    yield f"    item [{number}]:"
    yield f'        class = "{kind}"'
    yield f"        name = {_quoted(name)}"
    yield "        xmin = 0"
    yield f"        xmax = {end}"


def _covering(tier: Tier, end_ms: int) -> Iterator[Segment]:
    """The segments and what is between them, without a label: Praat's intervals leave no time out."""
    covered_ms = 0
    for segment in tier.segments:
        if segment.start_ms > covered_ms:
            yield Segment(covered_ms, segment.start_ms, "")
        yield segment
        covered_ms = segment.end_ms
    if end_ms > covered_ms:
        yield Segment(covered_ms, end_ms, "")


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
