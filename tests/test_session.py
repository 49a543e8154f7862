"""A session keeps all of a run in its folder, whole at any moment; its reader takes half of one, too."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import one_line
from live_sources import PacedSource, SlowModel
from rich.console import Console

import mma_edge
from mma_edge.commands.outputs import Outputs, followed, run_sources
from mma_edge.errors import OutputError, SourceError
from mma_edge.live import LivePipeline
from mma_edge.pipeline import StreamOptions
from mma_edge.recognizer import Recognizer
from mma_edge.session.folder import EVENTS, MANIFEST, NOT_ENDED, read_session
from mma_edge.session.reading import FIELDS, RECORDS, read_records
from mma_edge.session.recorder import SessionOptions, SessionRecorder, check_folder
from mma_edge.session.tally import SourceTally
from mma_edge.sinks import CsvSink, JsonlSink
from mma_edge.sources import SourceStats
from mma_edge.types import AudioChunk, Emotion, Frame

NUMBERS = SessionOptions(video=False)


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return mma_edge.load(backend="cpu")


def keep(recognizer: Recognizer, folder: Path, options: SessionOptions = NUMBERS, **given: object) -> Path:
    """A session of the sample; its records stand in `folder`.jsonl as well."""
    path = folder.with_suffix(".jsonl")
    stream = StreamOptions(**given)
    stream, followers = followed(stream, [SessionRecorder(folder, options, recognizer, stream)])
    outputs = Outputs(path, None, None, True, True, followers)
    assert run_sources(recognizer, {"sample.mp4": "sample"}, stream, outputs, "", Console(quiet=True)) == 0
    return path


@pytest.fixture(scope="module")
def kept(recognizer: Recognizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sessions") / "talk"
    keep(recognizer, folder)
    return folder


@pytest.fixture
def copy(kept: Path, tmp_path: Path) -> Path:
    """The session again, for a test that damages it."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in kept.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_session_has_the_records_of_output_and_what_made_them(kept: Path) -> None:
    assert (kept / RECORDS).read_bytes() == kept.with_suffix(".jsonl").read_bytes()
    session = read_session(kept)
    assert session.problems == () and session.state == "ended" and session.ended > session.started
    assert len(session.records) == 16 and set(session.records[0]) == set(FIELDS)
    assert session.name == "talk" and session.model["name"] == "mma-dfer-nano" and session.model["backend"] == "cpu"
    assert session.model["labels"] == [*session.records[0]["probabilities"]]
    assert session.options["hop_s"] == 0.5 and session.options["voice_gate"] == 0.1
    source = session.sources["sample.mp4"]
    assert source["size"] == [480, 480] and source["frames"] == 195 and not source["live"] and source["error"] is None
    assert source["last_s"] == pytest.approx(7.8, abs=0.1) and source["sound_s"] == pytest.approx(7.8, abs=0.1)
    assert source["video"] is None and session.videos("sample.mp4") == []
    assert session.privacy["video"] is False and "No picture" in session.privacy["statement"]
    assert [event["kind"] for event in session.events] == ["end"]


def test_a_folder_that_is_not_empty_is_refused_and_nothing_in_it_changes(kept: Path, recognizer: Recognizer) -> None:
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    for check in (check_folder, lambda folder: SessionRecorder(folder, NUMBERS, recognizer, StreamOptions())):
        with pytest.raises(OutputError, match="exists and is not empty") as caught:
            check(kept)
        one_line(caught.value)
    assert before == {path.name: path.read_bytes() for path in kept.iterdir()}


def test_a_run_that_never_began_leaves_nothing_behind(tmp_path: Path, recognizer: Recognizer) -> None:
    with SessionRecorder(tmp_path / "a" / "b", NUMBERS, recognizer, StreamOptions()):
        assert (tmp_path / "a" / "b" / MANIFEST).is_file()
    assert list(tmp_path.iterdir()) == []


class Labelled(SlowModel):
    """Stands for a recognizer: it has what a session notes of its model."""

    def __init__(self, recognizer: Recognizer) -> None:
        super().__init__()
        self.bundle, self.engine = recognizer.bundle, recognizer.engine
        self.backend, self.precision = recognizer.backend, recognizer.precision


