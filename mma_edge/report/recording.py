"""What a report is about: a session's folder or a file of records, as series of answers on one time line per source."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mma_edge.errors import SourceError, UsageError
from mma_edge.report.clock import DAY_S, Clock
from mma_edge.report.series import Series, series_of, with_speakers
from mma_edge.session.folder import Session, read_session
from mma_edge.session.reading import read_records
from mma_edge.session.spans import hop_of, windows_ms

JUMP_S, SLACK = 60.0, 1.5
"""Where a live source's clock went through more than SLACK times the run's own time, steps above JUMP_S are jumps."""
MOST = 1e12
"""No time, probability or pixel is larger."""


@dataclass(frozen=True)
class Mark:
    """A user's mark on a source's time line."""

    time_s: float
    text: str
    key: str | None = None


@dataclass(frozen=True)
class Event:
    """A gap, a loss or a notice; `start_s` is None where it has no place on the time line."""

    kind: str  # "gap", "drop", "notice", "end", "jump"
    start_s: float | None
    end_s: float | None
    text: str


@dataclass(frozen=True, eq=False)
class SourceRecording:
    """One source; all times are in seconds of its time line on the page."""

    name: str
    facts: Mapping[str, Any]  # of the manifest; {} without one
    from_s: float
    to_s: float
    series: tuple[Series, ...]  # faces by their number, then the voice alone
    marks: tuple[Mark, ...]
    events: tuple[Event, ...]
    videos: tuple[tuple[Path, float], ...] = ()  # files of its video, and where on the time line each begins

    @property
    def length_s(self) -> float:
        return max(self.to_s - self.from_s, 0.0)

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of its frames, which the boxes are in."""
        size = self.facts.get("size")
        whole = isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)
        return (size[0], size[1]) if whole else None


@dataclass(frozen=True, eq=False)
class Recording:
    """All that a report shows."""

    title: str
    session: Session | None  # None of a file of records
    labels: tuple[str, ...]
    sources: tuple[SourceRecording, ...]
    notices: tuple[str, ...]  # events that have no source
    problems: tuple[str, ...]  # what is missing, cut or odd, one line each


def read_recording(path: str | os.PathLike[str]) -> Recording:
    """A session's folder, or a .jsonl or .csv of `--output`. SourceError where it is none or holds nothing to show."""
    path = Path(path)
    problems: list[str] = []
    session = read_session(path) if path.suffix.lower() not in (".jsonl", ".csv") or path.is_dir() else None
    if session:
        problems += session.problems
        records: list[dict[str, Any]] = []
        try:
            records = list(session.records)
        except SourceError as error:
            problems += [] if error.what in problems else [error.what]
    else:
        records = list(read_records(path, problems.append))
        if not records:
            raise SourceError(
                f"{path} has no records", "at least one", "was there a face or a voice? see docs/report.md"
            )
    records, damaged = _usable(records)
    if damaged:
        problems.append(f"{damaged} record(s) without usable times or probabilities are left out")
    if not records and not session:
        raise SourceError(f"{path} has no usable records", "records as mma-edge run --output writes them")
    if not records:
        problems.append("there is no answer in it: no face was seen and no voice heard, or it ended before the first")
    labels = _labels(session, records)
    names = list(session.sources) if session else []
    names += [name for name in dict.fromkeys(_name(record, names) for record in records) if name not in names]
    sources = tuple(_source(name, session, [r for r in records if _name(r, names) == name], labels) for name in names)
    problems += [
        f"the clock of {source.name} jumped by {step}: what follows is drawn after it"
        for source in sources
        for step in (event.text for event in source.events if event.kind == "jump")
    ]
    events = session.events if session else ()
    notices = [str(event.get("text", "")) for event in events if event.get("source") not in names]
    title = (session.name if session else "") or path.name or path.resolve().name
    return Recording(title, session, labels, sources, tuple(filter(None, notices)), tuple(dict.fromkeys(problems)))


def part_of(recording: Recording, face: int | None, from_s: float | None, to_s: float | None) -> Recording:
    """One face (and what else happened), or one span of time. UsageError where nothing would be left."""
    low, high = -math.inf if from_s is None else from_s, math.inf if to_s is None else to_s
    if not low < high:  # NaN fails too
        raise UsageError(f"--from {low:g} --to {high:g}", "--to after --from, in seconds of the page's time line")
    if face is not None:
        there = sorted({s.track_id for source in recording.sources for s in source.series if s.track_id is not None})
        if face not in there:
            known = ", ".join(map(str, there[:20])) + (" and others" if len(there) > 20 else "")
            raise UsageError(f"--face {face}", f"one of the faces in it: {known}" if there else "a session with faces")
    sources = tuple(_part(source, face, low, high) for source in recording.sources)
    if face is not None:
        sources = tuple(source for source in sources if source.series)
    sources = tuple(source for source in sources if source.to_s > source.from_s or source.series)
    # A session without any answer is still shown; a part of one that leaves none was a mistake.
    if not any(source.series for source in sources) and any(source.series for source in recording.sources):
        whole = [f"{source.name}: {source.from_s:.0f} to {source.to_s:.0f}" for source in recording.sources]
        raise UsageError("no answer lies between --from and --to", f"a span within {', '.join(whole)} s")
    return dataclasses.replace(recording, sources=sources)


