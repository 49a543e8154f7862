"""A session as one HTML page that needs nothing else: no address of the network, no font, style and script inside."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from html import escape
from importlib.resources import files
from typing import Any

from mma_edge import __version__
from mma_edge.report.figures import coverage, dwells, speakers, transitions
from mma_edge.report.palette import BASIS_COLOURS, UNCERTAIN_COLOUR, colours, stacked
from mma_edge.report.pictures import Strips
from mma_edge.report.recording import Recording, SourceRecording
from mma_edge.report.series import Series
from mma_edge.report.tables import (
    clock,
    coverage_table,
    dwell_table,
    event_table,
    faces_table,
    mark_table,
    share,
    speaker_table,
    swatch,
    table,
    transition_table,
)
from mma_edge.report.timeline import MOST_ANSWERS, mostly, split, timelines
from mma_edge.session.folder import Session
from mma_edge.types import UNCERTAIN

_ASSETS = files("mma_edge") / "assets" / "report"
LIMITS = """\
What these numbers are: for each window of a few seconds, the probabilities that a model gives to each class for the
look of a face and the sound of a voice. They are not what a person feels. The model was trained on other people, most
of whom acted; it is often wrong, and more so with people, light, rooms and languages unlike those of its training. A
probability of 60 % is right about six times in ten only where the model was calibrated on people like these.
Neighbouring answers share most of their window, so thousands of answers are not thousands of independent observations,
and when something changed is known to a second or two, not better. Where a face was not found, or a voice not heard,
nothing is known; that is not neutral. Before conclusions about anyone, read the card of the model: what it was trained
on, how often it was right and for whom, and the terms of its weights. In some places the law forbids to infer emotions,
in the European Union at work and at school.
"""


def wanted_strips(recording: Recording) -> dict[int, tuple[Series, ...]]:
    """Which ribbons have pictures, by the number of the source: see `mma_edge.report.pictures.strips_of`."""
    return {number: tuple(split(source)[0]) for number, source in enumerate(recording.sources)}


def page_of(recording: Recording, strips: Strips, problems: Sequence[str]) -> str:
    """The whole page. `problems` are shown before all figures."""
    script, style = ((_ASSETS / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    most_answers = MOST_ANSWERS // max(len(recording.sources), 1)
    parts, data = [], []
    for number, source in enumerate(recording.sources):
        html, of_source = _source(number, source, recording, strips.get(number, {}), most_answers)
        parts.append(html)
        data.append(of_source)
    chosen = colours(recording.labels)
    content = {
        "labels": list(stacked(recording.labels)),
        "colours": [chosen[label] for label in stacked(recording.labels)],
        "uncertain": [UNCERTAIN, UNCERTAIN_COLOUR],
        "sources": data,
    }
    few = any(series["few"] for source in data for series in source["series"])
    title = escape(recording.title)
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    )
    # A text may hold "</script>": in JSON the < can be written otherwise.
    values = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    body = [
        f"<h1>{title}</h1>",
        _first_lines(recording),
        _problems(problems),
        _tiles(recording),
        _key(recording, chosen),
        *parts,
        _notices(recording, few),
        _about(recording.session),
        "<h2>Before you read anything into it</h2>",
        f'<p class="note">{LIMITS}{_licence(recording.session)}</p>',
        f"<footer>Made by mma-edge {__version__} on {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC.</footer>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<link rel="icon" href="data:,">\n<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n'
        + "\n".join(filter(None, body))
        + '\n</main>\n<div id="readout" hidden></div>\n'
        + f'<script type="application/json" id="values">{values}</script>\n<script>{script}</script>\n'
        + "</body>\n</html>\n"
    )


def _licence(session: Session | None) -> str:
    licence = session.model.get("licence") if session else None
    return escape(f"The weights used here, {session.model.get('name')}: {_plain(licence)}.") if licence else ""


def _first_lines(recording: Recording) -> str:
    session = recording.session
    if session is None:
        return '<p class="soft">Records alone, without a session: its times, its model and its video are not known.</p>'
    when = _when(session.started) + (f" to {_when(session.ended)}" if session.ended else "")
    statement = escape(str(session.privacy.get("statement", "")))
    model, options = session.model, session.options
    parts = [", ".join(session.sources), f"{model.get('name')} ({model.get('precision')}, {model.get('backend')})"]
    parts.append(f"windows of {_plain(options.get('window_s'))} s every {_plain(options.get('hop_s'))} s")
    parts.append(f"calibration: temperature {_plain(model.get('temperature'))}")
    parts.append(f"mma-edge {_plain(session.versions.get('mma_edge'))}")
    facts = f'{escape("; ".join(filter(None, parts)))}. <a href="#recorded">All of it</a>'
    return f'<p class="soft">{when}<br>{facts}</p>' + (f"<p>{statement}</p>" if statement else "")


def _when(text: str) -> str:
    """An ISO time as people write it; as it is where it is none."""
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S} UTC"
    except ValueError:
        return escape(text)


def _problems(problems: Sequence[str]) -> str:
    if not problems:
        return ""
    items = "".join(f"<li>{escape(problem)}</li>" for problem in problems)
    return f'<div class="note" role="note"><b>To know first</b><ul>{items}</ul></div>'


def _tiles(recording: Recording) -> str:
    """The figures to be seen first."""
    many = [series for source in recording.sources for series in source.series]
    length_s = sum(source.length_s for source in recording.sources)
    covered = sum(coverage(source.series, source.length_s).answered_s for source in recording.sources)
    faces = sum(series.track_id is not None for series in many)
    short, count = length_s < 60, len(recording.sources)
    tiles = [("Length", clock(length_s, short), f"{count} sources" if count > 1 else "")]
    tiles.append(("With an answer", share(covered, length_s), clock(covered, short)))
    tiles.append(("Faces", str(faces), f"{sum(len(series.end_s) for series in many):,} answers"))
    if many:
        most = max(dwells(many), key=lambda dwell: dwell.total_s)
        total_s = sum(series.answered_s for series in many)
        tiles.append(("Mostly", escape(most.label), f"{share(most.total_s, total_s)} of their time"))
    losses = sum(event.kind in ("gap", "drop", "jump") for source in recording.sources for event in source.events)
    marks = max((len(source.marks) for source in recording.sources), default=0)
    tiles.append(("Marks", str(marks), ""))
    tiles.append(("Gaps and losses", str(losses), ""))
    cells = "".join(f"<div><span>{name}</span><b>{value}</b><small>{more}</small></div>" for name, value, more in tiles)
    return f'<div class="tiles">{cells}</div>'


def _key(recording: Recording, chosen: Mapping[str, str]) -> str:
    """What the colours mean."""
    classes = "".join(swatch(chosen[label], label) for label in reversed(stacked(recording.labels)))
    classes += swatch(UNCERTAIN_COLOUR, UNCERTAIN)
    bases = "".join(
        f'<span class="class"><i class="swatch {name}" style="background:{colour}"></i>{text}</span>'
        for (name, colour), text in zip(
            BASIS_COLOURS.items(), ("face and voice", "face alone", "voice alone"), strict=True
        )
    )
    several = any(series.alone.any() for source in recording.sources for series in source.series)
    spoke = (
        '<span class="class"><i class="swatch spoke"></i>this face speaks (it alone has the sound)</span>'
        if several
        else ""
    )
    return (
        '<div class="key"><p><b>Area</b>: probability of each class, stacked to 100 %. <b>First bar</b>: the label. '
        "<b>Second bar</b>: what the answer rests on. Empty: no answer. Hatched: a gap; red: frames or "
        "sound were lost; dashed: a mark, at the time when its key was pressed.</p>"
        "<p>An answer stands for the time around the middle of its window, half way to the middles of its neighbours; "
        "the first one after a gap from when the face came, the last one up to its window's end.</p>"
        f'<p aria-label="Classes">{classes}</p><p aria-label="What answers rest on">{bases}{spoke}</p></div>'
    )


def _source(
    number: int, source: SourceRecording, recording: Recording, strips: Mapping, most_answers: int
) -> tuple[str, dict[str, Any]]:
    """Everything about one source, and the script's data."""
    chosen, order = colours(recording.labels), stacked(recording.labels)
    parts = [f"<section><h2>{escape(source.name)}</h2>{_source_facts(source)}"]
    data: dict[str, Any] = {"from": source.from_s, "span": 1, "series": [], "told": []}
    if source.series:
        html, data = timelines(number, source, recording.labels, strips, most_answers)
        parts.append(html)
        names = [_mostly(series, chosen) for series in source.series]
        short = _folded(
            len(source.series) > 12,
            f"All {len(source.series)} faces",
            faces_table(source.series, source.length_s, names),
        )
        parts += ["<h3>How much there is</h3>", coverage_table(coverage(source.series, source.length_s)), short]
        parts += [speaker_table(speakers(source.series)), "<h3>What it was, and what it became</h3>"]
        if len(source.series) > 1:
            parts.append('<p class="soft">All faces and the voice alone together, each with its own time.</p>')
        parts.append(_numbers(source.series, chosen, order))
        if len(source.series) > 1:
            own = split(source)[0]
            parts += [_folded(True, f"{series.name} by itself", _numbers([series], chosen, order)) for series in own]
    else:
        parts.append("<p>No answer: no face was found in it and no voice was heard.</p>")
    if source.marks or source.events:
        parts.append("<h3>What happened</h3>")
        parts.append(_folded(len(source.marks) > 20, f"{len(source.marks)} marks", mark_table(source.marks)))
        events = sorted(source.events, key=lambda event: (event.start_s is None, event.start_s))
        parts.append(_folded(len(events) > 12, f"{len(events)} gaps, losses and notices", event_table(events)))
    return "\n".join(filter(None, [*parts, "</section>"])), data


