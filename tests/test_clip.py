"""Clips are cut on one clock: the paper's frames, the hops of the live window, nothing lost and nothing twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mma_edge.audio import log_mel
from mma_edge.clip import STALLED_S, Crop, SlidingClips, WholeClips, frame_indices
from mma_edge.errors import UsageError
from mma_edge.types import AudioChunk, Clip

RATE, FPS, SIDE = 16000, 25, 2


def crop(time_s: float, track: int = 1, tag: int | None = None) -> Crop:
    """A crop whose every pixel tells its number in the film (modulo 256)."""
    image = np.full((SIDE, SIDE, 3), (round(time_s * FPS) if tag is None else tag) % 256, np.uint8)
    return Crop(track, (track, 0.0, track + 1.0, time_s), image, time_s, arrival_s=1000 + time_s)


def noise(seconds: float) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(round(seconds * RATE))).astype(np.float32)


def sound(wave: np.ndarray, start_s: float, size: int = 640) -> list[AudioChunk]:
    return [
        AudioChunk(wave[None, i : i + size], RATE, start_s + i / RATE, 2000 + start_s + i / RATE)
        for i in range(0, len(wave), size)
    ]


def play(clips: SlidingClips | WholeClips, data: list, finish: bool = True) -> list[Clip]:
    """Feed crops and chunks by presentation time, as the pipeline does."""
    out = []
    for datum in sorted(data, key=lambda datum: datum.time_s):
        out += clips.due(datum.time_s)
        if isinstance(datum, AudioChunk):
            clips.add_audio(datum)
        else:
            clips.add_crops([datum], datum.time_s)
    return out + (clips.finish() if finish else [])


def film(seconds: float, track: int = 1, start_s: float = 0.0) -> list[Crop]:
    return [crop(start_s + i / FPS, track) for i in range(round(seconds * FPS))]


def spans(clips: list[Clip]) -> list[tuple[float, float]]:
    return [(round(clip.start_s, 3), round(clip.end_s, 3)) for clip in clips]


def tags(clip: Clip) -> list[int]:
    return clip.frames[:, 0, 0, 0].tolist()


def test_frames_are_sampled_exactly_as_the_authors_do(reference_dir: Path) -> None:
    golden = json.loads((reference_dir / "golden_frame_indices.json").read_text())
    assert len(golden) > 10
    for count, expected in golden.items():
        assert frame_indices(int(count)).tolist() == expected, count


def test_a_clip_without_frames_has_no_indices() -> None:
    with pytest.raises(UsageError, match="at least one frame"):
        frame_indices(0)


def test_a_clip_comes_every_hop_and_the_first_ones_are_shorter_than_the_window() -> None:
    clips = play(SlidingClips(window_s=2.0, hop_s=0.5), film(4.04, start_s=10.0))
    assert spans(clips) == [(10, 10.5), (10, 11), (10, 11.5), (10, 12), (10.5, 12.5), (11, 13), (11.5, 13.5), (12, 14)]
    assert all(clip.frames.shape == (16, SIDE, SIDE, 3) and clip.track_id == 1 and clip.mel is None for clip in clips)


def test_a_windows_frames_are_the_sixteen_of_its_own_crops() -> None:
    clips = play(SlidingClips(window_s=2.0, hop_s=0.5), film(4.04), finish=False)
    # Windows hold the crops at both borders: 10.5 s .. 12.5 s is 51 crops at 25 fps.
    assert tags(clips[0]) == frame_indices(13).tolist() == [*range(13), 12, 12, 12]
    assert tags(clips[4]) == [13 + i for i in frame_indices(50)]  # crops 13 (0.52 s) to 62 (2.48 s)
    assert clips[4].box[3] == pytest.approx(2.48)
    assert clips[4].newest_arrival_s == pytest.approx(1002.48)


def test_a_windows_sound_is_that_of_its_own_span() -> None:
    wave = noise(3.0)
    clips = play(SlidingClips(window_s=1.0, hop_s=0.5), film(3.0) + sound(wave, 0.0), finish=False)
    window = next(clip for clip in clips if clip.end_s == 2.0)
    expected = log_mel(wave[RATE : 2 * RATE], RATE)
    # Rows near the end reach into the next window's samples or wait for them.
    np.testing.assert_allclose(window.mel[:90], expected[:90], atol=2e-3)
    assert not window.mel[100:].any()
    # The newest datum of the window, face or voice.
    assert window.newest_arrival_s >= 2001.9


def test_a_track_gone_for_a_hop_gets_no_clip() -> None:
    clips = SlidingClips(window_s=2.0, hop_s=0.5)
    out = []
    for i in range(75):
        out += clips.due(i / FPS)
        clips.add_crops([crop(i / FPS)] if i / FPS < 1.2 else [], i / FPS)
    assert spans(out) == [(0, 0.5), (0, 1.0), (0, 1.5)]  # seen at 1.16 s; the hop to 2.0 s saw nobody
    assert clips.finish() == []


def test_sound_without_a_face_is_a_clip_of_the_voice_alone() -> None:
    clips = play(SlidingClips(window_s=1.0, hop_s=0.5), sound(noise(1.04), 0.0), finish=False)
    assert spans(clips) == [(0, 0.5), (0, 1.0)]
    assert all(c.track_id is None and c.frames is None and c.box is None and c.mel.any() for c in clips)


def test_sound_goes_to_the_face_while_it_is_there_and_is_a_voice_alone_then() -> None:
    clips, out = SlidingClips(window_s=1.0, hop_s=0.5), []
    for chunk in sound(noise(2.04), 0.0):  # one chunk and one frame every 40 ms
        out += clips.due(chunk.time_s)
        clips.add_audio(chunk)
        clips.add_crops([crop(chunk.time_s)] if chunk.time_s < 0.8 else [], chunk.time_s)
    assert [(clip.track_id, clip.end_s) for clip in out] == [(1, 0.5), (1, 1.0), (None, 1.5), (None, 2.0)]
    assert all(clip.mel is not None for clip in out)


def test_a_stalled_video_keeps_its_face_for_a_second_and_no_longer() -> None:
    clips = play(SlidingClips(window_s=2.0, hop_s=0.5), sound(noise(3.04), 0.0) + film(0.8), finish=False)
    assert STALLED_S == 1.0  # the last frame is of 0.76 s
    assert [(clip.track_id, clip.end_s) for clip in clips[1:4]] == [(1, 1.0), (1, 1.5), (None, 2.0)]


def test_a_camera_of_one_frame_per_second_keeps_its_face_at_shorter_hops() -> None:
    slow = [crop(float(second)) for second in range(4)]
    clips = play(SlidingClips(window_s=2.0, hop_s=0.5), slow + sound(noise(3.04), 0.0), finish=False)
    assert [(clip.track_id, clip.end_s) for clip in clips] == [(1, 0.5 * hop) for hop in range(1, 7)]


def test_two_tracks_are_two_clips_of_the_same_window_and_sound() -> None:
    clips = play(
        SlidingClips(window_s=1.0, hop_s=1.0), film(1.04, track=7) + film(1.04, track=3) + sound(noise(1.04), 0.0)
    )
    first = [clip for clip in clips if clip.end_s == 1.0]
    assert [clip.track_id for clip in first] == [3, 7]
    assert [clip.box[0] for clip in first] == [3, 7]
    assert tags(first[0]) == tags(first[1])
    np.testing.assert_array_equal(first[0].mel, first[1].mel)


def test_an_empty_room_gives_no_clip() -> None:
    clips = SlidingClips(window_s=1.0, hop_s=0.5)
    out = []
    for i in range(50):
        out += clips.due(i / FPS)
        clips.add_crops([], i / FPS)
    assert out + clips.finish() == []
    assert SlidingClips(1.0, 0.5).finish() == []


def test_finish_hands_out_the_rest_once() -> None:
    clips = SlidingClips(window_s=1.0, hop_s=0.5)
    assert spans(play(clips, film(1.32))) == [(0, 0.5), (0, 1.0), (0.28, 1.28)]
    assert clips.finish() == []


def test_finish_hands_out_whole_hops_that_no_later_datum_called_for() -> None:
    clips = SlidingClips(window_s=1.0, hop_s=0.5)
    clips.due(0.0)
    clips.add_audio(AudioChunk(noise(1.8)[None], RATE, 0.0, 0.0))
    assert spans(clips.finish()) == [(0, 0.5), (0, 1.0), (0.5, 1.5), (0.8, 1.8)]


def test_a_rest_of_less_than_half_a_hop_is_no_clip_of_its_own() -> None:
    assert spans(play(SlidingClips(window_s=1.0, hop_s=0.5), film(1.24))) == [(0, 0.5), (0, 1.0)]


@pytest.mark.parametrize("count", [1, 2, 10])
def test_a_source_shorter_than_a_hop_still_gets_its_clip_once(count: int) -> None:
    clips = SlidingClips(window_s=2.0, hop_s=1.0)
    assert spans(play(clips, film(count / FPS))) == [(0, (count - 1) / FPS)]
    assert clips.finish() == []


def test_a_long_stall_skips_the_empty_hops_but_none_with_data() -> None:
    clips = SlidingClips(window_s=1.0, hop_s=0.5)
    clips.due(0.0)
    clips.add_audio(AudioChunk(noise(1.6)[None], RATE, 0.0, 0.0))
    calls = []
    cut = clips._window
    clips._window = lambda end_s: (calls.append(end_s), cut(end_s))[1]
    hour_s = 3600.0
    out = clips.due(hour_s)
    # Sound up to 1.6 s lies in the windows that end up to 2.5 s.
    assert spans(out) == [(0, 0.5), (0, 1.0), (0.5, 1.5), (1.0, 2.0), (1.5, 2.5)]
    assert len(calls) < 12
    # And the grid goes on where it would have been.
    again = play(clips, film(1.04, start_s=hour_s), finish=False)
    assert spans(again) == [(hour_s - 0.5, hour_s + 0.5), (hour_s, hour_s + 1.0)]


@pytest.mark.parametrize(("window_s", "hop_s"), [(5.13, 1.0), (1.0, 1.5), (1.0, 0.0), (1.0, -1.0), (0.0, 0.0)])
def test_impossible_windows_are_refused(window_s: float, hop_s: float) -> None:
    with pytest.raises(UsageError) as error:
        SlidingClips(window_s, hop_s)
    assert f"{window_s:g}" in str(error.value)


def test_the_longest_window_is_the_log_mels_span() -> None:
    SlidingClips(5.12, 0.5)


def test_memory_does_not_grow_with_the_length_of_the_stream() -> None:
    clips = SlidingClips(window_s=2.0, hop_s=0.5)
    lengths = []
    for datum in sorted(film(60.0) + sound(noise(60.0), 0.0), key=lambda datum: datum.time_s):
        clips.due(datum.time_s)
        clips.add_audio(datum) if isinstance(datum, AudioChunk) else clips.add_crops([datum], datum.time_s)
        lengths.append((len(clips._crops), len(clips._sound._mel._rows)))
    assert max(crops for crops, _ in lengths) <= 2.5 * FPS + 2
    assert max(rows for _, rows in lengths) <= 100 * (2.0 + 2 * 0.5) + 8


@pytest.mark.parametrize("count", [1, 7, 16, 17, 144])
def test_whole_takes_sixteen_frames_over_all_crops_of_a_track(count: int) -> None:
    clips = play(WholeClips(), [crop(i / FPS, tag=i) for i in range(count)])
    assert len(clips) == 1
    assert tags(clips[0]) == frame_indices(count).tolist()
    assert clips[0].box[3] == pytest.approx((count - 1) / FPS)


def test_whole_gives_nothing_before_the_end_and_one_clip_per_track_then() -> None:
    data = [crop(i / FPS, 2, tag=i) for i in range(40)] + [crop(i / FPS, 5, tag=100 + i) for i in range(20, 30)]
    clips = WholeClips()
    assert play(clips, data, finish=False) == []
    both = clips.finish()
    assert [clip.track_id for clip in both] == [2, 5]
    assert tags(both[0]) == frame_indices(40).tolist()
    assert tags(both[1]) == (100 + 20 + frame_indices(10)).tolist()
    assert spans(both) == [(0, 1.56)] * 2


def test_whole_hears_the_first_5_12_seconds() -> None:
    wave = noise(8.0)
    (clip,) = play(WholeClips(), sound(wave, 0.0))
    np.testing.assert_allclose(clip.mel, log_mel(wave, RATE), atol=2e-3)
    assert clip.track_id is None and clip.frames is None
    assert clip.end_s == pytest.approx(8.0)


def test_whole_of_a_silent_film_has_no_mel_and_of_nothing_no_clip() -> None:
    assert play(WholeClips(), film(1.0))[0].mel is None
    assert WholeClips().finish() == []


def test_whole_spools_long_films_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mma_edge.clip.SPOOL_BYTES", 10 * SIDE * SIDE * 3)
    clips = WholeClips()
    play(clips, [crop(i / FPS, tag=i) for i in range(144)], finish=False)
    assert clips._spools[1]._rolled  # in a file, no longer in memory
    assert tags(clips.finish()[0]) == frame_indices(144).tolist()
