"""Promises of result files and their pages: one schema, nothing overwritten, pages that need nothing from the web."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from conftest import failure_line

from mma_benchmarks.cli import main
from mma_benchmarks.report import KINDS, save
from mma_benchmarks.result import Machine, Model, Result, default_folder, from_dict, read_result, to_json
from mma_benchmarks.schema import RESULTS, summarise

MACHINE = {
    "name": "some-processor", "cpu": "Some <Processor>", "cores_logical": 4, "cores_usable": 4,
    "instruction_sets": ["avx2"], "memory_gib": 8.0, "os": "Linux", "python": "3.11.0",
    "libraries": {"numpy": "2.0"}, "gpus": [], "load_average": 3.5,
}  # fmt: skip
BUNDLE = {
    "name": "Tiny & Co", "manifest_sha256": "0" * 64, "labels": ["happy", "sad"], "image_size": 48,
    "precision": "fp32", "backend": "cpu", "engine": "onnxruntime",
}  # fmt: skip


def result_of(kind: str, command: str, results: dict) -> Result:
    machine, bundle = from_dict(Machine, MACHINE), from_dict(Model, BUNDLE)
    return Result(kind, "2030-01-02T03:04:05Z", command, machine, bundle, from_dict(RESULTS[kind], results))


def summary(values: list[float]) -> dict:
    return dataclasses.asdict(summarise(values))


def latency_result() -> Result:
    stage = {"per_call_ms": summary([1.0, 2.0, 30.0]), "per_run_ms": 33.0, "share": 0.33}
    results = {
        "source": {"name": "sample", "media_s": 7.8, "video": True, "audio": True, "width": 480, "height": 480},
        "settings": {"repeat": 1, "warmup": 0, "iterations": 3, "window_s": 4.0, "hop_s": 0.5},
        "startup": {"import_s": 0.5, "load_s": 0.2, "open_s": 0.1},
        "runs": [{"wall_s": 0.1, "real_time_factor": 78.0, "frames": 195, "frames_per_s": 1950.0, "answers": 16}],
        "stages": {"decode": stage, "engine": stage},
        "other": {"per_run_ms": 34.0, "share": 0.34},
        "predict_ms": summary([5.0, 6.0]),
        "age_ms": summary([7.0]),
        "peak_memory_mib": 200.0,
    }
    return result_of("latency", "mma-bench latency", results)


def accuracy_result() -> Result:
    entry = {
        "set": "faces", "condition": "video only", "description": "two classes", "num_clips": 3, "uar": 0.75,
        "war": 2 / 3, "loss": 0.5, "ece": 0.1, "recall": [0.5, 1.0], "confusion": [[1, 1], [0, 1]], "predict_s": 0.1,
    }  # fmt: skip
    absent = {**entry, "condition": "audio only", "recall": [0.5, None], "confusion": [[1, 1], [0, 0]]}
    results = {"settings": {"sets": ["faces"], "limit": None, "batch": 32}, "conditions": [entry, absent]}
    return result_of("accuracy", "mma-bench accuracy --data d", results)


BOTH = pytest.mark.parametrize("result", [latency_result(), accuracy_result()], ids=lambda result: result.kind)


@BOTH
def test_what_is_written_is_read_back(result: Result, tmp_path: Path) -> None:
    paths = save(result, tmp_path)
    assert [path.name for path in paths] == [
        f"20300102T030405Z_some-processor_{result.kind}_tiny-co{suffix}" for suffix in (".json", ".md", ".html")
    ]
    assert read_result(paths[0]) == result


@BOTH
def test_a_page_needs_nothing_from_elsewhere(result: Result, tmp_path: Path) -> None:
    page = save(result, tmp_path)[2].read_text()
    assert "<svg" in page and "<table" in page
    assert not re.search(r"""(src|href|action)\s*=\s*["']?\s*(https?:)?//""", page)
    assert not re.search(r"<(script|link|iframe|object|img)\b|@import|url\((?!#)", page)
    assert "Some &lt;Processor&gt;" in page and "Tiny &amp; Co" in page


@BOTH
def test_markdown_has_every_table_of_the_page(result: Result, tmp_path: Path) -> None:
    _, markdown, page = (path.read_text() for path in save(result, tmp_path))
    assert len(re.findall(r"^\| ---", markdown, re.MULTILINE)) == page.count("<table")
    assert "<svg" not in markdown and f"    {result.command}" in markdown
    assert r"Some \<Processor>" in markdown  # a bare < would begin a tag


