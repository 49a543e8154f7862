"""mma-bench training: every setting in a process of its own, against a plain loop that computes the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import TINY, make_model, one_line

from mma_benchmarks.cli import main
from mma_benchmarks.result import read_result
from mma_benchmarks.training import child as training_child
from mma_benchmarks.training import measure as training
from mma_benchmarks.training.measure import Setting, TrainingOptions, default_settings, measure_training, run_child
from mma_edge.errors import BackendError, UsageError
from mma_trainer.model.inputs import ContractModel

CPU = torch.device("cpu")


def fake_child(setting: Setting, options: TrainingOptions, device: str) -> dict:
    """Twice as fast and half as large without "plain"."""
    factor = 1.0 if setting.name == "plain" else 0.5
    return {
        "step_s": [4.0 * factor] * options.steps, "cpu_s": [3.0 * factor] * options.steps,
        "peak_memory_mib": 1000.0 * factor, "image_size": 112, "labels": ["happy", "sad"], "threads": 1,
        "device": device, "parameters": 20, "trainable": 10, "torch": "2.0", "loss": 1.5,
    }  # fmt: skip


def test_settings_are_a_precision_and_what_saves_memory() -> None:
    assert Setting.parse("plain") == Setting("plain", "plain")
    assert Setting.parse("int8+micro2+checkpoint") == Setting("int8+micro2+checkpoint", "int8", 2, True)
    assert Setting.parse("bf16+micro1").describe() == "mma-train --precision bf16 --micro-batch 1"


@pytest.mark.parametrize("name", ["fast", "plain+micro1", "fp32+micro0", "fp32+micro1+micro2", "fp32+", ""])
def test_a_setting_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(UsageError) as error:
        Setting.parse(name)
    assert "+microN" in one_line(error.value)


@pytest.mark.parametrize("change", [{"batch_size": 0}, {"steps": 0}, {"rounds": 0}, {"model": "vit-h"}, {"warmup": -1}])
def test_options_out_of_range_are_refused(change: dict) -> None:
    with pytest.raises(UsageError):
        TrainingOptions(**change)


def test_defaults_suit_the_device() -> None:
    assert "bf16" in default_settings("cuda", torch)
    on_cpu = default_settings("cpu", torch)
    assert on_cpu[0] == "plain" and ("int8+micro1" in on_cpu) == torch.cpu._is_vnni_supported()


def test_ratios_are_to_the_plain_loop_which_takes_part_in_every_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    asked: list[str] = []

    def child(setting: Setting, options: TrainingOptions, device: str) -> dict:
        asked.append(setting.name)
        return fake_child(setting, options, device)

    monkeypatch.setattr(training, "run_child", child)
    argv = ["training", "--settings", "bf16", "fp16", "--rounds", "2", "--device", "cpu", "--output", str(tmp_path)]
    assert main(argv) == 0
    assert asked == ["plain", "bf16", "fp16"] * 2
    (path,) = tmp_path.glob("*_training_*.json")
    result = read_result(path)
    by_name = {run.name: run for run in result.results.runs}
    assert (by_name["bf16"].speedup, by_name["bf16"].memory_ratio) == (2.0, 0.5)
    assert by_name["plain"].clips_per_s == 2.0 and by_name["plain"].step_s.count == 6
    page = path.with_suffix(".md").read_text()
    assert "2.00 x" in page and "50 %" in page and "mma-train --precision bf16" in page
    assert "random weights" in path.with_suffix(".html").read_text()
    assert main(["report", str(path), "--output", str(tmp_path / "page.html")]) == 0
    damaged = json.loads(path.read_text())
    damaged["results"]["runs"] = []
    (tmp_path / "damaged.json").write_text(json.dumps(damaged))
    assert main(["report", str(tmp_path / "damaged.json"), "--output", str(tmp_path / "other.html")]) == 9
    assert "results.runs is empty" in capsys.readouterr().err


def test_a_process_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError) as error:
        run_child(Setting.parse("fp32"), TrainingOptions(model="nano", image_size=17), "cpu")
    assert "image_size 17" in one_line(error.value)


def test_plain_and_fp32_learn_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = {}
    still = TINY.replace(drop_path=0.0)  # stochastic depth draws other numbers in the two loops
    for name in ("plain", "fp32", "fp32+micro1", "fp32+checkpoint"):
        model, clips = ContractModel(make_model(still)), training_child.TimedClips(still, 2, 3, CPU)
        with pytest.raises(training_child.EnoughError):
            if name == "plain":
                training_child.train_plainly(model, clips, CPU)
            else:
                training_child.train_ours(model, clips, CPU, Setting.parse(name))
        assert len(clips.wall_s) == len(clips.cpu_s) == 3 and min(clips.wall_s) > 0
        losses[name] = training_child.evaluate(model, still, CPU)
    before = training_child.evaluate(ContractModel(make_model(still)), still, CPU)
    assert abs(losses["plain"] - before) > 1e-3
    assert all(value == pytest.approx(losses["plain"], abs=1e-4) for value in losses.values())


def test_a_child_measures_its_own_time_and_memory() -> None:
    options = TrainingOptions(model="nano", image_size=16, batch_size=1, steps=2, warmup=1, threads=1)
    report = run_child(Setting.parse("plain"), options, "cpu")
    assert len(report["step_s"]) == 2 and min(report["step_s"]) > 0
    assert 100 < report["peak_memory_mib"] < 4000 and report["image_size"] == 16
    assert report["parameters"] > report["trainable"] > 0


def test_plain_is_measured_even_where_it_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "run_child", fake_child)
    result = measure_training(TrainingOptions(settings=("int8",), device="cpu"), "mma-bench training")
    assert [run.name for run in result.results.runs] == ["plain", "int8"]
    assert result.results.settings.trainable == 10
