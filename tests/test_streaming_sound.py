"""Mode rolling keeps what it heard: for as long as the bundle allows, and only where the answer is clear."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import failure_line
from streaming_bundle import stream_clips

import mma_edge
from mma_edge import cli
from mma_edge.bundle import Bundle, write_manifest
from mma_edge.errors import UsageError
from mma_edge.streaming import Streamer, StreamingRecognizer, open_graphs


def keeping(bundle: Bundle, sound_age_s: float, clear: float = 0.0) -> Streamer:
    """Keeps the sound, by default whatever the answer is."""
    graphs, _ = open_graphs(bundle, "rolling", "cpu", "fp32")
    return Streamer(graphs, "rolling", sound_age_s=sound_age_s, clear=clear)


@pytest.mark.parametrize(("age_s", "sounds"), [(0.0, 6), (0.25, 6), (0.5, 3), (1.0, 2), (9.0, 1)])
def test_the_sound_is_computed_anew_once_it_is_older_than_its_bound(
    streaming_bundle: Bundle, age_s: float, sounds: int
) -> None:
    """Windows come every half second."""
    rolling, hears = keeping(streaming_bundle, age_s), keeping(streaming_bundle, 0.0)
    pairs = [(rolling([clip]), hears([clip])) for clip in stream_clips(6)]
    np.testing.assert_array_equal(*pairs[0])
    assert rolling.stats.sounds == sounds and rolling.stats.layer_frames == hears.stats.layer_frames
    assert (np.abs(pairs[1][0] - pairs[1][1]).max() > 1e-3) == (sounds < 6)  # another sound each time


def test_a_kept_sound_gives_the_answer_of_its_own_window(streaming_bundle: Bundle) -> None:
    rolling, first = keeping(streaming_bundle, 1.0), stream_clips(1)
    np.testing.assert_allclose(rolling(first), rolling(first), atol=1e-5)
    assert rolling.stats.sounds == 1 and rolling.stats.updates == 2


def test_an_answer_that_is_not_clear_is_heard_anew(streaming_bundle: Bundle) -> None:
    rolling, keeps, hears = keeping(streaming_bundle, 9.0), keeping(streaming_bundle, 9.0), keeping(streaming_bundle, 0)
    first, second, third = stream_clips(3)
    for one in (rolling, keeps, hears):
        one([first])
    rolling._clear = 1.1
    got, kept, expected = (one([second]) for one in (rolling, keeps, hears))
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert np.abs(got - kept).max() > 1e-3 and rolling.stats.sounds == 2
    rolling([third])  # the last answer was not clear: without looking at this one first
    assert rolling.stats.sounds == 3 and rolling.stats.layer_frames == 16 + (2 + 2) + 2


def test_the_sound_of_a_window_that_grows_is_not_kept(streaming_bundle: Bundle) -> None:
    rolling = keeping(streaming_bundle, 9.0)
    for clip in stream_clips(4):
        rolling([dataclasses.replace(clip, start_s=0.0)])
    assert rolling.stats.sounds == 4


def test_a_sound_that_ends_or_begins_is_computed_anew(streaming_bundle: Bundle) -> None:
    rolling, exact = (
        keeping(streaming_bundle, 9.0),
        Streamer(open_graphs(streaming_bundle, "exact", "cpu", "fp32")[0], "exact"),
    )
    with_sound, without = stream_clips(6), stream_clips(6, sound=False)
    for sounds, clip in zip((1, 1, 2, 2, 3, 3), (*with_sound[:2], *without[2:4], *with_sound[4:]), strict=True):
        got, expected = rolling([clip]), exact([clip])
        assert rolling.stats.sounds == sounds
        if clip is without[2] or clip is with_sound[4]:
            np.testing.assert_allclose(got, expected, atol=1e-4)


def test_faces_whose_sound_is_due_and_others_go_in_together(streaming_bundle: Bundle) -> None:
    together, *alone = (keeping(streaming_bundle, 1.0) for _ in range(4))
    tracks = [stream_clips(6, track=number, seed=number) for number in range(3)]
    for number in range(6):
        clips = [track[number] for start, track in enumerate(tracks) if number >= start]
        expected = [one([clip]) for one, clip in zip(alone, clips, strict=False)]
        np.testing.assert_allclose(together(clips), np.concatenate(expected), atol=1e-5)
    assert together.stats.sounds == sum(one.stats.sounds for one in alone) == 6


def test_a_sound_age_without_rolling_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for options in ([], ["--streaming", "exact"]):
        assert cli.main(["run", "sample", "--sound-age", "1", *options]) == UsageError.exit_code
        assert "--sound-age 1 without --streaming rolling" in failure_line(capsys)


def test_the_sound_gets_as_old_as_the_bundle_allows_and_no_older(streaming_bundle: Bundle, tmp_path: Path) -> None:
    sound = {"file": "streaming.seeing.onnx", "max_age_s": 0.5, "curve": []}
    folder = shutil.copytree(streaming_bundle.folder, tmp_path / "bundle")
    manifest = json.loads(json.dumps(streaming_bundle.manifest))
    manifest["streaming"]["fp32"]["rolling"] = {"parity": {}, "file": "streaming.rolling.onnx", "sound": sound}
    write_manifest(folder, manifest)
    recognizer = mma_edge.load(folder, "cpu", "fp32")
    for asked_s, runs_s in ((None, 0.5), (0.25, 0.25), (9.0, 0.5), (0.0, 0.0)):
        assert StreamingRecognizer(recognizer, "rolling", asked_s).streamer.sound_age_s == runs_s
    parts = recognizer.bundle.parts
    assert parts("cpu", "fp32", "rolling").files == {
        "stem": "streaming.stem.onnx",
        "rest": "streaming.rolling.onnx",
        "seeing": "streaming.seeing.onnx",
    }
    sound["failed_on"] = {"openvino": "where it rounds to bf16, 90.0% of 46 windows agree"}
    recognizer.bundle.manifest["streaming"]["fp32"]["rolling"]["sound"] = sound
    assert parts("openvino", "fp32", "rolling").seeing is None
    assert parts("openvino", "fp32", "rolling").sound_age_s == 0.0
    assert parts("cpu", "fp32", "rolling").sound_age_s == 0.5
