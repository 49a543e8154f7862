"""`--streaming`: the answers of the whole graph for less work, frames on a grid fixed in time, and clear refusals."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import one_line
from streaming_bundle import stream_clips

import mma_edge
from mma_edge.bundle import Bundle, write_manifest
from mma_edge.clip import Crop, GridClips, SlidingClips, frame_indices
from mma_edge.errors import BundleError, UsageError
from mma_edge.pipeline import StreamOptions
from mma_edge.recognizer import Recognizer
from mma_edge.streaming import Roll, Streamer, StreamingGraphs, StreamingRecognizer, choose_mode, open_graphs
from mma_edge.types import Clip

FPS = 25


@pytest.fixture(scope="module")
def recognizer(streaming_bundle: Bundle) -> Recognizer:
    return mma_edge.load(streaming_bundle.folder, "cpu", "fp32")


def offering_rolling(bundle: Bundle, folder: Path, **entry: object) -> Path:
    """A copy that offers rolling in this way, whatever its gate said."""
    shutil.copytree(bundle.folder, folder)
    manifest = json.loads(json.dumps(bundle.manifest))
    manifest["streaming"]["fp32"]["rolling"] = {"parity": {}, **entry}
    write_manifest(folder, manifest)
    return folder


def streamer(bundle: Bundle, mode: str, max_age_s: float = float("inf")) -> Streamer:
    return Streamer(open_graphs(bundle, mode, "cpu", "fp32")[0], mode, max_age_s)


def crop(time_s: float, track: int = 1) -> Crop:
    image = np.full((2, 2, 3), round(time_s * FPS) % 256, np.uint8)
    return Crop(track, (0.0, 0.0, 1.0, 1.0), image, time_s, arrival_s=time_s)


def play(clips: SlidingClips, times_s: list[float]) -> list[Clip]:
    out = []
    for time_s in times_s:
        out += clips.due(time_s)
        clips.add_crops([crop(time_s)], time_s)
    return out + clips.finish()


def film(seconds: float, start_s: float = 0.0) -> list[float]:
    return [start_s + index / FPS for index in range(round(seconds * FPS))]


def test_exact_gives_the_recognizers_answers_and_embeds_each_frame_once(recognizer: Recognizer) -> None:
    clips = [clip for pair in zip(stream_clips(6), stream_clips(6, track=2, seed=1), strict=True) for clip in pair]
    clips[7] = dataclasses.replace(clips[7], mel=None)
    streaming = StreamingRecognizer(recognizer, "exact")
    for number in range(0, len(clips), 2):
        pair = clips[number : number + 2]
        for got, expected in zip(streaming.predict_clips(pair), recognizer.predict_clips(pair), strict=True):
            np.testing.assert_allclose(got.probabilities, expected.probabilities, atol=1e-5)
            assert (got.track_id, got.end_s, got.modalities) == (expected.track_id, expected.end_s, expected.modalities)
    assert streaming.stats.stem_frames == 2 * (16 + 5 * 2)
    assert streaming.stats.layer_frames == 2 * 6 * 16


def test_rolling_computes_new_frames_only_and_is_exact_at_first(streaming_bundle: Bundle) -> None:
    exact, rolling = streamer(streaming_bundle, "exact"), streamer(streaming_bundle, "rolling")
    pairs = [(exact([clip]), rolling([clip])) for clip in stream_clips(6)]
    np.testing.assert_allclose(*pairs[0], atol=1e-4)
    assert np.abs(pairs[5][0] - pairs[5][1]).max() > 1e-4  # another sound each time: an approximation
    assert rolling.stats.layer_frames == rolling.stats.stem_frames == 16 + 5 * 2


def test_no_summary_gets_older_than_its_bound(streaming_bundle: Bundle) -> None:
    always, bounded = (streamer(streaming_bundle, "rolling", age_s) for age_s in (0.0, 1.0))
    exact = streamer(streaming_bundle, "exact")
    for clip in stream_clips(6):
        expected = exact([clip])
        np.testing.assert_allclose(always([clip]), expected, atol=1e-4)
        bounded([clip])
    assert always.stats.layer_frames == 6 * 16
    assert 16 + 5 * 2 < bounded.stats.layer_frames < 6 * 16


def test_sound_that_ends_makes_rolling_start_anew(streaming_bundle: Bundle) -> None:
    with_sound, without = stream_clips(3), stream_clips(3, sound=False)
    exact, rolling = streamer(streaming_bundle, "exact"), streamer(streaming_bundle, "rolling")
    for clip in (*with_sound[:2], without[2]):
        expected, got = exact([clip]), rolling([clip])
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_windows_without_a_new_frame_still_hear_the_new_sound(streaming_bundle: Bundle) -> None:
    first, second = stream_clips(2, hop_ticks=0)
    exact, rolling = streamer(streaming_bundle, "exact"), streamer(streaming_bundle, "rolling")
    assert np.abs(exact([first]) - exact([second])).max() > 1e-3
    assert np.abs(rolling([first]) - rolling([second])).max() > 1e-3
    assert rolling.stats.layer_frames == 16 + 1


def kept_frames(streaming: StreamingRecognizer) -> int:
    return sum(len(track.tokens) for track in streaming.streamer._tracks.values())


def test_memory_holds_the_newest_window_of_the_tracks_that_are_there(recognizer: Recognizer) -> None:
    streaming = StreamingRecognizer(recognizer, "exact")
    for pair in zip(stream_clips(40), stream_clips(40, track=2), strict=True):
        streaming.predict_clips(pair)
    assert kept_frames(streaming) == 32
    later = [clip for clip in stream_clips(41) if clip.end_s > pair[0].end_s]
    streaming.predict_clips(later)  # the second face has left
    assert kept_frames(streaming) == 16
    alone = Clip(60.0, 64.0, None, None, None, later[0].mel, 0.0)
    streaming.predict_clips([alone])
    assert kept_frames(streaming) == 0


def test_a_window_without_a_face_is_answered_by_the_whole_graph(recognizer: Recognizer) -> None:
    voice = Clip(0.0, 4.0, None, None, None, stream_clips(1)[0].mel, 0.0)
    got, expected = (who.predict_clips([voice])[0] for who in (StreamingRecognizer(recognizer, "exact"), recognizer))
    np.testing.assert_array_equal(got.probabilities, expected.probabilities)
    assert got.modalities == ("audio",)
    assert StreamingRecognizer(recognizer, "exact").predict_clips([]) == []


def test_windows_share_all_but_the_newest_frames() -> None:
    clips = play(GridClips(4.0, 0.5), film(8, start_s=3.0))
    full = [clip for clip in clips if clip.end_s - clip.start_s > 3.99]
    assert len(full) == 9
    for before, after in itertools.pairwise(full[:-1]):
        assert after.times_s[:14] == before.times_s[2:]
        assert after.times_s[14] > before.times_s[15]
        assert after.times_s[15] <= after.end_s
    for clip in full:
        assert clip.frames[:, 0, 0, 0].tolist() == [round(time_s * FPS) % 256 for time_s in clip.times_s]


def test_the_grid_takes_the_frames_that_the_paper_takes() -> None:
    """To one frame: a window of 4 s has now 100, now 101 pictures, and frame_indices counts them."""
    grid, plain = (play(cut(4.0, 0.5), film(8)) for cut in (GridClips, SlidingClips))
    assert grid[-1].end_s % 0.5 > 0.1  # the rest of the file: no whole hop, its grid is the last hop's
    for ours, theirs in zip(grid[:-1], plain[:-1], strict=True):
        np.testing.assert_allclose(ours.times_s, theirs.times_s, atol=1.01 / FPS)


def test_a_track_that_is_not_a_window_old_is_sampled_as_ever() -> None:
    grid, plain = (play(cut(4.0, 0.5), film(3)) for cut in (GridClips, SlidingClips))
    assert [clip.times_s for clip in grid] == [clip.times_s for clip in plain]
    slow = [index / 2 for index in range(20)]  # two pictures per second: every one of them, the last repeated
    grid, plain = (play(cut(4.0, 0.5), slow) for cut in (GridClips, SlidingClips))
    assert [clip.times_s for clip in grid] == [clip.times_s for clip in plain]


def test_a_hop_that_is_no_multiple_of_the_segment_keeps_the_frames_too() -> None:
    clips = play(GridClips(4.0, 0.3), film(9))
    full = [clip for clip in clips if clip.end_s - clip.start_s > 3.99]
    frames = {time_s for clip in full for time_s in clip.times_s}
    spent_s = full[-1].end_s - full[0].end_s
    assert len(frames) <= 16 + spent_s / 0.25 + 1
    assert all(clip.end_s - clip.times_s[-1] < 2 * 0.25 for clip in full)


def test_a_gap_shows_the_last_frame_before_it() -> None:
    times_s = [time_s for time_s in film(8) if not 5.0 <= time_s < 6.0]
    clip = next(clip for clip in play(GridClips(4.0, 0.5), times_s) if clip.end_s == 7.0)
    assert clip.times_s == tuple(sorted(clip.times_s))
    assert sum(time_s == clip.times_s[7] for time_s in clip.times_s) == 1 + 4
    assert len(clip.frames) == 16


def test_a_short_window_of_a_face_that_just_left_is_no_clip_of_nothing() -> None:
    clips = GridClips(0.5, 0.5)
    play(clips, film(0.97))
    for time_s in film(2, start_s=1.0):
        clips.due(time_s)
        clips.add_crops([], time_s)


@pytest.mark.parametrize("n", [64, 96, 100, 101, 120, 240])
def test_one_frame_per_segment_is_frame_indices_middle(n: int) -> None:
    clips = GridClips(4.0, 4.0)
    clips.due(0.0)
    crops = [crop(index * 4.0 / n) for index in range(n)]
    sampled = clips._sample(crops, 0.0, 4.0)
    assert [crops.index(one) for one in sampled] == frame_indices(n).tolist()


def test_streaming_options_that_make_no_sense_are_refused() -> None:
    for options, says in (
        ({"streaming": "fast"}, "exact, rolling"),
        ({"streaming": "exact", "whole": True}, "--whole"),
        ({"streaming": "rolling", "sound_age_s": -1.0}, "--sound-age -1"),
        ({"streaming": "rolling", "sound_age_s": float("nan")}, "--sound-age nan"),
        ({"streaming": "rolling", "sound_age_s": "old"}, "--sound-age old"),
    ):
        with pytest.raises(UsageError, match=says) as caught:
            StreamOptions(**options)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["exact", "rolling"])
def test_faces_that_go_in_together_get_the_answers_that_they_get_alone(streaming_bundle: Bundle, mode: str) -> None:
    """Also where the second face comes later, so that it has more new frames."""
    together, *alone = (streamer(streaming_bundle, mode) for _ in range(3))
    first, second = stream_clips(6), stream_clips(6, track=2, seed=1)
    for number in range(6):
        clips = [first[number]] + [second[number]] * (number >= 2)
        expected = [one([clip]) for one, clip in zip(alone, clips, strict=False)]
        np.testing.assert_allclose(together(clips), np.concatenate(expected), atol=1e-5)
    assert together.stats.layer_frames == sum(one.stats.layer_frames for one in alone)


class OneClipPart:
    """A rolling graph from before several faces went in together."""

    max_clips = None

    def __init__(self, frame_counts: tuple[int, ...] | None) -> None:
        self.frame_counts = frame_counts
        self.shapes = {"tokens": (None, 2, 4), "past": (16, 3), "order": (16,), "mel": (1, 512, 128)}

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        assert {name: array.ndim for name, array in inputs.items()} == {k: len(v) for k, v in self.shapes.items()}
        return {"logits": inputs["order"][None, :2], "summaries": inputs["tokens"][:, 0, :3]}


@pytest.mark.parametrize("frame_counts", [None, (4, 16)])
def test_graphs_of_older_bundles_and_of_fixed_sizes_take_the_faces_one_by_one(frame_counts: tuple | None) -> None:
    part = OneClipPart(frame_counts)
    rolls = [
        Roll(np.full((new, 2, 4), new, np.float32), np.zeros((16, 3), np.float32), np.arange(16), np.zeros((512, 128)))
        for new in (1, 3)
    ]
    rolled = StreamingGraphs(part, part).roll(rolls)
    padding = 3 if frame_counts else 0
    np.testing.assert_array_equal([answer.logits for answer in rolled], [[0, 1 + padding], [0, 1]])
    assert [len(answer.summaries) for answer in rolled] == [1, 3]
    assert [answer.heard for answer in rolled] == [None, None]


@pytest.mark.parametrize("mode", ["exact", "rolling"])
def test_openvino_gives_the_answers_of_onnxruntime(
    streaming_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("MMA_EDGE_CACHE", str(tmp_path))
    folder = offering_rolling(streaming_bundle, tmp_path / "bundle", file="streaming.rolling.onnx")
    ways = [StreamingRecognizer(Recognizer.open(folder, name, "fp32", mode), mode) for name in ("openvino", "cpu")]
    for pair in zip(stream_clips(4), stream_clips(4, track=2, seed=1), strict=True):
        got, expected = (way.predict_clips(pair) for way in ways)
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-4)
    assert ways[0].stats == ways[1].stats
    assert list((tmp_path / "openvino-parts").glob("*/*/model.xml"))


def test_an_engine_that_the_bundle_has_no_parts_for_is_refused_with_the_command(
    recognizer: Recognizer, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="mma-export --streaming --precision fp16") as caught:
        recognizer.bundle.parts("cpu", "fp16", "exact")
    one_line(caught.value)
    other = Recognizer(recognizer.bundle, recognizer.engine)
    other.precision = "int8"
    with pytest.raises(BundleError, match="in fp32 only, not in int8"):
        StreamingRecognizer(other, "exact")


def test_auto_takes_the_best_mode_that_the_bundle_offers(
    streaming_bundle: Bundle, tiny_bundle: Path, tmp_path: Path
) -> None:
    rolling = offering_rolling(streaming_bundle, tmp_path / "rolling", file="streaming.rolling.onnx")
    refused = offering_rolling(streaming_bundle, tmp_path / "refused", refused="it agreed in 1% of 9 windows")
    for folder, mode, says in (
        (rolling, "rolling", ""),
        (refused, "exact", "of 9 windows"),
        (tiny_bundle, None, "no graphs"),
    ):
        lines: list[str] = []
        opened = Recognizer.open(folder, "cpu", None, "auto")
        assert choose_mode(opened, "auto", lines.append) == mode
        assert (says in lines[0]) if says else not lines
    assert choose_mode(opened, "exact", lines.append) == "exact"  # what was asked for is left to fail


def test_a_bundle_of_the_older_form_is_read(streaming_bundle: Bundle, tmp_path: Path) -> None:
    folder = shutil.copytree(streaming_bundle.folder, tmp_path / "older")
    entry = {"precision": "fp32", **streaming_bundle.manifest["streaming"]["fp32"]}
    older = write_manifest(folder, {**streaming_bundle.manifest, "streaming": entry})
    assert older.parts("cpu", "fp32", "exact") == streaming_bundle.parts("cpu", "fp32", "exact")
    clip = stream_clips(1)[0]
    np.testing.assert_array_equal(*(streamer(bundle, "exact")([clip]) for bundle in (older, streaming_bundle)))


def test_a_bundle_without_parts_says_how_to_get_them(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match="mma-export --streaming") as caught:
        StreamingRecognizer(mma_edge.load(tiny_bundle, "cpu", "fp32"), "exact")
    one_line(caught.value)


def test_rolling_that_failed_its_gate_is_refused_with_the_figure(streaming_bundle: Bundle, tmp_path: Path) -> None:
    folder = offering_rolling(streaming_bundle, tmp_path / "bundle", refused="it agreed in 93.8% of 48 windows")
    recognizer = mma_edge.load(folder, "cpu", "fp32")
    with pytest.raises(BundleError, match="of 48 windows") as caught:
        StreamingRecognizer(recognizer, "rolling")
    one_line(caught.value)
    StreamingRecognizer(recognizer, "exact")


def test_the_manifests_age_is_what_runs(streaming_bundle: Bundle, tmp_path: Path) -> None:
    folder = offering_rolling(streaming_bundle, tmp_path / "bundle", file="streaming.rolling.onnx", max_age_s=1.0)
    streaming = StreamingRecognizer(mma_edge.load(folder, "cpu", "fp32"), "rolling")
    assert streaming.streamer.max_age_s == 1.0
    assert streaming.streamer.sound_age_s == 0.0  # a bundle from before the sound was kept
    assert streaming.predict_clips(stream_clips(1))[0].label in streaming.recognizer.labels


def test_parts_that_do_not_give_the_golden_output_are_refused(streaming_bundle: Bundle, tmp_path: Path) -> None:
    folder = offering_rolling(streaming_bundle, tmp_path / "bundle", refused="x")
    recognizer = mma_edge.load(folder, "cpu", "fp32")
    recognizer.bundle.manifest["golden"]["logits"][0][0] += 0.01
    with pytest.raises(BundleError, match="golden output") as caught:
        StreamingRecognizer(recognizer, "exact")
    one_line(caught.value)
