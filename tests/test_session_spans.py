"""For which time an answer stands: numbers worked out by hand."""

from __future__ import annotations

import numpy as np

from mma_edge.session.spans import hop_of, known_spans_of, spans_of, windows_ms


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