def _part(source: SourceRecording, face: int | None, low: float, high: float) -> SourceRecording:
    chosen = [series for series in source.series if face is None or series.track_id == face]
    cut = [series.cut(low, high) for series in chosen]
    events = [
        event for event in source.events if event.start_s is None or (event.start_s <= high and _end(event) >= low)
    ]
    return dataclasses.replace(
        source,
        from_s=max(source.from_s, low),
        to_s=min(source.to_s, high),
        series=tuple(series for series in cut if series),
        marks=tuple(mark for mark in source.marks if low <= mark.time_s <= high),
        events=tuple(events),
    )


def _end(event: Event) -> float:
    return event.start_s if event.end_s is None else event.end_s


def _usable(records: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Those with two times and a probability for each class; and the number of the others."""
    good = [record for record in records if _is_usable(record)]
    return good, len(records) - len(good)


def _is_usable(record: Mapping[str, Any]) -> bool:
    box, probabilities = record.get("box"), record["probabilities"].values()
    return (
        all(_number(value) is not None for value in (record["start_s"], record["end_s"], *probabilities))
        and len(probabilities) > 0
        and (box is None or (isinstance(box, list) and len(box) == 4 and all(_number(x) is not None for x in box)))
        and (record.get("speaking") is None or _number(record["speaking"]) is not None)
        and isinstance(record.get("track_id"), (int, type(None)))
    )


def _number(value: object) -> float | None:
    """A time, a probability, a pixel; None for what is none of them."""
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if plain and abs(value) < MOST else None  # NaN fails too


def _labels(session: Session | None, records: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The model's classes in its order; records of another one add theirs."""
    named = session.model.get("labels") if session else None
    known = dict.fromkeys(map(str, named)) if isinstance(named, list) else {}
    for record in records:
        if record["probabilities"].keys() - known.keys():
            known |= dict.fromkeys(record["probabilities"])
    return tuple(known)


def _name(record: Mapping[str, Any], names: Sequence[str]) -> str:
    """A record's source; old ones do not say, which leaves no doubt where there is one only."""
    if record.get("source") is not None:
        return str(record["source"])
    return names[0] if len(names) == 1 else "recording"


def _source(
    name: str, session: Session | None, records: Sequence[dict[str, Any]], labels: tuple[str, ...]
) -> SourceRecording:
    facts = session.sources.get(name, {}) if session else {}
    first_s, last_s = (_number(facts.get(key)) for key in ("first_s", "last_s"))
    starts = [record["start_s"] for record in records]
    ends = [record["end_s"] for record in records]
    begin_s = min(starts, default=0.0) if first_s is None else first_s
    origin_s = session.zero_s(name) if session else 0.0
    if abs(begin_s - origin_s) > DAY_S:
        origin_s = begin_s
    step_s = DAY_S
    if session and facts.get("live") and ends and max(ends) - begin_s > SLACK * session.run_s + JUMP_S:
        step_s = JUMP_S
    clock = Clock(ends, origin_s, step_s)
    times = [
        (clock.of_record(number, start_s), clock.of_record(number, end_s))
        for number, (start_s, end_s) in enumerate(zip(starts, ends, strict=True))
    ]
    windows = windows_ms(times)
    faces: dict[int | None, list[int]] = {}
    for number in windows[:, 1].argsort(kind="stable").tolist():
        faces.setdefault(records[number].get("track_id"), []).append(number)
    hop_ms = hop_of([windows[numbers] for numbers in faces.values()], session.options if session else None)
    series = [
        series_of(track, labels, [records[n] for n in numbers], windows[numbers], hop_ms)
        for track, numbers in sorted(faces.items(), key=lambda item: math.inf if item[0] is None else item[0])
    ]
    bounds = [min(times)[0], max(end for _, end in times)] if times else []
    if not clock.jumps_s:
        bounds += [clock.of_time(value) for value in (first_s, last_s) if value is not None]
    marks, events = _happened(name, session, clock)
    events += [
        Event("jump", at, at, f"{step:+.1f} s at {at:.1f} s")
        for at, step in zip(clock.jumps_s, clock.steps_s, strict=True)
    ]
    return SourceRecording(
        name,
        facts,
        from_s=min(bounds, default=0.0),
        to_s=max(bounds, default=0.0),
        series=with_speakers(series),
        marks=tuple(marks),
        events=tuple(events),
        videos=tuple((path, clock.of_time(start_s)) for path, start_s in (session.videos(name) if session else ())),
    )


def _happened(name: str, session: Session | None, clock: Clock) -> tuple[list[Mark], list[Event]]:
    """Marks and events of one source, on its time line."""
    marks, events = [], []
    for mark in session.marks if session else ():
        times_s = mark.get("times_s")
        time_s = _number(times_s.get(name)) if isinstance(times_s, dict) else None
        if time_s is not None:
            key = mark.get("key")
            marks.append(Mark(clock.of_time(time_s), str(mark.get("text") or ""), None if key is None else str(key)))
    for event in session.events if session else ():
        if event.get("source") == name:
            start_s, end_s = (_number(event.get(key)) for key in ("start_s", "end_s"))
            start_s = end_s if start_s is None else start_s
            times = [None if value is None else clock.of_time(value) for value in (start_s, end_s)]
            events.append(Event(str(event.get("kind")), *times, str(event.get("text") or "")))
    return sorted(marks, key=lambda mark: mark.time_s), events
