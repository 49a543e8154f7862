"""The numbers of `mma-edge report`, on records whose numbers were worked out by hand."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from made_sessions import DFEW, made_records, record, write_lines, write_session

from mma_edge.errors import MMAEdgeError
from mma_edge.report.clock import AFTER_JUMP_S, Clock
from mma_edge.report.columns import Drawn, drawn, for_screen
from mma_edge.report.figures import coverage, dwells, speakers, stretches, transitions, union_s
from mma_edge.report.palette import CLASS_COLOURS, UNCERTAIN_COLOUR, colours, stacked
from mma_edge.report.recording import SourceRecording, part_of, read_recording
from mma_edge.report.ribbon import HEIGHT, spans, stacked_areas
from mma_edge.session.video.colours import LINE_CLASSES, LINES
from mma_edge.session.video.drawing import colours_of

DASHBOARD = Path(__file__).parents[1] / "mma_edge" / "assets" / "dashboard"
# Half a second apart but for one gap. By hand: the face came half a second before the first answers, at 3.5 and 8.5, so
# the middles of the windows are 3.75, 4, 4.25, 4.5, 4.75, and 8.75, 9, 9.25. Half way between them: happy 3.5 to 4.375,
# sad 4.375 to 6, nothing, happy 8.5 to 8.875, uncertain 8.875 to 9.125, happy 9.125 to 10.
ANSWERS = [
    (4.0, "happy"), (4.5, "happy"), (5.0, "happy"), (5.5, "sad"), (6.0, "sad"),
    (9.0, "happy"), (9.5, "uncertain"), (10.0, "happy"),
]  # fmt: skip


def source_of(tmp_path: Path, records: list[dict], **changes: object) -> SourceRecording:
    folder = write_session(tmp_path / "session", records, sources={"camera:0": changes})
    return read_recording(folder).sources[0]


@pytest.fixture
def source(tmp_path: Path) -> SourceRecording:
    return source_of(tmp_path, [record(*answer) for answer in ANSWERS])


def test_a_label_is_held_around_the_middles_of_its_windows_and_not_over_a_gap(source: SourceRecording) -> None:
    (series,) = source.series
    found = [(series.states[state], start_s, end_s) for state, start_s, end_s in stretches(series)]
    assert found == [
        ("happy", 3.5, 4.375), ("sad", 4.375, 6.0),
        ("happy", 8.5, 8.875), ("uncertain", 8.875, 9.125), ("happy", 9.125, 10.0),
    ]  # fmt: skip


def test_dwell_times_are_those_of_the_stretches(source: SourceRecording) -> None:
    found = {each.label: (each.total_s, each.times, each.mean_s, each.longest_s) for each in dwells(source.series)}
    assert found.pop("happy") == pytest.approx((0.875 + 0.375 + 0.875, 3, 2.125 / 3, 0.875))
    assert found.pop("sad") == (1.625, 1, 1.625, 1.625)
    assert found.pop("uncertain") == (0.25, 1, 0.25, 0.25)
    assert set(found.values()) == {(0, 0, 0, 0)}


def test_transitions_are_counted_from_answer_to_answer_and_not_over_a_gap(source: SourceRecording) -> None:
    counts, states = transitions(source.series), source.series[0].states
    found = {(states[i], states[k]): int(counts[i, k]) for i, k in np.argwhere(counts)}
    assert found == {("happy", "sad"): 1, ("happy", "uncertain"): 1, ("uncertain", "happy"): 1}


def test_coverage_counts_time_with_several_faces_once(tmp_path: Path) -> None:
    records = [record(*answer) for answer in ANSWERS]
    # The second face: 4.5 to 5.5 beside the first, 6 to 7 alone; of the voice alone 7 to 7.5.
    two = [record(end_s, "sad", track_id=2, modalities=["video"]) for end_s in (5.0, 5.5, 6.5, 7.0)]
    voice = [record(7.5, "fear", track_id=None, box=None, modalities=["audio"], start_s=7.0)]
    together = sorted([*records, *two, *voice], key=lambda each: each["end_s"])
    source = source_of(tmp_path, together, last_s=12.5)
    found = coverage(source.series, source.length_s)
    assert source.length_s == 12.5
    # Face 1: 3.5 to 6, 8.5 to 10. Face 2: its hop is 0.5, so 4.5 to 7 without a gap (one answer was left out).
    assert found.answered_s == pytest.approx(2.5 + 1 + 0.5 + 1.5)
    assert found.face_s == pytest.approx(5.0)
    assert found.voice_s == pytest.approx(2.5 + 1.5 + 0.5)
    assert found.both_s == pytest.approx(4.0)
    assert found.uncertain_s == pytest.approx(0.25)


def test_overlaps_count_once() -> None:
    assert union_s([]) == 0
    assert union_s([np.array([[0, 10], [2, 3]]), np.array([[9, 12], [20, 21]])]) == 13


def test_of_several_faces_the_one_that_has_the_sound_alone_speaks(tmp_path: Path) -> None:
    both, face = ["video", "audio"], ["video"]
    turns = [(both, face), (both, face), (face, both), (both, both), (face, face)]
    records = [
        record(4 + n / 2, "neutral", track_id=track, modalities=modalities, speaking=0.25 * track)
        for n, turn in enumerate(turns)
        for track, modalities in enumerate(turn, 1)
    ]
    # Face 1 alone has no one to speak to.
    records.append(record(6.5, "neutral", modalities=both))
    source = source_of(tmp_path, records)
    assert {series.track_id: series.alone.tolist() for series in source.series} == {
        1: [True, True, False, False, False, False],
        2: [False, False, True, False, False],
    }
    assert [(each.track_id, each.seconds, each.mean_speaking) for each in speakers(source.series)] == [
        (1, 0.625, 0.25), (2, 0.25, 0.5),  # 3.5 to 4.125; 4.125 to 4.375
    ]  # fmt: skip
    # Who spoke is known of one face by itself, too, and of a part of the time.
    recording = read_recording(tmp_path / "session")
    ((second,),) = (each.series for each in part_of(recording, 2, None, None).sources)
    assert second.alone.tolist() == [False, False, True, False, False]
    ((first, _),) = (each.series for each in part_of(recording, None, 4.0, 4.3).sources)
    assert (first.alone.tolist(), first.holds_s.tolist()) == ([True, False], pytest.approx([0.125, 0.175]))


def test_a_single_answer_holds_for_its_window(tmp_path: Path) -> None:
    (series,) = source_of(tmp_path, [record(7.8, "happy", start_s=0.0)], live=False).series
    assert series.answered_s == pytest.approx(7.8)


def test_a_face_with_few_answers_holds_them_as_long_as_others_do(tmp_path: Path) -> None:
    """Not for its window of 4 s, nor for the minute between its two answers."""
    records = [record(end_s, "happy", track_id=2) for end_s in (10.0, 70.0)]
    for others in ([], [record(4 + n, "sad") for n in range(10)]):
        source = source_of(tmp_path / str(len(others)), [*others, *records])
        hop_s = 1.0 if others else 0.5  # of the others, or of the session's options
        assert source.series[-1].holds_s.tolist() == [hop_s, hop_s]
    (alone,) = read_recording(write_lines(tmp_path / "one.jsonl", records[:1])).sources
    assert alone.series[0].answered_s == 4.0


def test_a_live_clock_begins_at_nought_and_a_files_is_kept(tmp_path: Path) -> None:
    records = [record(1004.0 + n, "happy") for n in range(3)]
    live = source_of(tmp_path / "live", records, live=True, first_s=1000.0, last_s=1006.0)
    assert (live.from_s, live.to_s, live.series[0].end_s.tolist()) == (0, 6, [4, 5, 6])
    file = source_of(tmp_path / "file", records, live=False, first_s=1000.0, last_s=1006.0)
    assert (file.from_s, file.to_s, file.series[0].end_s.tolist()) == (1000, 1006, [1004, 1005, 1006])


@pytest.mark.parametrize("step_s", [-600.0, 1e6], ids=["back", "ahead"])
def test_a_clock_that_jumps_leaves_a_moment_free_and_is_said(tmp_path: Path, step_s: float) -> None:
    times = [4.0, 4.5, 5.0, 5.5 + step_s, 6.0 + step_s]
    records = [record(end_s, "happy") for end_s in times]
    folder = write_session(tmp_path / "session", records, sources={"camera:0": {"last_s": max(times)}}, run_s=6.0)
    recording = read_recording(folder)
    (source,) = recording.sources
    after = 5.0 + AFTER_JUMP_S
    assert source.series[0].end_s.tolist() == [4.0, 4.5, 5.0, after, after + 0.5]
    assert source.length_s <= after + 0.5
    assert source.series[0].answered_s == pytest.approx(0.5 * 5 + (AFTER_JUMP_S - 0.5))
    assert [event.kind for event in source.events] == ["jump"]
    (problem,) = recording.problems
    assert f"{step_s + 0.5:+.1f} s" in problem


def test_answers_a_little_out_of_order_are_no_jump() -> None:
    assert Clock([4.0, 5.0, 4.5, 5.5], 0.0).jumps_s == []
    assert Clock([], 3.0).of_time(5.0) == 2.0
    assert Clock([4.0, 5.0, 1.0, 1.5], 0.0).of_time(1.25) == pytest.approx(5 + AFTER_JUMP_S + 0.25)


def test_a_part_of_the_time_is_cut_at_both_ends(source: SourceRecording, tmp_path: Path) -> None:
    (late,) = part_of(read_recording(tmp_path / "session"), None, 7.0, 9.2).sources
    assert late.series[0].answered_s == pytest.approx(9.2 - 8.5)
    recording = part_of(read_recording(tmp_path / "session"), None, 4.6, 9.2)
    (part,) = recording.sources
    assert part.length_s == pytest.approx(4.6)
    found = {each.label: each.total_s for each in dwells(part.series)}
    assert found["sad"] == pytest.approx(6.0 - 4.6)
    assert found["happy"] == pytest.approx(0.375 + 9.2 - 9.125)
    assert found["uncertain"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((7, None, None), "one of the faces in it: 1"),
        ((None, 5.0, 5.0), "--to after --from"),
        ((None, float("nan"), None), "--to after --from"),
        ((None, 100.0, 200.0), "no answer lies between"),
    ],
)
def test_a_part_that_is_not_there_is_one_clear_line(
    source: SourceRecording, tmp_path: Path, options: tuple, says: str
) -> None:
    with pytest.raises(MMAEdgeError, match=says):
        part_of(read_recording(tmp_path / "session"), *options)


def no_facts(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Basis, speaking and gaps of answers that have none."""
    return np.zeros(count), np.zeros(count, bool), np.arange(count) == 0


