"""What is converted: the records of one file or session, checked and chosen, and the time lines made of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mma_edge.convert.media import media_of
from mma_edge.convert.rows import Record, checked_records, is_number
from mma_edge.convert.segments import SegmentOptions, check_order, segments_of
from mma_edge.convert.timeline import Mark, Media, Tier, TimeLine, apart, plain, tier_name
from mma_edge.errors import SourceError, UsageError
from mma_edge.session.folder import Session, read_session
from mma_edge.session.spans import hop_of, windows_ms
from mma_edge.types import UNCERTAIN, Notify


@dataclass(frozen=True)
class Choice:
    """Which of the records; None takes all."""

    source: str | None = None
    face: int | None = None


@dataclass(frozen=True)
class Material:
    """Records of one or more sources, at least one."""

    path: Path
    records: list[Record]
    session: Session | None = None
    among: Material | None = None  # what these were chosen from, where it is one face

    @property
    def labels(self) -> tuple[str, ...]:
        """The model's classes, in their order."""
        return tuple(self.records[0]["probabilities"])

    def by_source(self) -> dict[str, list[Record]]:
        """The records of each source by its name, in the order in which they first appear."""
        sources: dict[str, list[Record]] = {}
        for record in self.records:
            sources.setdefault(self._source_of(record), []).append(record)
        return sources

    def _source_of(self, record: Record) -> str:
        """Old records have no source: it is the session's only one, or called as the file."""
        known = self.session.sources if self.session else {}
        return record["source"] or (next(iter(known)) if len(known) == 1 else self.path.stem)

    def time_lines(self, options: SegmentOptions, media: Path | None, notify: Notify) -> list[TimeLine]:
        """One for each source.

        Raises:
            UsageError: the times of a source jump back, or `media` cannot be that of all sources.
            SourceError: `media` is none.
        """
        sources = self.by_source()
        if media and len(sources) > 1:
            what = f"--media {media} for {len(sources)} sources ({', '.join(sources)})"
            raise UsageError(what, "records of one source", "choose one: --source NAME")
        given = media_of(media) if media else None
        whole = (self.among or self).by_source()
        hops = {name: self._hop_of(whole[name]) for name in sources}
        return [self._time_line(name, records, hops[name], options, given, notify) for name, records in sources.items()]

    def _hop_of(self, records: Sequence[Record]) -> int | None:
        """Of all faces of a source, chosen or not, so that a face has the same times in either case."""
        tracks = (windows_ms([(each["start_s"], each["end_s"]) for each in own]) for own in _by_track(records).values())
        return hop_of(tracks, self.session.options if self.session else None)

    def _time_line(
        self,
        name: str,
        records: Sequence[Record],
        hop_ms: int | None,
        options: SegmentOptions,
        given: Media | None,
        notify: Notify,
    ) -> TimeLine:
        check_order(records)
        media, zero_s = self._media(name, given, notify)
        zero_ms = round(1000 * zero_s)
        # Faces by number, the voice last.
        tiers, left_out, before = [], 0, 0
        for track, own in sorted(_by_track(records).items(), key=lambda item: (item[0] is None, item[0] or 0)):
            segments, short = segments_of(own, hop_ms, options)
            moved = [segment.moved(-zero_ms) for segment in segments]
            kept = tuple(segment for segment in moved if segment.end_ms > 0)
            tiers.append(Tier(tier_name(track), kept))
            left_out, before = left_out + short, before + len(moved) - len(kept)
        marks, early = self._marks(name, zero_ms)
        if left_out:
            notify(f"{name}: {left_out} segment(s) shorter than {options.min_s:g} s that stand alone are left out")
        if before + early:
            notify(f"{name}: {before + early} segment(s) and marks before the video begins are left out")
        ends = [mark.time_ms for mark in marks] + [segment.end_ms for tier in tiers for segment in tier.segments]
        ends += [round(1000 * record["end_s"]) - zero_ms for record in records[-1:]]
        if media and media.duration_ms:
            ends.append(media.duration_ms)
        labels = dict.fromkeys(map(plain, (*self.labels, UNCERTAIN, *(record["label"] for record in records))))
        return TimeLine(plain(name), tuple(tiers), marks, tuple(labels), max(1, *ends), media)

    def _media(self, name: str, given: Media | None, notify: Notify) -> tuple[Media | None, float]:
        """The video of a source where there is one, and the presentation time at which its time line begins."""
        about = self.session.sources.get(name, {}) if self.session else {}
        if given:
            if about.get("live"):
                what, hint = f"--media {given.path} for the live source {name}", "leave --media out"
                raise UsageError(what, "a source that was a file, whose times are those of the records", hint)
            return given, given.start_s
        zero_s = self.session.zero_s(name) if self.session else 0.0
        if not about.get("video"):
            return None, zero_s
        (video, start_s), *more = self.session.videos(name) or [(None, 0.0)]
        if more:
            notify(f"{name}: only {video.name} is named as its video, which goes on in {len(more)} more file(s)")
        try:
            return media_of(video) if video and start_s == zero_s else None, zero_s
        except SourceError as error:  # what a crash left of it
            notify(f"{name} is converted without its video: {error.what}")
            return None, zero_s

    def _marks(self, name: str, zero_ms: int) -> tuple[tuple[Mark, ...], int]:
        """Marks with a time of this source, and how many came before its video began."""
        marks = []
        for mark in self.session.marks if self.session else ():
            times = mark.get("times_s")
            time_s = times.get(name) if isinstance(times, dict) else None
            if is_number(time_s):
                text = plain(str(mark.get("text") or mark.get("key") or "mark"))
                marks.append(Mark(round(1000 * time_s) - zero_ms, text))
        kept = [mark for mark in marks if mark.time_ms >= 0]
        return apart(kept), len(marks) - len(kept)


def read_material(path: str | os.PathLike[str], choice: Choice, notify: Notify) -> Material:
    """The chosen records of a session's folder, of a file of `--output`, or of a table in Parquet.

    Raises:
        SourceError: no such file, no records in it, or one that is none.
        UsageError: nothing is left of the choice.
    """
    path = Path(path)
    session = read_session(path) if path.is_dir() else None
    told = dict.fromkeys(session.problems if session else ())

    def tell_once(line: str) -> None:
        if line not in told:
            told[line] = None
            notify(line)

    for line in told:
        notify(line)
    records = list(checked_records(path, tell_once))
    if not records:
        hint = (
            "nothing was recognised: no face, and no voice" if session or path.stat().st_size else "the file is empty"
        )
        raise SourceError(f"{path} has no records", "at least one", hint)
    material = Material(path, records, session)
    if choice.source is not None:
        known = material.by_source()
        if choice.source not in known:
            raise UsageError(f"--source {choice.source}", f"one of {', '.join(known)}")
        material = Material(path, known[choice.source], session)
    if choice.face is not None:
        faces = sorted({record["track_id"] for record in material.records} - {None})
        chosen = [record for record in material.records if record["track_id"] == choice.face]
        if not chosen:
            expected = f"one of {', '.join(map(str, faces))}" if faces else "records of faces; here is a voice alone"
            raise UsageError(f"--face {choice.face}", expected)
        material = Material(path, chosen, session, among=material)
    return material


def _by_track(records: Sequence[Record]) -> dict[int | None, list[Record]]:
    tracks: dict[int | None, list[Record]] = {}
    for record in records:
        tracks.setdefault(record["track_id"], []).append(record)
    return tracks
