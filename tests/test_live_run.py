"""Whole runs: files exactly as ever, several at once, what is written beside the records, and how a run ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from live_sources import PacedSource, SlowModel, threads_left
from rtsp_server import RTSPServer, write_clip
from test_cli import ENTRY, mma_edge_command

import mma_edge
from mma_edge.errors import DeviceError, OutputError, SourceError
from mma_edge.files import LineFile
from mma_edge.live import FilesPipeline, LivePipeline
from mma_edge.live.report import STAGES, StatsFile, snapshot, stages_line
from mma_edge.pipeline import Pipeline, StreamOptions
from mma_edge.recognizer import Recognizer
from mma_edge.sources import CaptureOptions
from mma_edge.types import Emotion

pytestmark = pytest.mark.wall_clock

GOES_ON = StreamOptions(window_s=0.4, hop_s=0.1, centre_fallback=True, voice_gate=None)


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return mma_edge.load(backend="cpu")


def records(emotions: list[Emotion]) -> list[dict]:
    """All that a record has but its age and the name of its source; probabilities with every digit."""
    return [{**e.to_dict(), "probabilities": e.probabilities.tolist(), "age_ms": 0, "source": ""} for e in emotions]


def test_files_have_the_records_that_each_has_alone_and_without_threads_to_the_last_digit(
    recognizer: Recognizer, tmp_path: Path
) -> None:
    given = {"centre_fallback": True, "voice_gate": None}
    sources = {"one": tmp_path / "one.mp4", "two": tmp_path / "two.mkv"}
    alone = []
    for seconds, path in enumerate(sources.values(), 1):
        write_clip(path, seconds)
        with Pipeline.open(recognizer, path, StreamOptions(**given), threads=False) as pipeline:
            alone += pipeline
        assert alone[-1].source == path.name
    together = list(recognizer.stream(sources, **given))
    assert [emotion.source for emotion in together] == ["one"] * 2 + ["two"] * 4
    assert records(together) == records(alone)
    assert records(list(recognizer.stream(sources["one"], **given))) == records(alone[:2])


def test_with_streaming_each_source_has_its_own_memory_and_the_graphs_are_shared(recognizer: Recognizer) -> None:
    options = StreamOptions(1.6, 0.4, centre_fallback=True, voice_gate=None, streaming="exact")
    live = LivePipeline(recognizer, {"a": PacedSource(seconds=3.0), "b": PacedSource(seconds=3.0)}, options)
    with live:
        assert {emotion.source for emotion in live} == {"a", "b"}
    one, other = (pipeline.predictor.streamer for pipeline in live.pipelines)
    assert one.graphs is other.graphs and one is not other
    for streamer in (one, other):
        assert streamer.stats.updates >= 4 and streamer.stats.stem_frames < 0.7 * 16 * streamer.stats.updates


def test_a_file_that_fails_between_others_is_said_and_they_go_on(tmp_path: Path) -> None:
    write_clip(tmp_path / "good.mp4", 1.0)
    (tmp_path / "bad.mp4").write_bytes(b"\0" * 1000)
    said: list[str] = []
    options = StreamOptions(centre_fallback=True, voice_gate=None, notify=said.append)
    sources = {"bad": tmp_path / "bad.mp4", "good": tmp_path / "good.mp4"}
    with FilesPipeline(SlowModel(), sources, options) as files:
        assert {emotion.source for emotion in files} == {"good"}
    assert list(files.failures) == ["bad"] and said[0].startswith("bad ended: bad.mp4 is not a media file")
    both = {"a": sources["bad"], "b": sources["bad"]}
    with FilesPipeline(SlowModel(), both, options) as files, pytest.raises(SourceError, match="not a media file"):
        list(files)
    done = mma_edge_command("run", *sources.values(), "--quiet", "--centre-fallback", "--backend", "cpu")
    assert done.returncode == 3 and "note: bad.mp4 ended: " in done.stderr and "Traceback" not in done.stderr


def test_live_sources_of_a_program_come_by_name(recognizer: Recognizer, tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", 1.0)
    several = {"left": tmp_path / "clip.mp4", "right": "sample"}
    found = set()
    for emotion in recognizer.stream(
        several, centre_fallback=True, capture=CaptureOptions(realtime=True), hop_s=0.25, voice_gate=None
    ):
        found.add(emotion.source)
        if len(found) == 2:
            break
    assert found == {"left", "right"}
    assert threads_left() == []


def test_stats_are_whole_lines_with_every_field(tmp_path: Path) -> None:
    path = tmp_path / "stats.jsonl"
    sources = {"door": PacedSource(sound=True), "desk": PacedSource(seconds=0.8, dies_s=0.5)}
    live = LivePipeline(SlowModel(0.02), sources, GOES_ON)
    with live, StatsFile(path, live, every_s=0.2):
        start_s = time.monotonic()
        for _ in live:
            if time.monotonic() - start_s > 1.5:
                break
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) >= 6
    last = lines[-1]
    assert list(last) == ["time", "run_s", "answers", "age_ms", "stages_ms", "engine", "sources"]
    assert list(last["stages_ms"]) == list(STAGES) and list(last["sources"]) == ["door", "desk"]
    for stage in ("wait", "crop", "sound", "queue", "engine", "deliver"):
        assert (
            list(last["stages_ms"][stage]) == ["p50", "p95", "max", "count"] and last["stages_ms"][stage]["count"] > 5
        )
    assert 0 < last["age_ms"]["p50"] <= last["age_ms"]["p95"] <= last["age_ms"]["max"]
    assert last["stages_ms"]["engine"]["p50"] >= 20 and 0.1 < last["engine"]["busy"] <= 1
    assert last["engine"]["calls"] > 5 and 1 <= last["engine"]["clips_per_call"] <= 2
    door, desk = last["sources"]["door"], last["sources"]["desk"]
    assert door["state"] == "running" and desk["state"] == "failed" and desk["error"] == "the camera is gone."
    assert door["frames"] > 20 and door["sound_s"] > 1.0 and door["frame_age_s"] < 1.0
    assert door["windows"] - door["replaced"] - door["answers"] in (0, 1, 2)
    assert last["answers"] == door["answers"] + desk["answers"] == sum(line["age_ms"]["count"] for line in lines[-1:])
    values = [line["sources"]["door"]["answers"] for line in lines]
    assert values == sorted(values), "counters only grow"
    assert "age " in stages_line(live) and "engine" in stages_line(live)


def test_before_the_first_answer_the_stats_say_so() -> None:
    live = LivePipeline(SlowModel(), {"a": PacedSource()}, GOES_ON)
    with live:
        assert snapshot(live)["age_ms"] is None and stages_line(live) == ""


def test_stats_never_replace_a_file_unasked(tmp_path: Path) -> None:
    path = tmp_path / "stats.jsonl"
    path.write_text("mine\n")
    live = LivePipeline(SlowModel(), {"a": PacedSource()}, GOES_ON)
    with live, pytest.raises(OutputError, match="--overwrite, or choose another --stats"):
        StatsFile(path, live)
    assert path.read_text() == "mine\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_disk_that_is_full_ends_the_stats_and_not_the_run(tmp_path: Path) -> None:
    full, said = tmp_path / "stats.jsonl", []
    full.symlink_to("/dev/full")
    options = StreamOptions(0.4, 0.1, centre_fallback=True, voice_gate=None, notify=said.append)
    live = LivePipeline(SlowModel(), {"a": PacedSource(seconds=0.8)}, options)
    with live, StatsFile(full, live, overwrite=True, every_s=0.1):
        assert len(list(live)) >= 5
    assert [line for line in said if "stats" in line] == [
        f"no more --stats: cannot write {full}: No space left on device; free disk space or choose another --stats."
    ]


def test_a_line_that_could_not_be_written_whole_is_cut_off(tmp_path: Path) -> None:
    with LineFile(tmp_path / "lines") as file:
        file.append("one\n")
        file.append("two\n")
    assert (tmp_path / "lines").read_text() == "one\ntwo\n" and file.count == 2


def start(*arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", ENTRY, "run", "--backend", "cpu", "--centre-fallback", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_records(path: Path, count: int, limit_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while time.monotonic() < deadline_s and (not path.exists() or path.read_text().count("\n") < count):
        time.sleep(0.02)
    assert path.exists() and path.read_text().count("\n") >= count


@pytest.mark.live
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_live_run_ends_within_two_seconds_with_whole_records(
    tmp_path: Path, signal_number: int, frozen: bool
) -> None:
    path = tmp_path / "out.jsonl"
    with RTSPServer() as server:
        child = start(f"door={server.url}", f"desk={server.url}", "--hop", 0.2, "--output", path, "--voice-gate", "off")
        try:
            wait_for_records(path, 4)
            if frozen:
                server.frozen.set()
                time.sleep(0.5)
            asked_s = time.monotonic()
            child.send_signal(signal_number)
            _, err = child.communicate(timeout=30)
            took_s = time.monotonic() - asked_s
        finally:
            child.kill()
    assert took_s < 2.5, "two seconds, and the interpreter's own end"
    assert child.returncode == 0 and "Traceback" not in err and "Fatal" not in err
    text = path.read_text()
    assert text.endswith("\n") and {json.loads(line)["source"] for line in text.splitlines()} == {"door", "desk"}


@pytest.mark.live
def test_the_exit_code_says_that_one_of_several_failed(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", 2.0)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes((tmp_path / "clip.mp4").read_bytes())
    path = tmp_path / "out.csv"
    program = f"""
import sys
from mma_edge.errors import DeviceError
from mma_edge.sources.playing import RealtimeSource
events = RealtimeSource.events
def dies(self):
    for event in events(self):
        if self.name == "cut.mp4" and event.time_s > 0.5:
            raise DeviceError("the camera is gone")
        yield event
RealtimeSource.events = dies
from mma_edge.cli import main
sys.exit(main(["run", {str(cut)!r}, "desk={tmp_path / "clip.mp4"}", "--realtime", "--centre-fallback", "--voice-gate",
    "off", "--backend", "cpu", "--hop", "0.25", "--output", {str(path)!r}]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == DeviceError.exit_code and "Traceback" not in done.stderr, done.stderr
    assert "note: cut.mp4 ended: the camera is gone." in done.stderr
    rows = path.read_text().splitlines()
    assert rows[0].endswith(",source,speaking,smoothed_s") and sum(row.endswith(",desk,,") for row in rows) >= 7
    assert "answers from" in done.stdout and "desk: centre of the picture" in done.stdout