def two_hours() -> Drawn:
    """Two hours of neutral answers with one burst of half a second, and one of two bursts in a row."""
    count = 14_400
    levels = np.zeros((count, 7), np.uint8)
    levels[:, 2] = 255
    for burst, state in ((5001, 3), (9001, 4), (9002, 0)):
        levels[burst] = 0
        levels[burst, state] = 255
    end_ms = 500 * np.arange(1, count + 1)
    return Drawn(end_ms - 500, end_ms, levels, levels.argmax(1).astype(np.uint8), *no_facts(count))


def test_a_burst_of_half_a_second_in_two_hours_is_drawn() -> None:
    data = two_hours()
    for columns in (40, 180, 500):
        kept = for_screen(data, 0, int(data.end_ms[-1]), columns)
        assert {5001, 9001, 9002} <= set(kept.tolist())
        assert len(kept) <= 2 * columns + 3
        assert len(stacked_areas(data[kept])[0]) == 1  # what is left out is no gap


def test_of_one_dimension_the_minimum_and_the_maximum_are_kept() -> None:
    rng = np.random.default_rng(0)
    one = rng.integers(0, 255, 1000)
    levels = np.stack([one, 255 - one], axis=1).astype(np.uint8)
    end_ms = 100 * np.arange(1, 1001)
    data = Drawn(end_ms - 100, end_ms, levels, np.zeros(1000), *no_facts(1000))
    kept = for_screen(data, 0, 100_001, 10)
    for column in range(10):
        inside = np.flatnonzero(data.end_ms * 10 // 100_001 == column)
        values = one[np.intersect1d(kept, inside)]
        assert {values.min(), values.max()} == {one[inside].min(), one[inside].max()}


def test_what_is_drawn_ends_at_a_gap(source: SourceRecording) -> None:
    series = source.series[0]
    labels = stacked(series.labels)
    data = drawn(series, [series.labels.index(label) for label in labels], 0.0)
    whole = stacked_areas(data)[0]
    assert [(times[0], times[-1]) for times, _ in whole] == [(3500, 6000), (8500, 10000)]
    assert all((tops == 0).all() for _, tops in whole)  # all classes together are 100 %
    bottom = stacked_areas(data)[-1]  # angry: 5 % in each answer, of the uncertain one a seventh
    assert {int(top) for _, tops in bottom for top in tops} == {HEIGHT - 51, HEIGHT - 143}
    assert spans(data, data.chosen == labels.index("happy")) == [(3500, 4375), (8500, 8875), (9125, 10000)]
    times, tops = stacked_areas(data)[labels[::-1].index("sad")][0]
    assert times[np.flatnonzero(np.diff(tops))].tolist() == [4375]  # the area changes where the label does


def lab(colour: str, seen: np.ndarray) -> np.ndarray:
    """CIELAB of "#RRGGBB" as eyes see it whose linear RGB is `seen` times the normal."""
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.clip(seen @ np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4), 0, 1)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = np.array(to_xyz) @ linear / [0.95047, 1, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# Machado, Oliveira and Fernandes 2009, severity 1.
EYES = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


@pytest.mark.parametrize("eyes", EYES)
def test_the_seven_classes_differ_for_all_eyes(eyes: str) -> None:
    seen = [lab(CLASS_COLOURS[label], EYES[eyes]) for label in DFEW]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 24


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("where", LINES)
def test_lines_on_the_page_and_drawings_on_pictures_differ_for_all_eyes(where: str, eyes: str) -> None:
    seen = [lab(colour, EYES[eyes]) for colour in LINES[where][: len(LINE_CLASSES)]]
    assert len(seen) == 7
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 24


def test_the_dashboard_and_the_drawings_have_the_colours_of_the_palette() -> None:
    css = (DASHBOARD / "page.css").read_text(encoding="utf-8")
    themes = [tuple(re.findall(r"--c\d: (#[0-9a-f]{6});", line)) for line in css.splitlines() if "--c0:" in line]
    assert themes == [LINES["light"], LINES["dark"]]
    script = (DASHBOARD / "picture.js").read_text(encoding="utf-8")
    assert tuple(json.loads(re.search(r"ON_PICTURE = (\[[^\]]*\])", script)[1])) == LINES["picture"]
    script = (DASHBOARD / "basics.js").read_text(encoding="utf-8")
    assert tuple(json.loads(re.search(r"PLACES = (\[[^\]]*\])", script)[1])) == LINE_CLASSES
    drawn_ones = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colours_of(LINE_CLASSES).values()]
    assert tuple(drawn_ones) == LINES["picture"][:7]


