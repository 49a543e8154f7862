"""Promises of the joined page: accuracy meets latency of the same engine, the paper beside it, old files still read."""

from __future__ import annotations

import dataclasses
import html
import json
import re
from pathlib import Path

import pytest
from test_bench_accuracy import make_bundle, make_data
from test_bench_grid import stand_in
from test_bench_report import accuracy_result, latency_result, result_of, summary

from mma_benchmarks.cli import main
from mma_benchmarks.joined import Way, accuracies, joined_blocks, latencies, placing
from mma_benchmarks.report import page_of, save
from mma_benchmarks.result import Result, read_result, to_json
from mma_trainer.report.page import Figure, Table, to_html, to_markdown
from mma_trainer.report.paper import OURS, PUBLISHED

COMMITTED = sorted((Path(__file__).parents[1] / "benchmarks" / "results").glob("*.json"))
SHA = "0" * 64


def cell(runner: str, precision: str, ms: float, batch: int = 1, **changes: object) -> dict:
    found = {
        "subject": "Tiny & Co 48 px", "runner": runner, "precision": precision, "batch": batch, "device": "cpu",
        "details": f"{runner} 1.0", "call_ms": summary([ms, ms, 2 * ms]), "clips_per_s": 1000 * batch / ms,
        "load_cold_s": 2.0, "load_warm_s": 0.5, "peak_memory_mib": 150.0, "gpu_memory_mib": None,
        "energy_j_per_clip": None, "energy_meter": "", "reference": "eager", "speedup": 40.0 / ms,
        "logit_difference": 1e-5, "gflops": 50.0, "peak_share": 0.5,
    }  # fmt: skip
    return {**found, **changes}


def grid_result() -> Result:
    key = {"subject": "Tiny & Co 48 px", "runner": "cuda", "precision": "fp16", "batch": 1}
    subject = {
        "name": "Tiny & Co 48 px", "origin": "a bundle", "manifest_sha256": SHA, "image_size": 48,
        "labels": ["happy", "sad"], "flops_per_clip": 2e9,
    }  # fmt: skip
    results = {
        "settings": {"rounds": 3, "turn_s": 1.0, "uncounted_calls": 1},
        "subjects": [subject],
        "peaks": [{"device": "cpu", "precision": "fp32", "gflops": 100.0, "size": 1024}],
        "cells": [
            cell("eager", "fp32", 40.0, load_cold_s=None),
            cell("cpu", "fp32", 20.0),
            cell("cpu", "int8", 8.0, speedup=None, peak_share=None, energy_j_per_clip=0.125, energy_meter="RAPL"),
            cell("cpu", "fp32", 60.0, batch=4),
        ],
        "refused": [{**key, "why": "no CUDA device answers <here>"}],
    }
    return result_of("grid", "mma-bench latency", results)


def accuracy_grid_result() -> Result:
    conditions = dataclasses.asdict(accuracy_result().results)["conditions"]
    both = {**conditions[0], "set": "pseudo", "condition": "video and audio", "war": 0.9, "uar": 0.8}
    found = {
        "subject": "Tiny & Co 48 px", "manifest_sha256": SHA, "labels": ["happy", "sad"], "runner": "cpu",
        "precision": "int8", "details": "cpu 1.0", "conditions": [*conditions, both],
    }  # fmt: skip
    refused = dataclasses.asdict(grid_result().results)["refused"]
    results = {"settings": {"sets": ["faces"], "limit": None, "batch": 32}, "cells": [found], "refused": refused}
    return result_of("accuracy-grid", "mma-bench accuracy --data d", results)


GRIDS = pytest.mark.parametrize("result", [grid_result(), accuracy_grid_result()], ids=lambda result: result.kind)


@GRIDS
def test_a_grid_is_read_back_as_written(result: Result, tmp_path: Path) -> None:
    paths = save(result, tmp_path)
    assert read_result(paths[0]) == result
    markdown, page = paths[1].read_text(), paths[2].read_text()
    assert len(re.findall(r"^\| ---", markdown, re.MULTILINE)) == len(re.findall(r"<table", page))
    assert "no CUDA device answers &lt;here&gt;" in page and "Some &lt;Processor&gt;" in page
    assert not re.search(r"""(src|href|action)\s*=\s*["']?\s*(https?:)?//|<(script|link|iframe|object|img)\b""", page)


def test_the_page_of_a_grid_has_what_was_asked_of_it() -> None:
    page = to_markdown(page_of([grid_result()]))
    row = next(line for line in page.splitlines() if "| cpu | fp32 | 1 |" in line)
    assert "| 20.0 |" in row and "2.00 x" in row and "50 %" in row
    assert "| 0.125 |" in page and "Energy by RAPL" in page
    assert "Where no ratio to eager stands" in page


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r["cells"][0].pop("speedup"), "speedup"),
        (lambda r: r["cells"][0].update(speedup="fast"), "results.cells[0].speedup is 'fast'"),
        (lambda r: r["cells"][0].update(subject="other"), "results.subjects lacks 'other'"),
        (lambda r: (r["cells"].clear(), r["refused"].clear()), "neither cells nor refused"),
    ],
)
def test_a_grid_that_is_none_is_refused(change, words: str, tmp_path: Path, capsys) -> None:
    data = json.loads(to_json(grid_result()))
    change(data["results"])
    (tmp_path / "r.json").write_text(json.dumps(data))
    assert main(["report", str(tmp_path / "r.json"), "--output", str(tmp_path / "page")]) == 9
    assert words in capsys.readouterr().err


