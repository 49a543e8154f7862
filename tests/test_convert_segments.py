"""From answers about overlapping windows to segments: where each lies, and which label it has."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from conftest import one_line
from recorded import record, run_of

from mma_edge.convert.segments import SegmentOptions, check_order, segments_of
from mma_edge.errors import UsageError
from mma_edge.session.spans import hop_of, windows_ms

PLAIN = SegmentOptions(min_s=0.0, hysteresis=0.0)


def spans(records: list[dict], options: SegmentOptions = PLAIN) -> list[tuple[int, int, str]]:
    windows = windows_ms([(each["start_s"], each["end_s"]) for each in records])
    found, _ = segments_of(records, hop_of([windows]), options)
    return [(each.start_ms, each.end_ms, each.label) for each in found]


def test_an_answer_stands_for_the_time_around_the_middle_of_its_window() -> None:
    records = run_of("hhhhhhhhhhhhsshh")  # the windows are 4 s long from the eighth on
    # The two windows that say sad end at 6.5 s and 7 s, so their middles are 4.5 s and 5 s.
    assert spans(records) == [(0, 4250, "happy"), (4250, 5250, "sad"), (5250, 8000, "happy")]


def test_as_of_the_end_an_answer_stands_from_when_it_was_known() -> None:
    options = SegmentOptions(min_s=0.0, hysteresis=0.0, as_of="end")
    assert spans(run_of("hhss"), options) == [(500, 1500, "happy"), (1500, 2500, "sad")]
    # One answer was missed: the next one was known no sooner than it came.
    assert spans(run_of("hhhh s"), options) == [(500, 3000, "happy"), (3000, 3500, "sad")]


def test_a_face_has_no_segment_before_it_came() -> None:
    # It came at 10 s; its first windows begin 3.5 s before that.
    ((start_ms, end_ms, _),) = spans(run_of("hhhhhhhhhh", first_s=10.0))
    assert (start_ms, end_ms) == (10_000, 15_000)
    # Nor has the voice alone before the face had left.
    assert spans(run_of("hh", first_s=10.0, track=None)) == [(10_000, 11_000, "happy")]


def test_a_gap_stays_a_gap_and_one_missed_answer_is_none() -> None:
    one_missed, gone = spans(run_of("hhhhhhhh hhhhhh")), spans(run_of("hhhhhhhhhh          hhhhhhhhhh"))
    assert len(one_missed) == 1
    (_, end_ms, _), (start_ms, _, _) = gone
    assert (end_ms, start_ms) == (5000, 10_000)


def test_an_answer_that_is_hardly_more_probable_changes_nothing() -> None:
    wavering = {"happy": 0.42, "sad": 0.48, "angry": 0.1}
    records = run_of("hhhhhhhhhh") + [record(5.5 + n / 2, "sad", probabilities=wavering) for n in range(4)]
    assert [label for *_, label in spans(records)] == ["happy", "sad"]
    assert [label for *_, label in spans(records, SegmentOptions(hysteresis=0.1))] == ["happy"]
    # A difference of just that much is enough, whatever floats make of 0.5 - 0.4.
    enough = [record(5.5 + n / 2, "sad", probabilities={"happy": 0.4, "sad": 0.5, "angry": 0.1}) for n in range(4)]
    assert [label for *_, label in spans(records[:10] + enough, SegmentOptions(hysteresis=0.1))] == ["happy", "sad"]


def test_an_uncertain_answer_is_a_segment_of_its_own_and_does_not_linger() -> None:
    records = run_of("hhhhhhhhhhhhhhhh")
    for each in records[10:13]:
        each["label"] = "uncertain"
    assert [label for *_, label in spans(records, SegmentOptions())] == ["happy", "uncertain", "happy"]


def test_a_short_segment_goes_to_its_neighbour_and_one_that_stands_alone_is_left_out() -> None:
    flicker = run_of("hhhhhhhhhhshhhhh")
    assert spans(flicker, SegmentOptions(min_s=0.6)) == [(0, 8000, "happy")]
    assert [label for *_, label in spans(flicker, SegmentOptions(min_s=0.5))] == ["happy", "sad", "happy"]
    first = run_of("shhhhhhhhhhh", first_s=10.0)
    assert spans(first, SegmentOptions(min_s=0.5)) == [(10_000, 16_000, "happy")]
    alone, left_out = segments_of(run_of("h       h"), 500, SegmentOptions(min_s=0.6))
    assert alone == [] and left_out == 2


def test_a_whole_file_is_one_segment_of_its_length() -> None:
    assert spans([record(61.0, "sad", window_s=61.0)]) == [(0, 61_000, "sad")]


def test_segments_never_overlap_whatever_the_times(rng: np.random.Generator) -> None:
    for _ in range(200):
        ends = np.cumsum(rng.choice([0.04, 0.1, 0.48, 0.5, 0.52, 1.0, 7.0], 30))
        records = [record(float(end), str(rng.choice(["happy", "sad", "angry"]))) for end in ends]
        hop, least_s = int(rng.integers(40, 1000)), float(rng.uniform(0, 1))
        found, _ = segments_of(records, hop, SegmentOptions(least_s, 0.0, str(rng.choice(["middle", "end"]))))
        assert all(each.end_ms - each.start_ms >= round(1000 * least_s) for each in found)
        assert all(each.end_ms > each.start_ms for each in found)
        for before, after in itertools.pairwise(found):
            assert before.end_ms <= after.start_ms
            assert before.end_ms < after.start_ms or before.label != after.label


def test_times_that_jump_back_are_refused_and_faces_may_take_turns() -> None:
    check_order([each for pair in zip(run_of("hhhh"), run_of("ssss", track=2), strict=True) for each in pair])
    check_order([record(10.0), record(9.5, track=2)])  # answers of one call need not be in order
    twice = run_of("h" * 20) + run_of("h" * 20, track=2)
    with pytest.raises(UsageError, match=r"record 21 of talk.mp4 ends at 0.5 s, after one at 10 s") as caught:
        check_order(twice)
    assert "split the file" in one_line(caught.value)
    with pytest.raises(UsageError, match=r"record 2 of talk.mp4 ends at 0.5 s, after one at 0.5 s"):
        check_order([record(0.5), record(0.5)])
    with pytest.raises(UsageError, match="before it begins"):
        check_order([record(0.5, start_s=0.5)])


@pytest.mark.parametrize("given", [{"min_s": -1.0}, {"min_s": float("nan")}, {"hysteresis": 1.5}, {"as_of": "start"}])
def test_options_that_mean_nothing_are_refused(given: dict) -> None:
    with pytest.raises(UsageError, match="--"):
        SegmentOptions(**given)