def test_a_session_begins_and_ends_in_mid_run_with_marks_gaps_and_a_source_that_died(
    tmp_path: Path, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mma_edge.faces.track.FaceTracker.update", lambda self, frame: [])
    said: list[str] = []
    stream = StreamOptions(0.4, 0.1, centre_fallback=True, voice_gate=None, notify=said.append)
    recorder = None

    class Late:
        def frame(self, source: str, frame: Frame, faces: object) -> None:
            if recorder:
                recorder.frame(source, frame, faces)

        def sound(self, source: str, chunk: AudioChunk) -> None:
            if recorder:
                recorder.sound(source, chunk)

    sources = {"door": PacedSource(dies_s=0.8), "desk": PacedSource(seconds=2.0)}
    model = Labelled(recognizer)
    with LivePipeline(model, sources, replace(stream, watchers=(Late(),))) as live:
        for number, emotion in enumerate(live):
            if number == 3:
                fresh = SessionRecorder(tmp_path / "s", NUMBERS, model, stream)
                fresh.begin(live)
                recorder = fresh
            if recorder:
                recorder.write(emotion)
            if number == 6:
                recorder.mark("she smiles", "1")
                recorder.notice("door: the camera stalls")
                recorder.notice("doors are open")
                time.sleep(0.05)
                assert recorder.status()["marks"] == 1 and recorder.status()["bytes"] > 100
        recorder.close()
        recorder.close()
        recorder.write(emotion)  # of a thread that did not hear of the end
    session = read_session(tmp_path / "s")
    assert session.problems == () and session.records[0]["source"] in sources
    (mark,) = session.marks
    assert mark["text"] == "she smiles" and mark["key"] == "1" and set(mark["times_s"]) == {"door", "desk"}
    assert session.sources["door"]["error"] == "the camera is gone." and session.sources["desk"]["error"] is None
    notices = [event for event in session.events if event["kind"] == "notice"]
    said = [(event["source"], event["text"]) for event in notices]
    assert said == [("door", "door: the camera stalls"), (None, "doors are open")]
    assert {e["source"] for e in session.events if e["kind"] == "end"} == {"door", "desk"}
    assert session.sources["desk"]["frames"] < 40, "only what came after its beginning"


def test_a_session_that_ends_in_mid_run_says_so(tmp_path: Path, recognizer: Recognizer) -> None:
    stream, model = StreamOptions(0.4, 0.1, voice_gate=None), Labelled(recognizer)
    with LivePipeline(model, {"desk": PacedSource(sound=True)}, stream) as live:
        answers = iter(live)
        next(answers)
        recorder = SessionRecorder(tmp_path / "s", NUMBERS, model, stream)
        recorder.begin(live)
        recorder.write(next(answers))
        recorder.close()
    (event,) = read_session(tmp_path / "s").events
    assert (event["kind"], event["source"], event["text"]) == ("end", "desk", "the session ended")


def frame(time_s: float) -> Frame:
    return Frame(np.zeros((4, 6, 3), np.uint8), time_s, 0.0)


def test_gaps_of_picture_and_sound_are_events_and_a_slow_film_has_none() -> None:
    tally = SourceTally("a", True, SourceStats(), SourceStats())
    assert [tally.frame(frame(t)) for t in (0.0, 0.04, 0.9)] == [None] * 3
    gap = tally.frame(frame(5.0))
    assert (gap.kind, gap.source, gap.start_s, gap.end_s) == ("gap", "a", 0.9, 5.0) and "no picture" in gap.text
    assert tally.size == (6, 4)
    slow = SourceTally("b", False, SourceStats(), SourceStats())
    assert [slow.frame(frame(t)) for t in (0.0, 0.9, 3.0, 5.0, 7.0)] == [None] * 5
    block = np.zeros((1, 1600), np.float32)
    assert slow.sound(AudioChunk(block, 16000, 0.0, 0.0)) is None
    assert slow.sound(AudioChunk(block, 16000, 0.1, 0.0)) is None
    assert slow.sound(AudioChunk(block, 16000, 1.0, 0.0)).start_s == pytest.approx(0.2)


def test_drops_that_go_on_are_one_event_when_they_stop() -> None:
    stats = SourceStats(dropped_frames=7)
    tally = SourceTally("a", True, stats, SourceStats(dropped_frames=7))
    events = []
    for second in range(12):
        tally.frame(frame(float(second)))
        stats.dropped_frames += 2 * (3 <= second < 8)
        events.append(tally.drops())
    (event,) = filter(None, events)
    assert event.text == "10 frames dropped" and (event.start_s, event.end_s) == (2.0, 8.0)
    assert tally.to_dict()["dropped_frames"] == 10


def emotion(**given: object) -> Emotion:
    usual = {
        "start_s": 0.5, "end_s": 4.5, "track_id": 2, "box": (1.0, 2.0, 30.0, 40.0), "modalities": ("video", "audio"),
        "labels": ("happy", "träurig"), "probabilities": np.array([0.75, 0.25], np.float32), "age_ms": 40.2,
    }  # fmt: skip
    return Emotion(**{**usual, **given})


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """The same records as JSON Lines and as CSV."""
    answers = [
        emotion(source="talk, a \"b\".mp4", voice=0.5, speaking=0.25, smoothed_s=2.0),
        emotion(track_id=None, box=None, modalities=("audio",), abstained=True),
    ]  # fmt: skip
    paths = tmp_path / "a.jsonl", tmp_path / "a.csv"
    for path, kind in zip(paths, (JsonlSink, CsvSink), strict=True):
        with kind(path, answers[0].labels) as sink:
            for answer in answers:
                sink.write(answer)
    yield paths


def test_a_csv_holds_the_same_records_as_json_lines(both: tuple[Path, Path]) -> None:
    first, second = (list(read_records(path)) for path in both)
    assert first == second and len(first) == 2 and first[0]["speaking"] == 0.25 and first[1]["speaking"] is None
    assert first[1]["track_id"] is None and first[1]["label"] == "uncertain"


def test_records_of_the_first_version_have_none_for_what_came_later(tmp_path: Path) -> None:
    old = {"start_s": 0.0, "end_s": 4.0, "track_id": 1, "box": [0, 0, 9, 9], "modalities": ["video"], "label": "sad",
           "probabilities": {"sad": 1.0}, "age_ms": 3.0}  # fmt: skip
    path = tmp_path / "old.jsonl"
    path.write_text(json.dumps(old) + "\n" + json.dumps({**old, "of_2031": 4}) + "\n")
    first, later = read_records(path)
    assert first == dict.fromkeys(FIELDS) | old and later["of_2031"] == 4
    table = tmp_path / "old.csv"
    table.write_text(
        "start_s,end_s,track_id,x0,y0,x1,y1,modalities,label,p_sad,age_ms\n0.0,4.0,1,0,0,9,9,video,sad,1.0,3.0\n"
    )
    assert list(read_records(table)) == [first]


@pytest.mark.parametrize("number", [0, 1], ids=["jsonl", "csv"])
def test_a_line_that_a_crash_cut_is_left_out_and_said(both: tuple[Path, Path], number: int) -> None:
    path, said = both[number], []
    path.write_bytes(path.read_bytes()[:-30])
    assert len(list(read_records(path, said.append))) == 1
    assert said == [f"the last line of {path.name} is cut off and left out"]


def test_a_file_without_records_is_one_clear_line(tmp_path: Path) -> None:
    for name, text in (("a.txt", ""), ("b.jsonl", '{"age_ms": {}}\n'), ("c.csv", "a,b\n1,2\n"), ("d.csv", "")):
        (tmp_path / name).write_text(text)
        with pytest.raises(SourceError, match=name) as caught:
            list(read_records(tmp_path / name))
        one_line(caught.value)
    with pytest.raises(SourceError, match="does not exist"):
        read_records(tmp_path / "none.jsonl")
    with pytest.raises(SourceError, match=r"has no records\.jsonl"):
        read_records(tmp_path)


def test_half_a_session_is_read_and_says_what_is_missing(copy: Path) -> None:
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest |= {"state": "running", "ended": None}
    manifest["sources"]["sample.mp4"]["video"] = "video-1.mp4"
    (copy / MANIFEST).write_text(json.dumps(manifest))
    (copy / RECORDS).write_bytes((copy / RECORDS).read_bytes()[:-20])
    (copy / EVENTS).unlink()
    session = read_session(copy)
    assert session.problems == (
        NOT_ENDED,
        "events.jsonl is missing",
        "the last line of records.jsonl is cut off and left out",
        "video-1.mp4, the video of sample.mp4, is missing",
    )
    assert len(session.records) == 15 and session.events == ()
    (copy / RECORDS).unlink()
    assert read_session(copy).records == [] and "records.jsonl is missing" in read_session(copy).problems


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"kind": "bundle"}', '{"kind": "mma-edge session", "schema": 2}', "[" * 100_000]
)
def test_what_is_no_session_is_refused_in_one_line(copy: Path, text: str) -> None:
    (copy / MANIFEST).write_text(text)
    with pytest.raises(SourceError) as caught:
        read_session(copy)
    one_line(caught.value)


