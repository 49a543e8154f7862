"""Subtitles: WebVTT for browsers, SRT for every player. One cue at a time, with a line for each face."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mma_edge.convert.timeline import Segment, Tier, TimeLine, mark_segments
from mma_edge.files import write_text

_MARK_MS = 2000
"""How long a mark can be read."""


def write_vtt(time_line: TimeLine, path: Path) -> None:
    """One file for one source."""
    lines = ["WEBVTT", ""]
    for start_ms, end_ms, texts in _cues(time_line):
        lines += [f"{_clock(start_ms, '.')} --> {_clock(end_ms, '.')}", *map(_vtt_text, texts), ""]
    write_text(path, "\n".join(lines))


def write_srt(time_line: TimeLine, path: Path) -> None:
    """One file for one source."""
    lines = []
    for number, (start_ms, end_ms, texts) in enumerate(_cues(time_line), 1):
        lines += [str(number), f"{_clock(start_ms, ',')} --> {_clock(end_ms, ',')}", *map(_srt_text, texts), ""]
    write_text(path, "\n".join(lines))


def _cues(time_line: TimeLine) -> Iterator[tuple[int, int, list[str]]]:
    """Start, end and lines of text, without overlap: few players show two cues at once well. A name is before each
    line where there is more than one tier."""
    tiers = [tier for tier in time_line.tiers if tier.segments]
    if time_line.marks:
        tiers.append(Tier("mark", tuple(mark_segments(time_line, _MARK_MS))))
    changes: list[tuple[int, int, int, Segment | None]] = []  # time, 0 for an end, tier, what begins
    for number, tier in enumerate(tiers):
        for segment in tier.segments:
            changes += [(segment.start_ms, 1, number, segment), (segment.end_ms, 0, number, None)]
    changes.sort(key=lambda change: change[:3])
    shown: dict[int, str] = {}
    from_ms = 0
    for time_ms, _, number, segment in changes:
        if shown and time_ms > from_ms:
            yield from_ms, time_ms, [shown[each] for each in sorted(shown)]
        from_ms = time_ms
        shown.pop(number, None)
        if segment:
            name = tiers[number].name
            shown[number] = segment.label if len(tiers) == 1 and name != "mark" else f"{name}: {segment.label}"


def _clock(time_ms: int, decimal: str) -> str:
    """Such as 00:01:02.500; hours may have more than two digits."""
    whole_s, rest_ms = divmod(time_ms, 1000)
    return f"{whole_s // 3600:02}:{whole_s // 60 % 60:02}:{whole_s % 60:02}{decimal}{rest_ms:03}"


def _vtt_text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _srt_text(text: str) -> str:
    """SRT cannot escape: an invisible word joiner keeps players from seeing a tag or an arrow."""
    return re.sub(r"(?<=[<{])|(?<=--)(?=>)", "\u2060", text)