def test_a_second_result_of_the_same_second_gets_a_name_of_its_own(tmp_path: Path) -> None:
    first, second = save(latency_result(), tmp_path), save(latency_result(), tmp_path)
    assert [path.name.removesuffix(path.suffix)[-2:] for path in second] == ["-2"] * 3
    assert len({*first, *second}) == 6 == len(list(tmp_path.iterdir()))  # no temporary file stays


def test_other_work_on_the_machine_is_said_on_the_page(tmp_path: Path) -> None:
    idle = dataclasses.replace(latency_result(), machine=Machine(**{**MACHINE, "load_average": 0.1}))
    assert "Other work was running" in save(latency_result(), tmp_path)[1].read_text()
    assert "Other work was running" not in save(idle, tmp_path)[1].read_text()


def test_several_results_become_one_page(tmp_path: Path) -> None:
    files = [str(save(result, tmp_path)[0]) for result in (latency_result(), accuracy_result(), latency_result())]
    output = tmp_path / "pages" / "all.html"
    assert main(["report", *files, "--output", str(output)]) == 0
    for path in (output, output.with_suffix(".md")):
        text = path.read_text()
        assert "1. Latency of" in text and "2. Accuracy of" in text and "3. Latency of" in text
        assert "Latency at a glance" in text and "Accuracy at a glance" in text
    # Accuracy against latency, then the figures of each.
    assert output.read_text().count("<svg") == 1 + 2 + 3 + 2


def test_every_kind_of_result_has_a_page() -> None:
    assert list(KINDS) == list(RESULTS)


def test_an_existing_page_stays_unless_told_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = str(save(latency_result(), tmp_path)[0])
    page = tmp_path / "page.md"
    page.write_text("mine")
    argv = ["report", file, "--output", str(tmp_path / "page.html")]
    assert main(argv) == 7 and "--overwrite" in capsys.readouterr().err
    assert page.read_text() == "mine"
    assert main([*argv, "--overwrite"]) == 0 and page.read_text() != "mine"
    assert main(["report", file, "--output", str(tmp_path)]) == 2


def _without(key: str) -> str:
    data = json.loads(to_json(latency_result()))
    del data[key]
    return json.dumps(data)


def _changed(path: str, value: object, result: Result) -> str:
    data = json.loads(to_json(result))
    *parents, last = path.split(".")
    place = data
    for key in parents:
        place = place[int(key) if key.isdigit() else key]
    place[last] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read as JSON"),
        ("[1]", "no schema_version"),
        ("{}", "no schema_version"),
        (_changed("schema_version", 3, latency_result()), "schema version 3; expected version 1 or 2"),
        (_changed("schema_version", True, latency_result()), "schema version True"),
        (_changed("kind", "guessing", latency_result()), "kind is 'guessing'"),
        (_without("machine"), "['machine']"),
        (_changed("results.surprise", 1, latency_result()), "results lacks or does not know ['surprise']"),
        (_changed("results.runs", [], latency_result()), "no runs"),
        (_changed("results.predict_ms.p50", "fast", latency_result()), "results.predict_ms.p50 is 'fast'"),
        (_changed("results.predict_ms.p50", True, latency_result()), "results.predict_ms.p50 is True"),
        (_changed("results.source.width", 480.0, latency_result()), "results.source.width is 480.0"),
        (_changed("results.stages.decode.share", None, latency_result()), "results.stages.decode.share is None"),
        (_changed("results.runs", {}, latency_result()), "results.runs is a dict"),
        (_changed("machine.gpus", [1], latency_result()), "machine.gpus[0] is 1"),
        (_changed("results.age_ms.p50", float("nan"), latency_result()), "NaN is not JSON"),
        (_changed("results.conditions.0.recall", [0.5], accuracy_result()), "not about 2 classes"),
        (_changed("results.conditions", [], accuracy_result()), "conditions is empty"),
    ],
)
def test_a_file_that_is_no_result_is_refused(text: str, words: str, tmp_path: Path, capsys) -> None:
    path = tmp_path / "result.json"
    path.write_text(text)
    assert main(["report", str(path), "--output", str(tmp_path / "page")]) == 9
    assert words in failure_line(capsys)
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["report", str(tmp_path / "none.json"), "--output", str(tmp_path / "page")]) == 9
    assert "none.json does not exist" in capsys.readouterr().err


def test_results_go_to_the_checkouts_folder_where_there_is_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_folder() == Path("results")
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    assert default_folder() == Path("benchmarks/results")