def test_a_manifest_opens_nothing_outside_its_folder(copy: Path) -> None:
    manifest = json.loads((copy / MANIFEST).read_text())
    (copy.parent / "secret.mp4").write_text("x")
    manifest["sources"]["sample.mp4"]["video"] = "../secret.mp4"
    (copy / MANIFEST).write_text(json.dumps(manifest))
    assert read_session(copy).videos("sample.mp4") == []


def test_files_are_sources_that_end_one_after_the_other(tmp_path: Path, recognizer: Recognizer) -> None:
    stream = StreamOptions()
    recorder = SessionRecorder(tmp_path / "s", SessionOptions(), recognizer, stream)
    stream, followers = followed(stream, [recorder])
    outputs = Outputs(None, None, None, False, True, followers)
    assert run_sources(recognizer, {"a": "sample", "b": "sample"}, stream, outputs, "", Console(quiet=True)) == 0
    session = read_session(tmp_path / "s")
    ends = [(event["source"], event["end_s"]) for event in session.events if event["kind"] == "end"]
    assert ends == [("a", 7.802), ("b", 7.802)] and session.events[1]["run_s"] - session.events[0]["run_s"] > 0.3
    assert [source["video"] for source in session.sources.values()] == ["video-1.mp4", "video-2.mp4"]