def test_accuracy_meets_the_latency_of_the_same_engine_and_no_other() -> None:
    results = [grid_result(), accuracy_grid_result(), accuracy_result()]
    assert set(accuracies(results)) == {Way(SHA, "cpu", "int8"), Way(SHA, "cpu", "fp32")}
    figure, table = (block for block in joined_blocks(results)[:3] if isinstance(block, (Figure, Table)))
    # Of the eager row there is no accuracy, and batch 4 is another latency.
    assert [(row[1], row[2], row[5]) for row in table.rows] == [
        ("cpu fp32", "20.0", "66.7"), ("cpu int8", "8.0", "90.0")
    ]  # fmt: skip
    assert figure.svg.startswith("<svg")
    assert not any(isinstance(block, Figure) for block in joined_blocks([grid_result()]))


def test_a_model_is_placed_by_both_modalities_where_that_was_measured() -> None:
    conditions = accuracy_grid_result().results.cells[0].conditions
    assert placing(conditions).set == "pseudo" and placing(conditions[:2]).set == "faces"


def test_the_newest_accuracy_counts() -> None:
    newer = dataclasses.replace(accuracy_result(), created="2031-01-01T00:00:00Z")
    newer.results.conditions[0] = dataclasses.replace(newer.results.conditions[0], war=0.123)
    for results in ([accuracy_result(), newer], [newer, accuracy_result()]):
        assert accuracies(results)[Way(SHA, "cpu", "fp32")].conditions[0].war == 0.123


def test_the_papers_table_stands_beside_ours() -> None:
    page = to_html(page_of([accuracy_result(), latency_result()]))
    figures = [f"{row.war:.2f}" for rows in PUBLISHED.values() for row in rows if row.war is not None]
    assert html.escape(f"{OURS}, 224 px") in page and len(figures) == 28 + 20
    assert all(figure in page for figure in figures)
    assert "measured here" in page and "they compare nothing" in page


def test_a_plain_latency_result_is_a_point_too() -> None:
    ((way, model, _, ms),) = latencies([latency_result()])
    assert way == Way(SHA, "cpu", "fp32") and model == "Tiny & Co" and ms.p50 == 5.5


def test_results_of_earlier_versions_are_still_read(tmp_path: Path) -> None:
    assert len(COMMITTED) >= 4
    assert main(["report", *map(str, COMMITTED), "--output", str(tmp_path / "all")]) == 0
    page = (tmp_path / "all.html").read_text()
    assert "Accuracy against latency" in page and "Beside the paper" in page


def test_accuracy_is_measured_over_a_grid(tmp_path: Path) -> None:
    toy, data = make_bundle(tmp_path / "toy"), make_data(tmp_path / "data")
    argv = ["accuracy", str(toy), "--data", str(data), "--backend", "cpu", "cuda", "--set", "faces", "voices"]
    assert main([*argv, "--output", str(tmp_path / "results")]) == 0
    (path,) = (tmp_path / "results").glob("*_accuracy-grid_*.json")
    (found,) = read_result(path).results.cells
    # The toy reads the class off the brightness; one face of the fifteen is as bright as another class.
    assert found.runner == "cpu" and found.conditions[0].war == pytest.approx(14 / 15)
    (refused,) = read_result(path).results.refused
    assert refused.runner == "cuda" and "cuda" in refused.why.lower()


def test_a_cell_that_dies_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy, data = make_bundle(tmp_path / "toy"), make_data(tmp_path / "data")
    stand_in(tmp_path, monkeypatch, "kill -9 $$")
    argv = ["accuracy", str(toy), "--data", str(data), "--backend", "cpu", "openvino", "--set", "faces"]
    assert main([*argv, "--output", str(tmp_path / "results")]) == 6
    (path,) = (tmp_path / "results").glob("*.json")
    assert [("SIGKILL" in row.why) for row in read_result(path).results.refused] == [True, True]


def test_where_nothing_could_be_measured_the_rows_say_why(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    toy, data = make_bundle(tmp_path / "toy"), make_data(tmp_path / "data")
    argv = ["accuracy", str(toy), "--data", str(data), "--backend", "cuda", "tensorrt", "--set", "faces"]
    assert main([*argv, "--output", str(tmp_path / "results")]) == 6
    assert "none of 2 combinations could run here" in capsys.readouterr().err
    assert len(list((tmp_path / "results").glob("*.json"))) == 1
    assert main(["accuracy", "--data", str(data), "--backend", "npu", "cpu"]) == 2
