"""mma-bench speaking: who has the voice, in clips composed of the sample's."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import failure_line
from test_pipeline import spoken

from mma_benchmarks.cli import main
from mma_benchmarks.result import read_result
from mma_benchmarks.speaking import compose
from mma_benchmarks.speaking.compose import Footage, Piece, SideBySide, back_and_forth, pieces_of, still_stretch
from mma_benchmarks.speaking.measure import MARGINS, MUTE, NEITHER, Shares, row_of
from mma_edge.faces.speaker import LEAST, MARGIN
from mma_edge.types import AudioChunk, Frame

SAMPLE = Path(__file__).parents[1] / "mma_edge" / "assets" / "sample" / "sample.mp4"
ANNA, BEN = Piece(Path("anna-1.mp4"), 0.0, 4.0), Piece(Path("ben_2.mp4"), 0.0, 4.0)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[Piece, Footage]:
    """Footage of two people without files: grey pictures whose value is their number, and the sample's voice."""
    voice, rate_hz = spoken()
    pause = 1e-4 * np.random.default_rng(0).standard_normal(rate_hz, np.float32)
    silent = np.concatenate([voice[rate_hz : 2 * rate_hz], pause, voice[rate_hz : 3 * rate_hz]])
    pieces = {}
    for piece, wave, fps, height in ((ANNA, silent, 25, 40), (BEN, voice[: 4 * rate_hz], 20, 30)):
        images = [np.full((height, 50, 3), number, np.uint8) for number in range(4 * fps)]
        pieces[piece] = Footage(images, np.arange(4 * fps) / fps, wave, rate_hz)
    monkeypatch.setattr(compose, "footage", pieces.__getitem__)
    return pieces


def test_a_stretch_goes_back_and_forth_without_standing_still() -> None:
    assert back_and_forth((3, 7), 12).tolist() == [3, 4, 5, 6, 5, 4, 3, 4, 5, 6, 5, 4]


def test_the_still_stretch_is_where_nobody_speaks(made: dict[Piece, Footage]) -> None:
    first, last = still_stretch(ANNA)
    assert 24 <= first <= 30 and 45 <= last <= 51


def test_two_people_are_side_by_side_in_time_with_one_voice(made: dict[Piece, Footage]) -> None:
    source = SideBySide(BEN, ANNA, BEN, {ANNA: (10, 13)})
    events = list(source.events())
    frames = [event for event in events if isinstance(event, Frame)]
    assert [event.time_s for event in events] == sorted(event.time_s for event in events)
    assert {frame.image.shape for frame in frames} == {(40, 100, 3)} and source.border_px == 50
    assert [int(frame.image[0, 0, 0]) for frame in frames[:4]] == [0, 1, 2, 3], "Ben's own pictures"
    assert [int(frame.image[0, 60, 0]) for frame in frames[:6]] == [10, 11, 12, 11, 10, 11], "Anna's stretch"
    heard = np.concatenate([event.samples[0] for event in events if isinstance(event, AudioChunk)])
    np.testing.assert_array_equal(heard, made[BEN].wave[: len(heard)])
    mute = SideBySide(BEN, ANNA, BEN, {})
    numbers = [int(event.image[0, 60, 0]) for event in mute.events() if isinstance(event, Frame)]
    assert numbers[20] == 25, "a second of Ben's is a second of Anna's"


def test_winners_are_counted_by_margin_and_any_is_wrong_where_the_voice_is_of_neither() -> None:
    clear, close, wrong = (LEAST + 0.4, 0.0), (LEAST + MARGIN - 0.05, LEAST), (0.0, LEAST + 0.4)
    found = Shares(5, [clear, clear, close, wrong])
    row, at = row_of("x", MUTE, found), MARGINS.index(MARGIN)
    assert (row.clips, row.judged, row.clear[at], row.right[at]) == (5, 4, 3, 2)
    assert row.clear[0] == 4 and row.right[0] == 3
    neither = row_of("x", NEITHER, found)
    assert (neither.clear[at], neither.right[at], neither.speaker_share) == (3, 0, None)
    assert row_of("x", MUTE, Shares()).speaker_share is None


def test_composed_clips_go_the_whole_way_and_leave_a_page(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "clips").mkdir()
    for name in ("anna_1.mp4", "ben_1.mp4"):
        shutil.copy(SAMPLE, tmp_path / "clips" / name)
    argv = ["speaking", "--source", str(tmp_path / "clips"), "--limit", "1", "--output", str(tmp_path / "out")]
    assert main(argv) == 0
    assert "Who has the voice" in capsys.readouterr().out
    (path,) = (tmp_path / "out").glob("*_speaking_*.json")
    rows = {row.kind: row for row in read_result(path).results.kinds}
    assert {row.source for row in rows.values()} == {"clips"} and len(rows) == 3
    assert (rows[MUTE].clips, rows[MUTE].judged) == (1, 1)
    assert main(["report", str(path), "--output", str(tmp_path / "page")]) == 0


def test_people_are_told_by_the_names_of_files_and_long_clips_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compose, "PIECE_S", 3.0)
    shutil.copy(SAMPLE, tmp_path / "anna-x_1.mp4")
    first, second = pieces_of(tmp_path)
    assert (first.person, first.start_s, first.end_s, second.start_s) == ("anna", 0.0, 3.0, 3.0)
    assert ANNA.person == "anna" and BEN.person == "ben"


@pytest.mark.parametrize(
    ("make", "argv", "code", "words"),
    [
        (None, ["--source", "nowhere"], 9, "does not exist"),
        (None, ["--source", "."], 9, "has no clip"),
        ("anna_1.mp4", ["--source", "."], 9, "clips of one person"),
        (None, ["--source", ".", "--limit", "0"], 2, "at least 1"),
    ],
)
def test_bad_input_is_one_line(
    make: str | None,
    argv: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    if make:
        shutil.copy(SAMPLE, make)
    assert main(["speaking", *argv, "--output", "results"]) == code
    assert words in failure_line(capsys)
