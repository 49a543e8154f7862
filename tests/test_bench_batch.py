"""Promises of `mma-bench batch`: every number of workers does the same files, and the result is read back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from test_bench_report import latency_result

from mma_benchmarks.batch.measure import BatchBenchOptions, copy_sources, measure_batch, ways_of
from mma_benchmarks.batch.schema import Batch, BatchSettings, BatchTurn
from mma_benchmarks.cli import main
from mma_benchmarks.report import save
from mma_benchmarks.result import read_result
from mma_edge.batch.files import digest_of
from mma_edge.errors import DataError, SourceError

SETTINGS = BatchSettings(["sample"], 12, 90.0, 3, 4.0, 0.5)
TURNS = {1: [BatchTurn(s, 20.0, 0.1) for s in (31.0, 30.0, 60.0)], 2: [BatchTurn(s, 22.0, 0.3) for s in (15.5, 16, 15)]}


def test_the_median_turn_counts_and_speed_is_against_the_first(tmp_path: Path) -> None:
    one, two = ways_of(TURNS, SETTINGS)
    assert (one.speedup, two.speedup) == (1.0, 2.0) and two.files_per_min == pytest.approx(60 * 12 / 15.5)
    assert two.media_s_per_s_per_worker == pytest.approx(90 / 15.5 / 2)


def test_what_is_written_is_read_back_and_shown(tmp_path: Path) -> None:
    result = Batch(SETTINGS, list(ways_of(TURNS, SETTINGS)))
    result = dataclasses.replace(latency_result(), kind="batch", results=result)
    path, markdown, _ = save(result, tmp_path)
    assert read_result(path).results.ways[1].speedup == 2.0
    assert "| 2 | 12 | 46.5 | 5.8 | 2.9 | 2.00 x | 15.0 - 16.0 | 22.0 | 0.3 |" in markdown.read_text()
    assert main(["report", str(path), str(path), "--output", str(tmp_path / "both")]) == 0
    data = json.loads(path.read_text())
    data["results"]["ways"] = []
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match=r"results\.ways is empty"):
        read_result(path)


def test_every_copy_has_a_content_of_its_own(tmp_path: Path) -> None:
    copy_sources(BatchBenchOptions(files=3), tmp_path / "videos")
    assert len({digest_of(path) for path in (tmp_path / "videos").iterdir()}) == 3


def test_two_real_turns(tmp_path: Path) -> None:
    result = measure_batch(None, BatchBenchOptions(files=2, workers=(2,), repeat=1, backend="cpu"), "mma-bench batch")
    (way,) = result.results.ways
    assert way.workers == 2 and way.speedup == 1.0 and way.turns[0].cpu_s > 0.5
    assert result.results.settings.media_s == pytest.approx(2 * 7.76, abs=0.1)
    assert result.bundle.engine.endswith("1 thread")


def test_a_source_that_fails_ends_the_measurement(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no film")
    with pytest.raises(SourceError, match="2 of 2 files failed"):
        measure_batch(None, BatchBenchOptions((str(tmp_path / "bad.mp4"),), 2, (1,), 1, "cpu"), "mma-bench batch")


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (["--files", "0"], 2, "--files 0"),
        (["--files", "2", "--workers", "3"], 2, "--workers 3"),
        (["--source", "nowhere.mp4"], 3, "nowhere.mp4 does not exist"),
    ],
)
def test_bad_input_is_one_line(
    argv: list[str], code: int, text: str, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    assert main(["batch", *argv, "--output", str(tmp_path)]) == code
    assert text in capsys.readouterr().err
