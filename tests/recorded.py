"""Records, sessions and videos as runs leave them, made by hand for the tests of what reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

LABELS = ("happy", "sad", "angry")


def record(
    end_s: float, label: str = "happy", track: int | None = 1, window_s: float = 4.0, **changed: object
) -> dict[str, object]:
    """A record of `--output`, sure of its label."""
    probabilities = {name: 0.8 if name == label else 0.1 for name in LABELS}
    fields = {
        "start_s": round(max(0.0, end_s - window_s), 3),
        "end_s": round(end_s, 3),
        "track_id": track,
        "box": None if track is None else [10.5, 20.0, 110.5, 140.0],
        "modalities": ["audio"] if track is None else ["video", "audio"],
        "voice": 0.744,
        "label": label,
        "probabilities": probabilities,
        "age_ms": 77.4,
        "source": "talk.mp4",
    }
    return fields | changed


def run_of(labels: str, hop_s: float = 0.5, first_s: float = 0.0, **given: object) -> list[dict[str, object]]:
    """One record per hop; a letter of `labels` is the first of a label, a blank is a hop without an answer."""
    names = {name[0]: name for name in LABELS}
    return [
        record(first_s + hop_s * number, names[sign], **given) for number, sign in enumerate(labels, 1) if sign != " "
    ]


def write_jsonl(path: Path, records: Sequence[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return path


def make_video(path: Path, seconds: float = 2.0, rate_fps: int = 10, first_s: float = 0.0) -> Path:
    """A black video whose first picture is at `first_s`."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=rate_fps)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for number in range(round(seconds * rate_fps)):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
            frame.pts, frame.time_base = number + round(first_s * rate_fps), Fraction(1, rate_fps)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def make_session(
    folder: Path,
    records: Sequence[dict[str, object]],
    sources: dict[str, dict[str, object]],
    marks: Sequence[tuple[dict[str, float], str]] = (),
    state: str = "ended",
) -> Path:
    """A session's folder; each mark has the times of its sources and a text."""
    folder.mkdir()
    source = {"live": True, "video": None, "video_start_s": None, "last_s": 0.0}
    manifest = {
        "kind": "mma-edge session",
        "schema": 1,
        "name": folder.name,
        "state": state,
        "started": "2026-01-02T03:04:05Z",
        "ended": "2026-01-02T03:14:05Z" if state == "ended" else None,
        "run_s": 600.0,
        "versions": {},
        "model": {"labels": list(LABELS)},
        "options": {"hop_s": 0.5},
        "sources": {name: source | given for name, given in sources.items()},
        "privacy": {},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    write_jsonl(folder / "records.jsonl", records)
    write_jsonl(folder / "marks.jsonl", [{"times_s": times, "key": None, "text": text} for times, text in marks])
    (folder / "events.jsonl").write_text("")
    return folder
