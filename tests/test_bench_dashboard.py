"""Promises of `mma-bench dashboard`: flashes are timed right, the film has them, the result is read back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from test_bench_report import latency_result

from mma_benchmarks.cli import main
from mma_benchmarks.dashboard.clip import FLASH_S, SIZE, write_clip
from mma_benchmarks.dashboard.measure import flash_ages_ms
from mma_benchmarks.dashboard.schema import Dashboard, DashboardPhase, DashboardSample, DashboardSettings
from mma_benchmarks.report import save
from mma_benchmarks.result import read_result
from mma_edge.errors import DataError
from mma_edge.sources.file import FileSource
from mma_edge.types import Frame

RESULT = Dashboard(
    settings=DashboardSettings(30.0, 3.0, 1280, 720, 25, "chromium"),
    phases=[
        DashboardPhase("nobody looks", 30.0, 0.0, 0.003, 0.2, 1.0),
        DashboardPhase("one viewer, a browser", 30.0, 1.0, 0.048, 0.25, 2.0),
        DashboardPhase("up to 8 come and go", 180.0, 7.0, 0.06, 0.27, 2.0),
    ],
    flashes=29,
    flash_p50_ms=75.0,
    flash_p95_ms=100.0,
    pictures_per_s=12.5,
    picture_p50_ms=40.0,
    picture_p95_ms=87.0,
    visits=200,
    memory_slope_mib_per_h=1.5,
    exit_code=0,
    samples=[DashboardSample(2.0 * n, 270.0, 17, 23, 7) for n in range(30)],
)


def test_a_flash_counts_from_its_first_picture_even_if_only_its_second_is_shown() -> None:
    seen = [[100.05, 100.0, 2.96, 0], [100.10, 100.08, 3.04, 255], [100.2, 100.16, 3.12, 0], [100.3, 100.24, 3.2, 0]]
    assert flash_ages_ms(seen) == pytest.approx([60.0])  # it began at 100.04
    assert flash_ages_ms(seen[:1]) == flash_ages_ms([]) == []


def test_the_film_flashes_at_the_beginning_of_each_second_over_its_seams(tmp_path: Path) -> None:
    write_clip(tmp_path / "film.mkv", 15.0)
    bright = []
    with FileSource(tmp_path / "film.mkv") as source:
        assert source.has_audio
        for event in source.events():
            if isinstance(event, Frame):
                assert event.picture.shape == (SIZE[1], SIZE[0], 3)
                if event.picture[50:51, 50:51].mean() > 128:
                    bright.append(event.time_s)
    assert len(bright) >= 28 and all(time_s % 1.0 < FLASH_S - 0.01 for time_s in bright)


def test_what_is_written_is_read_back_and_shown(tmp_path: Path) -> None:
    result = dataclasses.replace(latency_result(), kind="dashboard", results=RESULT)
    path, markdown, _ = save(result, tmp_path)
    assert read_result(path) == result
    assert "| 4.5 | 5.0 | 75 | 100 | 87 | 12.5 | 200 |" in markdown.read_text()
    assert main(["report", str(path), str(path), "--output", str(tmp_path / "both")]) == 0
    data = json.loads(path.read_text())
    data["results"]["phases"].pop()
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match="three phases"):
        read_result(path)


@pytest.mark.parametrize("options", [["--seconds", "1"], ["--minutes", "0"], ["--minutes", "nan"]])
def test_a_wrong_time_is_one_line(options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["dashboard", *options, "--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
