"""From answers, each about a window of some seconds, to segments of time with one label each.

For which time an answer stands, `mma_edge.session.spans` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mma_edge.convert.timeline import Segment, plain
from mma_edge.errors import UsageError
from mma_edge.session.spans import known_spans_of, spans_of, windows_ms

_LONGEST_MS = 5200
"""No window is longer, so answers of one run are not further behind the newest one."""


@dataclass(frozen=True)
class SegmentOptions:
    """How answers become segments."""

    min_s: float = 0.5  # shorter segments go to the one beside them; one that stands alone is left out
    hysteresis: float = 0.1  # by how much more probable than the last label the next one must be
    as_of: str = "middle"  # or "end": the time at which an answer was known

    def __post_init__(self) -> None:
        if not 0 <= self.min_s < float("inf"):
            raise UsageError(f"--min-s {self.min_s:g}", "seconds, 0 or more")
        if not 0 <= self.hysteresis <= 1:
            raise UsageError(f"--hysteresis {self.hysteresis:g}", "a difference of probabilities, 0 to 1")
        if self.as_of not in ("middle", "end"):
            raise UsageError(f"--as-of {self.as_of}", "middle or end")


def check_order(records: Sequence[Mapping[str, Any]]) -> None:
    """UsageError where the times of a source's records jump back, as after two runs in one file."""
    newest_ms = 0
    ends: dict[int | None, int] = {}
    for number, record in enumerate(records, 1):
        end_ms, track = _ms(record["end_s"]), record["track_id"]
        what = f"record {number} of {record['source'] or 'the file'} ends at {end_ms / 1000:g} s"
        last_ms = newest_ms if end_ms <= newest_ms - _LONGEST_MS else ends.get(track)
        if last_ms is not None and end_ms <= last_ms:
            hint = "a time line cannot go back: split the file there, or take --to csv, which keeps every record"
            raise UsageError(f"{what}, after one at {last_ms / 1000:g} s", "records of one run, in order of time", hint)
        if end_ms <= _ms(record["start_s"]):
            raise UsageError(f"{what}, before it begins", "end_s after start_s", "--to csv keeps every record")
        newest_ms, ends[track] = max(newest_ms, end_ms), end_ms


def segments_of(
    records: Sequence[Mapping[str, Any]], hop_ms: int | None, options: SegmentOptions
) -> tuple[list[Segment], int]:
    """The segments of one track's records, in order of time and without overlap, and how many were too short to keep.

    Without a hop (`--whole`) a record stands for its whole window.
    """
    windows = windows_ms([(record["start_s"], record["end_s"]) for record in records])
    spans = (spans_of if options.as_of == "middle" else known_spans_of)(windows, hop_ms).tolist()
    labels = _steady_labels(records, spans, options.hysteresis)
    merged: list[Segment] = []
    least_ms = _ms(options.min_s)
    for (start_ms, end_ms), label in zip(spans, labels, strict=True):
        last = merged[-1] if merged and merged[-1].end_ms == start_ms else None
        if last and last.label == label:
            merged[-1] = Segment(last.start_ms, end_ms, label)
        else:
            merged.append(Segment(start_ms, end_ms, label))
    kept: list[Segment] = []
    for segment in merged:
        last = kept[-1] if kept and kept[-1].end_ms == segment.start_ms else None
        if last and (last.label == segment.label or segment.end_ms - segment.start_ms < least_ms):
            kept[-1] = Segment(last.start_ms, segment.end_ms, last.label)
        elif last and last.end_ms - last.start_ms < least_ms:
            kept[-1] = Segment(last.start_ms, segment.end_ms, segment.label)
        else:
            kept.append(segment)
    long = [segment for segment in kept if segment.end_ms - segment.start_ms >= least_ms]
    return long, len(kept) - len(long)


def _steady_labels(
    records: Sequence[Mapping[str, Any]], spans: Sequence[Sequence[int]], hysteresis: float
) -> list[str]:
    """The label of each record, the one before where it is hardly less probable. An answer that names no class does
    not stay."""
    labels: list[str] = []
    for number, record in enumerate(records):
        label, probabilities = record["label"], record["probabilities"]
        touches = number > 0 and spans[number - 1][1] == spans[number][0]
        if touches and {label, labels[-1]} <= probabilities.keys():
            ahead = probabilities[label] - probabilities[labels[-1]]
            label = label if ahead >= hysteresis - 1e-9 else labels[-1]  # 0.5 - 0.4 is a little less than 0.1
        labels.append(label)
    return [plain(label) for label in labels]


def _ms(time_s: float) -> int:
    return round(1000 * time_s)
