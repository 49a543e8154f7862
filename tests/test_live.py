"""Promises of live runs: no answer grows old, no sound and no record is lost, sources do not touch each other."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from live_sources import PacedSource, SlowModel, threads_left

from mma_edge.errors import DeviceError, UsageError
from mma_edge.live import LivePipeline
from mma_edge.pipeline import Pipeline, StreamOptions
from mma_edge.sources import Source, SourceStats
from mma_edge.sources.live import LATE_S, LiveBuffer
from mma_edge.types import AudioChunk, Emotion, Frame

pytestmark = pytest.mark.wall_clock

SLACK_S = 0.2
"""What a busy machine may add to an age."""


def options(**given: object) -> StreamOptions:
    """Hops of a tenth of a second, and the centre of the picture for a face, which costs nothing to find."""
    return StreamOptions(**{"window_s": 0.4, "hop_s": 0.1, "centre_fallback": True, "voice_gate": None, **given})


@pytest.fixture(autouse=True)
def quick_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """No detector: its time is not what these tests are about."""
    monkeypatch.setattr("mma_edge.faces.track.FaceTracker.update", lambda self, frame: [])


def collect(live: LivePipeline, seconds: float = float("inf")) -> list[tuple[float, Emotion]]:
    """Emotions with the time at which they were taken."""
    start_s, found = time.monotonic(), []
    with live:
        for emotion in live:
            found.append((time.monotonic(), emotion))
            if time.monotonic() - start_s > seconds:
                break
    return found


def test_each_source_gets_all_its_answers_under_its_own_name() -> None:
    model = SlowModel()
    sources = {"left": PacedSource(seconds=1.05), "right": PacedSource(seconds=1.05)}
    found = [emotion for _, emotion in collect(LivePipeline(model, sources, options()))]
    for name, source in sources.items():
        ends = [emotion.end_s for emotion in found if emotion.source == name]
        assert ends == sorted(ends) and len(ends) >= 9 and ends[-1] == pytest.approx(1.0, abs=0.06)
        assert source.closed
    assert found[0].to_dict()["source"] in sources
    assert threads_left() == []


@pytest.mark.parametrize("sources", [1, 3])
def test_an_engine_of_three_hops_answers_less_often_and_never_later(sources: int) -> None:
    hop_s, engine_s, said = 0.1, 0.3, []
    model = SlowModel(engine_s)
    live = LivePipeline(
        model,
        {f"camera {number}": PacedSource(sound=True) for number in range(sources)},
        options(hop_s=hop_s, notify=said.append),
    )
    found = collect(live, 3.0)
    bound_s = hop_s + live._due.wait_s + 2 * engine_s + SLACK_S
    ages_s = live.stages.values("age")
    assert len(ages_s) == len(found) >= 6 * sources
    assert np.percentile(ages_s, 95) < 1000 * bound_s
    assert max(ages_s[-5:]) < 1000 * bound_s, "it does not grow"
    for progress, pipeline in zip(live.sources, live.pipelines, strict=True):
        ends = [emotion.end_s for _, emotion in found if emotion.source == progress.name]
        assert ends == sorted(set(ends))
        steps = np.diff(ends)
        assert np.median(steps) == pytest.approx(engine_s, abs=1.1 * hop_s), "every third window"
        assert progress.replaced > len(ends)
        assert progress.windows - progress.replaced - len(ends) <= 4  # in the engine, waiting, not taken in time
        # The faces of every frame were looked for meanwhile.
        assert progress.frames >= 0.85 * 3.0 * 20
        assert pipeline.source.stats.dropped_frames <= 0.1 * progress.frames
    (line,) = [line for line in said if "engine needs" in line]
    assert f"per {hop_s:g} s hop: an answer every 0." in line
    said_s = float(line.rpartition("every ")[2].removesuffix(" s"))
    assert said_s == pytest.approx(engine_s, rel=0.35)
    assert threads_left() == []


def test_what_falls_due_together_is_one_call_for_all_sources() -> None:
    model = SlowModel(0.05)
    sources = {f"camera {number}": PacedSource(seconds=1.2) for number in range(4)}
    found = collect(LivePipeline(model, sources, options()))
    sizes = [len(batch) for batch in model.batches]
    assert sum(sizes) == len(found)
    assert max(sizes) == 4 and np.mean(sizes) > 1.5


def test_no_call_has_more_clips_than_the_engine_takes() -> None:
    model = SlowModel(0.05)
    model.max_batch = 2
    sources = {f"camera {number}": PacedSource(seconds=0.8) for number in range(4)}
    found = collect(LivePipeline(model, sources, options()))
    assert max(len(batch) for batch in model.batches) == 2
    assert {emotion.source for _, emotion in found} == set(sources), "none is overtaken for ever"


def test_where_clips_go_one_by_one_many_faces_get_fresh_answers_in_turn() -> None:
    """Twice as many clips as the engine can compute: each answer waits for its own clip alone."""
    model, hop_s, engine_s = SlowModel(0.05), 0.2, 0.05
    model.max_batch = 1
    live = LivePipeline(model, {f"camera {number}": PacedSource(fps=10) for number in range(8)}, options(hop_s=hop_s))
    found = collect(live, 2.5)
    # The median: a clip that waited for all eight would be twice as old, and a busy machine makes single ones late.
    assert np.median(live.stages.values("age")) < 1000 * (hop_s + live._due.wait_s + 2 * engine_s + SLACK_S)
    counts = [sum(emotion.source == source.name for _, emotion in found) for source in live.sources]
    assert min(counts) >= 3 and max(counts) <= 2.5 * min(counts)


def test_sound_is_complete_where_frames_are_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(self: object, frame: Frame) -> list:
        time.sleep(0.15)
        return []

    monkeypatch.setattr("mma_edge.faces.track.FaceTracker.update", slowly)
    heard: list[AudioChunk] = []
    said: list[str] = []
    live = LivePipeline(
        SlowModel(), {"camera": PacedSource(fps=30, sound=True, seconds=3.0)}, options(notify=said.append)
    )
    clips = live.pipelines[0]._clips
    accept = clips.add_audio
    monkeypatch.setattr(clips, "add_audio", lambda chunk: (heard.append(chunk), accept(chunk)))
    collect(live)
    (progress,), stats = live.sources, live.pipelines[0].source.stats
    assert np.diff([chunk.time_s for chunk in heard]) == pytest.approx(0.02), "no block is missing"
    assert progress.sound_s == pytest.approx(3.0, abs=0.05) and stats.dropped_audio_s == 0
    assert stats.dropped_frames > 40 and progress.frames < 30
    assert live.stages.spread("wait").p95 < 1000 * (LATE_S + SLACK_S), "it is the newest frames that are looked at"
    assert len([line for line in said if "the newest wins" in line]) == 1
    assert live.pipelines[0].tracker.stretch == 2, "new faces are looked for less often"
    assert len([line for line in said if "less often" in line]) == 1


def frame(time_s: float, age_s: float) -> Frame:
    return Frame(np.zeros((2, 2, 3), np.uint8), time_s, time.monotonic() - age_s)


def test_frames_in_between_are_taken_while_there_is_time_for_them() -> None:
    stats = SourceStats()
    buffer = LiveBuffer(stats, 3)
    for number in range(4):  # a burst
        buffer.put(frame(number, 0.0))
    assert [buffer.take().time_s for _ in range(3)] == [1, 2, 3] and stats.dropped_frames == 1
    for number in range(3):
        buffer.put(frame(number, 1.0 - 0.04 * number))
    assert buffer.take().time_s == 2 and buffer.take() is None and stats.dropped_frames == 3


def test_a_source_that_dies_does_not_touch_the_others() -> None:
    said: list[str] = []
    sources = {"door": PacedSource(seconds=2.0, dies_s=0.5), "desk": PacedSource(seconds=2.0)}
    live = LivePipeline(SlowModel(), sources, options(notify=said.append))
    found = collect(live)
    ends = [emotion.end_s for _, emotion in found if emotion.source == "desk"]
    # A window that a newer one replaced, on a machine that has other work, is none that waited for the dead source.
    assert len(ends) >= 16 and np.diff(ends).max() < 0.25
    assert said[0] == "door ended: the camera is gone." and not any("door" in line for line in said[1:])
    assert isinstance(live.failures["door"], DeviceError) and list(live.failures) == ["door"]
    assert live.sources[0].error == "the camera is gone." and sources["door"].closed
    ages_s = live.stages.values("age desk")
    assert np.percentile(ages_s, 95) < 1000 * (0.1 + SLACK_S)


def test_a_frozen_source_does_not_hold_up_the_others() -> None:
    sources = {"door": PacedSource(freezes_s=0.3), "desk": PacedSource(seconds=1.5)}
    live = LivePipeline(SlowModel(), sources, options())
    found = collect(live, 1.4)
    ends = [emotion.end_s for _, emotion in found if emotion.source == "desk"]
    assert len(ends) >= 11 and np.diff(ends).max() < 0.25


def test_when_all_sources_died_the_first_error_is_raised() -> None:
    sources = {"door": PacedSource(dies_s=0.2), "desk": PacedSource(dies_s=0.3)}
    with pytest.raises(DeviceError, match="the camera is gone"):
        collect(LivePipeline(SlowModel(), sources, options()))
    assert threads_left() == []


def test_a_bug_in_one_source_is_told_as_such() -> None:
    class Buggy(PacedSource):
        def events(self):
            raise ZeroDivisionError("division by zero")

    with pytest.raises(ZeroDivisionError):
        collect(LivePipeline(SlowModel(), {"odd": Buggy()}, options()))
    said: list[str] = []
    sources = {"odd": Buggy(), "even": PacedSource(seconds=0.5)}
    assert collect(LivePipeline(SlowModel(), sources, options(notify=said.append)))
    assert said[0] == "odd ended: ZeroDivisionError: division by zero."


def test_an_error_of_the_engine_ends_everything() -> None:
    class Broken(SlowModel):
        def predict_clips(self, clips: list) -> list:
            raise UsageError("the engine broke")

    with pytest.raises(UsageError, match="the engine broke"):
        collect(LivePipeline(Broken(), {"a": PacedSource(), "b": PacedSource()}, options()))
    assert threads_left() == []


@pytest.mark.parametrize(
    "sources", [lambda: {"a": PacedSource(freezes_s=0.3)}, lambda: {"a": PacedSource(), "b": PacedSource(sound=True)}]
)
def test_leaving_ends_every_thread_within_two_seconds(sources: Callable[[], dict[str, Source]]) -> None:
    live = LivePipeline(SlowModel(0.3), sources(), options())
    with live:
        for _ in live:
            break
        left_s = time.monotonic()
    assert time.monotonic() - left_s < 2.0
    assert live.left_behind == [] and threads_left() == []


def test_an_engine_that_hangs_is_left_to_itself_and_said() -> None:
    said: list[str] = []
    model = SlowModel(0.0)
    live = LivePipeline(model, {"a": PacedSource()}, options(notify=said.append))
    with live:
        next(iter(live))
        model.takes_s = 2.5
        time.sleep(0.4)
        left_s = time.monotonic()
    assert time.monotonic() - left_s < 2.0
    assert live.left_behind == ["the engine"] and "left to itself: the engine" in said[-1]
    assert threads_left(4.0) == []


def test_answers_that_were_not_taken_yet_come_after_stop() -> None:
    model = SlowModel(0.1)
    live = LivePipeline(model, {"a": PacedSource()}, options())
    with live:
        running = iter(live)
        taken = [next(running) for _ in range(3)]
        time.sleep(0.5)
        live.stop()
        taken += list(live)
    assert len(taken) == sum(len(batch) for batch in model.batches), "whatever the engine said was taken"


def test_a_slow_reader_gets_new_answers_less_often_and_loses_none() -> None:
    said: list[str] = []
    model = SlowModel()
    live = LivePipeline(model, {"a": PacedSource()}, options(notify=said.append))
    start_s, taken = time.monotonic(), 0
    with live:
        for _ in live:
            taken += 1
            time.sleep(0.3)  # a sink
            if said or time.monotonic() - start_s > 8.0:
                break
    assert np.percentile(live.stages.values("age"), 95) < 1000 * (0.1 + 0.3 + SLACK_S)
    assert sum(len(batch) for batch in model.batches) - taken <= 2
    assert any("the records are not taken" in line for line in said)


def test_whole_is_for_files() -> None:
    with pytest.raises(UsageError, match="--whole"):
        LivePipeline(SlowModel(), {"a": PacedSource()}, StreamOptions(whole=True))


def test_progress_shows_a_thread_that_stands_still() -> None:
    model = SlowModel(0.0)
    live = LivePipeline(model, {"a": PacedSource()}, options())
    with live:
        running = iter(live)
        next(running)
        model.takes_s = 1.0
        next(running)
        deadline_s = time.monotonic() + 2.0
        while live.engine.waiting and time.monotonic() < deadline_s:
            time.sleep(0.01)
        time.sleep(0.3)
        assert not live.engine.waiting and time.monotonic() - live.engine.since_s > 0.25
        (source,) = live.sources
        before = source.thread.steps
        time.sleep(0.3)
        assert source.thread.steps > before and source.windows > 2
    assert source.thread.ended and live.engine.ended


def test_one_live_source_gives_the_answers_of_a_pipeline() -> None:
    """The same source, through threads and without; of windows that are due at once only the newest is answered."""
    roads = []
    for kind in (LivePipeline, Pipeline):
        source = PacedSource(seconds=1.0, fps=10)
        with kind(SlowModel(), {"a": source} if kind is LivePipeline else source, options()) as running:
            roads.append([(e.start_s, e.end_s, e.track_id, e.box, e.modalities) for e in running])
    assert len(roads[0]) >= 5 and set(roads[0]) <= set(roads[1]) and roads[0][-1] == roads[1][-1]
