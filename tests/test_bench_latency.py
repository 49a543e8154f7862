"""Promises of `mma-bench latency`: every stage timed on the real pipeline, shares that add up, no torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import failure_line, run_python

from mma_benchmarks.cli import main
from mma_benchmarks.latency.measure import STAGES, Run, stage_table
from mma_benchmarks.machine.facts import machine_name
from mma_benchmarks.result import slug
from mma_benchmarks.schema import summarise
from mma_edge.bundle import DEFAULT_BUNDLE, sha256
from mma_edge.bundle.manifest import MANIFEST

QUICK = ["latency", "--repeat", "1", "--warmup", "0", "--iterations", "3"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JSON file of one run of the default model over the sample."""
    output = tmp_path_factory.mktemp("latency")
    assert main([*QUICK, "--output", str(output)]) == 0
    (path,) = output.glob("*.json")
    return path


def test_every_stage_is_timed_and_the_shares_add_up(written: Path) -> None:
    found = json.loads(written.read_text())["results"]
    assert tuple(found["stages"]) == STAGES
    shares = [stage["share"] for stage in found["stages"].values()] + [found["other"]["share"]]
    assert sum(shares) == pytest.approx(1) and min(shares) >= 0
    (run,) = found["runs"]
    assert found["stages"]["detect"]["per_call_ms"]["count"] == run["frames"] == round(7.8 * 25)
    assert run["real_time_factor"] == pytest.approx(found["source"]["media_s"] / run["wall_s"])
    assert run["frames_per_s"] == pytest.approx(run["frames"] / run["wall_s"])


def test_answers_have_an_age_and_predict_is_timed_alone(written: Path) -> None:
    found = json.loads(written.read_text())["results"]
    assert found["age_ms"]["count"] == found["runs"][0]["answers"] == 16
    assert found["predict_ms"]["count"] == 3 and found["predict_ms"]["min"] > 0
    assert found["peak_memory_mib"] > 50 and found["startup"]["load_s"] > 0


def test_the_result_says_what_was_measured_on_what(written: Path) -> None:
    data = json.loads(written.read_text())
    assert data["bundle"]["manifest_sha256"] == sha256(DEFAULT_BUNDLE / MANIFEST)
    assert data["command"].startswith("mma-bench latency --repeat 1 ")
    assert set(data["machine"]["libraries"]) == {"numpy", "onnxruntime", "opencv", "av"}
    assert data["results"]["source"] == {
        "name": "sample", "media_s": pytest.approx(7.8, abs=0.1),
        "video": True, "audio": True, "width": 480, "height": 480,
    }  # fmt: skip
    page = written.with_suffix(".html").read_text()
    assert page.count("<svg") == 2 and all(stage in page for stage in STAGES)


def test_neither_importing_the_benchmarks_nor_measuring_latency_imports_torch(tmp_path: Path) -> None:
    modules = ("cli", "latency.measure", "accuracy.measure", "report", "figures")
    code = (
        f"import sys, {', '.join(f'mma_benchmarks.{name}' for name in modules)};"
        f"status = mma_benchmarks.cli.main({[*QUICK, '--output', str(tmp_path)]!r});"
        "sys.exit(status or 99 * ('torch' in sys.modules))"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr


def test_percentiles_are_those_of_the_sorted_values() -> None:
    summary = summarise(list(range(101))[::-1])
    assert (summary.p5, summary.p50, summary.p95, summary.p99) == (5, 50, 95, 99)
    assert (summary.count, summary.mean, summary.min, summary.max) == (101, 50, 0, 100)
    assert summarise([10, 20]).p50 == 15 and summarise([10, 20]).p99 == pytest.approx(19.9)


def test_a_share_is_the_part_of_the_wall_time() -> None:
    runs = [Run(0.1, 1.0, {"decode": [100, 200], "engine": [500]}, [], 2, 4.0)] * 2
    stages, other = stage_table(runs)
    assert list(stages) == ["decode", "engine"]
    assert stages["decode"].share == pytest.approx(0.3)
    assert stages["decode"].per_call_ms.count == 4
    assert (other.per_run_ms, other.share) == (pytest.approx(200), pytest.approx(0.2))


def test_a_machine_is_named_after_its_processor() -> None:
    assert machine_name("Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz") == "intel-core-i7-8700"
    assert slug("../Ä b") == "b" and slug("") == "unknown"


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["latency", "--repeat", "0"], 2, "at least 1"),
        (["latency", "--warmup", "-1"], 2, "at least 0"),
        (["latency", "--source", "camera:0"], 2, "record a clip"),
        (["latency", "--source", "nowhere.mp4"], 3, "does not exist"),
        (["latency", "no-bundle"], 5, "no-bundle does not exist"),
        ([], 2, "latency, accuracy, training, streaming, voice, faces, speaking, soak, batch, dashboard or report"),
    ],
)
def test_bad_input_is_one_line(
    argv: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(argv) == code
    assert words in failure_line(capsys)
    assert not list(tmp_path.rglob("*.*"))


def test_results_that_cannot_be_written_are_refused_before_measuring(tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("")
    assert main(["latency", "no-bundle", "--output", str(tmp_path / "file" / "results")]) == 7
    assert "choose another --output" in capsys.readouterr().err


def test_predict_alone_sees_real_content(monkeypatch: pytest.MonkeyPatch) -> None:
    import mma_edge
    from mma_benchmarks.latency import measure as latency

    keeper = latency.ClipKeeper(mma_edge.load())
    latency.run_once(keeper, "sample")
    seen: list[np.ndarray] = []
    monkeypatch.setattr(keeper, "predict", lambda frames, mel: seen.append(frames))
    assert len(latency.time_predict(keeper, keeper.kept, 4)) == 4
    assert len(keeper.kept) == 16 and all(frames.shape[0] == 1 and frames.std() > 10 for frames in seen)