def test_the_seven_classes_differ_in_grey() -> None:
    """By lightness, and by the weights with which programs and printers make grey (ITU-R BT.601)."""
    lightness = sorted(lab(CLASS_COLOURS[label], EYES["normal"])[0] for label in DFEW)
    assert np.diff(lightness).min() > 9
    greys = [np.dot([0.299, 0.587, 0.114], list(bytes.fromhex(CLASS_COLOURS[label][1:]))) for label in DFEW]
    assert np.diff(sorted(greys)).min() > 0.09 * 255


def test_classes_of_your_own_have_colours_too() -> None:
    labels = ("happy", "joy", "Sadness", "bored", "<b>")
    found = colours(labels)
    assert len({found[label] for label in labels} | {UNCERTAIN_COLOUR}) == 6
    assert found["Sadness"] == CLASS_COLOURS["sad"]
    assert set(stacked(labels)) == set(labels)
    assert len(colours([f"class {n}" for n in range(30)])) == 31


def test_the_same_numbers_come_from_the_session_and_from_its_records_as_a_file(tmp_path: Path) -> None:
    records = made_records(60)
    session = read_recording(write_session(tmp_path / "session", records)).sources[0]
    alone = read_recording(write_lines(tmp_path / "records.jsonl", records)).sources[0]
    assert dwells(session.series) == dwells(alone.series)
    assert (transitions(session.series) == transitions(alone.series)).all()