def _mostly(series: Series, chosen: Mapping[str, str]) -> str:
    label, part = mostly(series)
    return f'<span class="whole">{swatch(chosen[label], label)} {100 * part:.0f} %</span>'


def _numbers(many: Sequence[Series], chosen: dict[str, str], order: Sequence[str]) -> str:
    return dwell_table(dwells(many), chosen, order) + transition_table(transitions(many), many[0].states, order)


def _folded(fold: bool, summary: str, html: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{html}</details>" if fold and html else html


def _source_facts(source: SourceRecording) -> str:
    facts, parts = source.facts, []
    if not facts:
        return ""
    parts.append("live" if facts.get("live") else "a file")
    if source.size:
        parts.append(f"{source.size[0]} x {source.size[1]} px")
    for key, text in (("frames", "{:,} frames"), ("sound_s", "{:,.1f} s of sound")):
        if isinstance(facts.get(key), (int, float)):
            parts.append(text.format(facts[key]))
    for key, text in (
        ("dropped_frames", "{:,} frames dropped"),
        ("dropped_sound_s", "{:,.1f} s of sound lost"),
        ("reopened", "reopened {} times"),
        ("video_dropped", "{:,} frames missing in the video"),
    ):
        if isinstance(facts.get(key), (int, float)) and facts[key]:
            parts.append(text.format(facts[key]))
    if facts.get("error"):
        parts.append(f"failed: {escape(str(facts['error']))}")
    return f'<p class="soft">{", ".join(parts)}</p>'


def _notices(recording: Recording, few: bool) -> str:
    lines = [escape(line) for line in recording.notices]
    if few:
        lines.append(
            "There are too many answers to draw them all; every short burst is drawn. All tables are of all answers."
        )
    items = "".join(f"<li>{line}</li>" for line in lines)
    return f"<h2>Notices</h2><ul>{items}</ul>" if lines else ""


def _about(session: Session | None) -> str:
    """What recorded it, as the manifest says it."""
    if session is None:
        return ""
    rows = [("session", escape(session.name)), ("state", escape(session.state)), ("run", clock(session.run_s, True))]
    for name, values in (("model", session.model), ("options", session.options), ("versions", session.versions)):
        rows += [
            (f"{name}: {escape(str(key).replace('_', ' '))}", escape(_plain(value))) for key, value in values.items()
        ]
    rows += [(f"kept: {escape(str(key))}", escape(_plain(value))) for key, value in session.privacy.items()]
    return '<h2 id="recorded">How it was recorded</h2>' + table(
        "As the manifest of the session says it", ("", ""), rows, prose=(0, 1)
    )


def _plain(value: object) -> str:
    """A value of the manifest in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value)) or "none"
    words = {None: "-", True: "yes", False: "no"}
    if value is None or isinstance(value, bool):
        return words[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
