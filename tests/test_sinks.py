"""Records are whole, flushed as they come, and never lost or overwritten by accident."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import one_line
from rich.console import Console

from mma_edge.errors import OutputError, UsageError
from mma_edge.sinks import CsvSink, JsonlSink, LineSink, LiveSink, record_sink_of
from mma_edge.types import Emotion

LABELS = ("happy", "sad", "angry")


def emotion(
    track: int | None = 1,
    end_s: float = 2.0,
    probabilities: tuple[float, ...] = (0.2, 0.7, 0.1),
    abstained: bool = False,
) -> Emotion:
    box = None if track is None else (10.04, 20.0, 30.0, 40.5)
    present = ("audio",) if track is None else ("video", "audio")
    values = np.array(probabilities, np.float32)
    return Emotion(end_s - 1, end_s, track, box, present, LABELS, values, 12.34, 0.4, abstained, source="talk.mp4")


def test_a_jsonl_record_holds_everything_and_is_on_disk_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with JsonlSink(path, LABELS) as sink:
        sink.write(emotion())
        record = json.loads(path.read_text())  # read while the sink is still open
    assert (
        record
        == emotion().to_dict()
        == {
            "start_s": 1.0,
            "end_s": 2.0,
            "track_id": 1,
            "box": [10.0, 20.0, 30.0, 40.5],
            "modalities": ["video", "audio"],
            "voice": 0.4,
            "label": "sad",
            "probabilities": {"happy": 0.2, "sad": 0.7, "angry": 0.1},
            "age_ms": 12.3,
            "source": "talk.mp4",
        }
    )


def test_csv_has_a_column_per_class_and_empty_cells_for_no_face(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with CsvSink(path, LABELS) as sink:
        sink.write(emotion())
        sink.write(emotion(track=None))
    face, voice = csv.DictReader(path.open())
    assert (face["p_sad"], face["modalities"], face["x0"]) == ("0.7", "video+audio", "10.0")
    assert (voice["track_id"], voice["x0"], voice["modalities"], voice["label"]) == ("", "", "audio", "sad")
    assert list(face)[-3:] == ["age_ms", "voice", "source"]  # in the order in which they came to be
    assert (face["voice"], face["source"]) == ("0.4", "talk.mp4")


def test_an_uncertain_answer_says_so_everywhere_and_keeps_its_probabilities(tmp_path: Path) -> None:
    out, path = io.StringIO(), tmp_path / "out.csv"
    with LineSink(Console(file=out, width=200)) as sink, CsvSink(path, LABELS) as records:
        sink.write(emotion(abstained=True))
        records.write(emotion(abstained=True))
    assert "uncertain: sad 70%  happy 20%" in out.getvalue()
    (row,) = csv.DictReader(path.open())
    assert (row["label"], row["p_sad"]) == ("uncertain", "0.7")
    assert emotion(abstained=True).to_dict()["label"] == "uncertain"
    view = LiveSink(Console(file=io.StringIO(), width=100, force_terminal=True), "clip.mp4", str)
    view.write(emotion(abstained=True))
    assert "uncertain" in _shown(view)


def test_an_existing_file_is_kept_unless_overwriting_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("precious\n")
    with pytest.raises(OutputError) as caught:
        record_sink_of(path)(path, LABELS)
    assert "--overwrite" in one_line(caught.value)
    assert path.read_text() == "precious\n"
    with record_sink_of(path)(path, LABELS, overwrite=True) as sink:
        sink.write(emotion())
    assert json.loads(path.read_text())["label"] == "sad"


@pytest.mark.parametrize("name", ["out.txt", "out", "out.json"])
def test_another_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        record_sink_of(tmp_path / name)(tmp_path / name, LABELS)
    assert ".jsonl or .csv" in str(caught.value)
    assert not (tmp_path / name).exists()


def test_an_output_in_a_folder_that_does_not_exist_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        record_sink_of(tmp_path / "missing" / "out.jsonl")(tmp_path / "missing" / "out.jsonl", LABELS)
    assert "No such file" in one_line(caught.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_an_output_error_with_its_own_exit_code() -> None:
    sink = JsonlSink("/dev/full", LABELS, overwrite=True)
    with pytest.raises(OutputError) as caught:
        sink.write(emotion())
    assert "No space left" in one_line(caught.value)
    assert caught.value.exit_code == 7


def test_a_disk_that_fills_up_in_the_middle_of_a_record_leaves_whole_records(tmp_path: Path) -> None:
    # A file size limit makes the kernel take part of a write and refuse the rest, as a full disk does.
    path = tmp_path / "out.jsonl"
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_sinks import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sink = JsonlSink({str(path)!r}, LABELS)
sink.write(emotion())
size = sink.path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (int(size * 2.5), resource.RLIM_INFINITY))
sink.write(emotion())
try:
    sink.write(emotion())
except OutputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert "after 2 records, which are kept" in done.stdout
    lines = path.read_text().splitlines()
    assert len(lines) == 2
    assert all(json.loads(line)["label"] == "sad" for line in lines)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY  # the limit was the child's


def test_plain_lines_name_the_face_or_say_voice_only() -> None:
    out = io.StringIO()
    with LineSink(Console(file=out, width=200)) as sink:
        sink.write(emotion())
        sink.write(emotion(track=None))
    face, voice = out.getvalue().splitlines()
    assert "face 1" in face and "video+audio (40% speech)" in face and face.index("sad 70%") < face.index("happy 20%")
    assert "voice only" in voice


def test_the_live_view_shows_each_present_face_and_forgets_those_gone() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    view = LiveSink(console, "clip.mp4", lambda: "3 frames dropped")
    view.write(emotion(track=1, end_s=2.0))
    view.write(emotion(track=2, end_s=2.0))
    assert {"face 1", "face 2", "3 frames dropped"} <= _shown(view)
    view.write(emotion(track=2, end_s=8.0))
    assert "face 1" not in _shown(view)


def test_several_sources_are_told_apart_on_the_screen() -> None:
    out = io.StringIO()
    door, desk = (
        dataclasses.replace(emotion(end_s=end_s), source=name) for name, end_s in (("door", 2.0), ("desk", 90.0))
    )
    with LineSink(Console(file=out, width=200), several=True) as sink:
        sink.write(door)
        sink.write(desk)
    assert ["door: face 1" in line for line in out.getvalue().splitlines()] == [True, False]
    view = LiveSink(Console(file=io.StringIO(), width=100, force_terminal=True), "two", lambda: "fine", several=True)
    view.write(door)
    view.write(desk)  # on another clock
    console = Console(file=io.StringIO(), width=100)
    console.print(view._render())
    assert "door: face 1" in console.file.getvalue() and "desk: face 1" in console.file.getvalue()


def _shown(view: LiveSink) -> set[str]:
    console = Console(file=io.StringIO(), width=100)
    console.print(view._render())
    text = console.file.getvalue()
    return {phrase for phrase in ("face 1", "face 2", "voice only", "3 frames dropped", "uncertain") if phrase in text}
