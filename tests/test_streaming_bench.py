"""`mma-bench streaming`: every way of computing the same windows, and what the page says of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from conftest import one_line
from streaming_bundle import stream_clips

from mma_benchmarks.result import Result, from_dict
from mma_benchmarks.schema import Streaming, StreamingSource, StreamingWay
from mma_benchmarks.streaming import measure as streaming
from mma_benchmarks.streaming.measure import StreamingOptions, measure_streaming
from mma_benchmarks.streaming.page import agreement_table, blocks, key_table
from mma_edge.bundle import Bundle
from mma_edge.clip import SlidingClips
from mma_edge.errors import BundleError, SourceError, UsageError
from mma_edge.types import Clip
from mma_trainer.report.page import Page, to_html, to_markdown


def stand_in(source: str, image_size: int, hop_s: float, cut: type | None = None) -> list[Clip]:
    """24 windows a quarter of a second apart, and one without a face; the plain cut sees other frames."""
    clips = stream_clips(24, hop_ticks=1, seed=int(cut is SlidingClips))
    return [*clips, dataclasses.replace(clips[-1], frames=None, track_id=None, end_s=99.0)]


@pytest.fixture(scope="module")
def result(streaming_bundle: Bundle) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "collect_clips", lambda *args: stand_in(*args))
        return measure_streaming(streaming_bundle.folder, StreamingOptions(("a/talk.mp4",), 2, (("cpu", None),)), "")


def test_the_page_names_the_engine_of_every_row(result: Result) -> None:
    assert {row[1] for row in key_table([result]).rows} == {f"{result.bundle.backend} fp32"}
    older = [dataclasses.replace(way, backend=None, precision=None) for way in result.results.ways]
    older = dataclasses.replace(result, results=dataclasses.replace(result.results, ways=older))
    assert key_table([older]).rows == key_table([result]).rows


def ways(result: Result, mode: str, hop_s: float) -> dict[float | None, StreamingWay]:
    return {w.max_age_s: w for w in result.results.ways if (w.mode, w.hop_s, w.sound_age_s) == (mode, hop_s, 0.0)}


def test_a_result_is_what_the_schema_says(result: Result) -> None:
    assert from_dict(Streaming, dataclasses.asdict(result.results), "results") == result.results
    assert result.results.sources == [StreamingSource("talk.mp4", 24)]
    assert result.results.settings.hops_s == [0.25, 0.5, 1.0]


@pytest.mark.parametrize(("hop_s", "new"), [(0.25, 1), (0.5, 2), (1.0, 4)])
def test_work_is_counted(result: Result, hop_s: float, new: int) -> None:
    assert ways(result, "full", hop_s)[None].stem_frames == 16
    exact, rolling = ways(result, "exact", hop_s)[None], ways(result, "rolling", hop_s)
    assert (exact.stem_frames, exact.layer_frames) == (new, 16)
    assert (rolling[None].stem_frames, rolling[None].layer_frames) == (new, new)
    assert rolling[0.0].layer_frames == 16
    assert new < rolling[1.0].layer_frames < 16 or hop_s == 1.0


def test_the_sound_is_counted_where_it_is_kept(result: Result) -> None:
    ways = {
        w.sound_age_s: w for w in result.results.ways if w.mode == "rolling" and w.hop_s == 0.25 and not w.max_age_s
    }
    assert ways[0.0].sounds == 1 and ways[0.0].mean_abs_probability_error > 0
    assert 1 > ways[0.25].sounds >= ways[1.0].sounds >= 4 / 23  # one of five, and the first is not timed


def test_errors_are_against_the_whole_graph(result: Result) -> None:
    full, exact = ways(result, "full", 0.5)[None], ways(result, "exact", 0.5)[None]
    rolling = ways(result, "rolling", 0.5)
    assert full.max_abs_logit_difference == 0 and full.speedup == 1
    assert exact.max_abs_logit_difference < 1e-4 and rolling[0.0].max_abs_logit_difference < 1e-4
    assert rolling[None].max_abs_logit_difference > 1e-3
    assert rolling[None].mean_abs_probability_error > rolling[1.0].mean_abs_probability_error
    assert result.results.sampling.max_abs_probability_error > 0.01  # the plain cut's frames are others here
    assert result.results.sampling.windows == 12


def test_times_are_of_faces_that_have_been_there_for_a_window(result: Result) -> None:
    for hop_s, updates in ((0.25, 23), (0.5, 11), (1.0, 5)):
        assert ways(result, "exact", hop_s)[None].update_ms.count == 2 * updates


def test_the_page_shows_every_way_and_what_is_refused(result: Result) -> None:
    assert len(key_table([result]).rows) == 3 * 9
    assert len(agreement_table(result).rows) == 3 * 8
    text = to_markdown(Page("Streaming", blocks(result)))
    assert "rolling, age 2 s" in text and "rolling, sound 0.5 s" in text and "talk.mp4 (24 windows)" in text
    refused = dataclasses.replace(
        result, results=dataclasses.replace(result.results, refused="it agreed in 12.3% of 9 windows")
    )
    assert "12.3% of 9 windows" in to_html(Page("Streaming", blocks(refused)))


def test_clips_too_short_to_time_are_refused(
    streaming_bundle: Bundle, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "collect_clips", lambda *args: stream_clips(1))
    with pytest.raises(SourceError, match="longer than a window") as caught:
        measure_streaming(streaming_bundle.folder, StreamingOptions(), "")
    one_line(caught.value)
    with pytest.raises(BundleError, match="mma-export --streaming"):
        measure_streaming(tiny_bundle, StreamingOptions(), "")
    with pytest.raises(UsageError, match="--repeat"):
        StreamingOptions(repeat=0)


def test_the_hops_that_are_asked_for_are_measured(streaming_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "collect_clips", lambda *args: stand_in(*args))
    options = StreamingOptions(("talk.mp4",), 1, (("cpu", None),), (0.75,))
    found = measure_streaming(streaming_bundle.folder, options, "").results
    assert found.settings.hops_s == [0.75] and {way.hop_s for way in found.ways} == {0.75}
    assert next(way for way in found.ways if way.mode == "exact").stem_frames == 3
    for wrong in (0.0, 0.3, 4.0, float("nan")):
        with pytest.raises(UsageError, match="--hop"):
            StreamingOptions(hops_s=(wrong,))


def test_agreement_counts_classes_and_averages_over_windows_and_classes() -> None:
    agreement = streaming.Agreement()
    same, other = np.log([[0.7, 0.3]]), np.log([[0.4, 0.6]])
    agreement.add(same, same)
    agreement.add(other, same)
    figures = agreement.figures()
    assert figures["windows"] == 2 and figures["top1_agreement"] == 0.5
    assert figures["mean_abs_probability_error"] == pytest.approx(0.15)
    assert figures["max_abs_probability_error"] == pytest.approx(0.3)
