"""For which time an answer stands: numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from recorded import LABELS, make_session, record

from mma_edge.convert import Choice, SegmentOptions
from mma_edge.convert.material import read_material
from mma_edge.convert.timeline import tier_name
from mma_edge.report.figures import stretches
from mma_edge.report.recording import read_recording
from mma_edge.session.folder import read_session
from mma_edge.session.spans import hop_of, known_spans_of, spans_of, windows_ms
from mma_edge.session.video.timeline import Timeline


def windows(*ends_s: float, window_s: float = 4.0) -> np.ndarray:
    return windows_ms([(max(0.0, end_s - window_s), end_s) for end_s in ends_s])


def test_half_way_between_the_middles_from_the_first_windows_beginning_to_the_last_ones_end() -> None:
    # Of a file of 3 s with windows of 2 s, the first ones shorter: their middles are 0.25, 0.5, 0.75, 1, 1.5, 2.
    found = spans_of(windows(0.5, 1.0, 1.5, 2.0, 2.5, 3.0, window_s=2.0), 500)
    assert found.tolist() == [[0, 375], [375, 625], [625, 875], [875, 1250], [1250, 1750], [1750, 3000]]


def test_a_run_begins_no_sooner_than_a_hop_before_its_first_answer() -> None:
    # The face came at 10 s: middles 10.25, 10.5, 10.75 until the window has been filled with it.
    assert spans_of(windows(10.5, 11.0, 11.5), 500).tolist() == [[10_000, 10_375], [10_375, 10_625], [10_625, 11_500]]
    assert spans_of(windows(10.5), 500).tolist() == [[10_000, 10_500]]
    # A window that is shorter than a hop is all that is known.
    assert spans_of(windows(10.5, window_s=0.25), 500).tolist() == [[10_250, 10_500]]


def test_one_missed_answer_is_bridged_two_are_a_gap() -> None:
    # Middles: 5.25, 5.75 (the window begins at 5 with the face, ends at 6.5).
    assert spans_of(windows(5.5, 6.5), 500).tolist() == [[5000, 5500], [5500, 6500]]
    assert spans_of(windows(5.5, 7.0), 500).tolist() == [[5000, 5500], [6500, 7000]]
    # Times of a camera jitter by a frame or two.
    assert spans_of(windows(5.46, 6.54), 500).tolist() == [[4960, 5480], [5480, 6540]]


def test_an_answer_about_a_whole_file_stands_for_all_of_it() -> None:
    assert spans_of(windows(61.0, window_s=61.0), None).tolist() == [[0, 61_000]]


def test_as_a_viewer_saw_it_an_answer_stands_until_the_next_one_came() -> None:
    found = known_spans_of(windows(0.5, 1.0, 2.0, 9.0), 500)
    assert found.tolist() == [[500, 1000], [1000, 2000], [2000, 2500], [9000, 9500]]
    assert known_spans_of(windows(2.0), None).tolist() == [[0, 2000]]


def test_the_hop_is_that_of_most_answers_and_of_few_the_sessions() -> None:
    many = windows(0.25, 0.5, 0.75, 1.0, 1.5, 1.75, 2.0)
    assert hop_of([many]) == hop_of([many, windows(7.0)]) == hop_of([many], {"hop_s": 2.0}) == 250
    few = [windows(10.0, 70.0), windows(10.0)]
    assert hop_of(few) == 60_000 and hop_of(few, {"hop_s": 0.5}) == 500
    for nonsense in (None, True, "0.5", float("nan"), -1, 0, 1e300):
        assert hop_of(few, {"hop_s": nonsense}) == 60_000
    assert hop_of([windows(4.0), windows(4.0)], {"hop_s": 0.5}) is None
    assert hop_of([]) is None


def test_times_that_make_no_sense_give_spans_that_neither_overlap_nor_run_back(rng: np.random.Generator) -> None:
    for _ in range(200):
        ends = np.sort(rng.integers(0, 20_000, 30))
        starts = ends - rng.integers(-500, 5000, 30)
        found = spans_of(np.stack([starts, ends], axis=1), int(rng.integers(1, 2000)))
        assert (found[:, 1] >= found[:, 0]).all() and (np.diff(found[:, 0]) >= 0).all()
        assert (found[1:, 0] >= found[:-1, 1]).all()


def test_a_report_an_elan_file_and_an_annotated_film_have_the_same_times(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """Of cameras, whose answers jitter and stop now and then, with a video and without, the clock at any time."""
    about = {"first_s": 1000.2, "last_s": 1100.0}
    sources = {"door": about | {"video": "video-1.mp4", "video_start_s": 1000.5}, "desk": about}
    zeros = {"door": 1000.5, "desk": 1000.2}
    records = []
    for name in sources:
        for track in (1, 2, None):
            steps = rng.choice([0.47, 0.5, 0.53, 1.0, 4.0], 60, p=[0.3, 0.3, 0.3, 0.05, 0.05])
            ends = 1000.2 + rng.uniform(0, 9) + steps.cumsum()
            for label, end_s in zip(rng.choice(LABELS, 60), ends.round(3).tolist(), strict=True):
                start_s = max(1000.2, end_s - 4)
                records.append(record(end_s, str(label), track, source=name, start_s=round(start_s, 3)))
    folder = make_session(tmp_path / "day", sorted(records, key=lambda each: each["end_s"]), sources)
    recording = read_recording(folder)
    for face in (1, 2, None):
        lines = read_material(folder, Choice(face=face), [].append).time_lines(SegmentOptions(0.0, 0.0), None, print)
        for source in recording.sources:
            line = next(line for line in lines if line.source == source.name)
            assert read_session(folder).zero_s(source.name) == zeros[source.name]
            film = Timeline.of([each for each in records if each["source"] == source.name])
            for series in source.series if face is None else [source.series[face - 1]]:
                tier = next(tier for tier in line.tiers if tier.name == tier_name(series.track_id))
                found = [(start_s, end_s, series.states[state]) for state, start_s, end_s in stretches(series)]
                assert len(found) > 20
                # What is before the video begins is on the page only.
                found = [(max(0, round(1000 * a)), round(1000 * b), label) for a, b, label in found if b > 0]
                assert [(each.start_ms, each.end_ms, each.label) for each in tier.segments] == found
                for start_ms, end_ms, label in found:
                    for time_ms in (start_ms, end_ms - 1):
                        assert film.answers_at(zeros[source.name] + time_ms / 1000)[series.track_id]["label"] == label
