"""The power mode and clocks of a Jetson are read as they are told, and a machine that is none has none."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from fake_nvpmodel import fake_nvpmodel
from test_bench_report import latency_result

from mma_benchmarks.machine.facts import describe_machine
from mma_benchmarks.report import page_of
from mma_benchmarks.result import read_result, to_json
from mma_edge.engines.power import Clock, Power, power_difference, power_mode, read_power, stored_power
from mma_trainer.report.page import to_markdown


def clock(folder: Path, names: tuple[str, str, str], values: tuple[int, int, int]) -> None:
    folder.mkdir(parents=True)
    for name, value in zip(names, values, strict=True):
        (folder / name).write_text(f"{value}\n")


def devfreq(sysfs: Path, name: str, *values: int) -> None:
    clock(sysfs / "class" / "devfreq" / name, ("min_freq", "cur_freq", "max_freq"), values)


def cpufreq(sysfs: Path, number: int, *values: int) -> None:
    folder = sysfs / "devices" / "system" / "cpu" / "cpufreq" / f"policy{number}"
    clock(folder, ("scaling_min_freq", "scaling_cur_freq", "scaling_max_freq"), values)


@pytest.mark.parametrize("gpu", ["17000000.gpu", "17000000.ga10b", "gpu-gpc-0"])
def test_the_clocks_of_gpu_processor_and_memory_are_read_in_megahertz(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: str
) -> None:
    fake_nvpmodel(tmp_path, monkeypatch, "NV Power Mode: MAXN_SUPER\n2")
    sysfs, debugfs = tmp_path / "sys", tmp_path / "debug"
    devfreq(sysfs, gpu, 306_000_000, 612_000_000, 1_020_000_000)
    devfreq(sysfs, "15340000.vic", 1, 2, 3)
    devfreq(sysfs, "gpu-nvd-0", 4, 5, 6)
    cpufreq(sysfs, 0, 115_200, 729_600, 1_510_400)
    cpufreq(sysfs, 4, 1_728_000, 1_728_000, 1_728_000)
    emc = debugfs / "bpmp" / "debug" / "clk" / "emc"
    clock(emc, ("min_rate", "rate", "max_rate"), (204_000_000, 2_133_000_000, 3_199_000_000))
    power = read_power(sysfs, debugfs)
    assert power == Power(
        "MAXN_SUPER",
        {"gpu": Clock(306, 612, 1020), "cpu": Clock(1728, 1728, 1728), "memory": Clock(204, 2133, 3199)},
    )
    told = "mode MAXN_SUPER, gpu 612 MHz (306 to 1020), cpu 1728 MHz (held), memory 2133 MHz (204 to 3199)"
    assert str(power) == told
    (emc / "rate").unlink()  # debugfs is root's alone on most boards
    assert set(read_power(sysfs, debugfs).clocks) == {"gpu", "cpu"}


@pytest.mark.parametrize(
    ("says", "mode"),
    [
        ("NV Power Mode: 15W\n2", "15W"),
        (
            "NVPM WARN: fan mode is not set!\nNV Power Mode: MODE 30W\n2\nNVPM ERROR: Error opening emc_iso_cap: 13",
            "MODE 30W",
        ),
        ("NVPM ERROR: failed to read PARAM", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("status", [0, 255])
def test_the_mode_is_what_nvpmodel_tells_whatever_it_says_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, mode: str | None, status: int
) -> None:
    fake_nvpmodel(tmp_path, monkeypatch, says, status)
    assert power_mode() == mode


def test_a_machine_that_is_no_jetson_has_no_power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    cpufreq(tmp_path, 0, 800_000, 800_000, 4_000_000)
    assert read_power(tmp_path, tmp_path) is None


def test_in_a_container_the_clocks_alone_are_known_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    devfreq(tmp_path, "17000000.gpu", 306_000_000, 306_000_000, 612_000_000)
    inside = read_power(tmp_path, tmp_path)
    assert str(inside) == "mode unknown, gpu 306 MHz (306 to 612)"
    outside = Power("MAXN", {"gpu": Clock(306, 1300, 1300)})
    assert power_difference(inside, outside) == "GPU clock up to 612 MHz, here 1300 MHz"
    # Clocks go up and down; jetson_clocks raises only the lowest.
    held = Power("MAXN", {"gpu": Clock(1300, 1300, 1300)})
    assert power_difference(outside, held) == power_difference(None, held) == power_difference(held, None) == ""
    assert power_difference(Power("15W", {}), held) == "power mode 15W, here MAXN"


def test_what_was_stored_is_read_again() -> None:
    power = Power("15W", {"gpu": Clock(306, 612, 612)})
    assert stored_power(json.loads(json.dumps(dataclasses.asdict(power)))) == power
    assert stored_power(None) is None


def test_a_benchmarks_result_says_in_which_power_it_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvpmodel(tmp_path, monkeypatch, "NV Power Mode: 25W\n1")
    machine = describe_machine()
    assert machine.power.mode == "25W"
    old = latency_result()  # as from before power was recorded
    assert old.machine.power is None and "mode 25W" not in to_markdown(page_of([old]))
    path = tmp_path / "result.json"
    path.write_text(to_json(dataclasses.replace(old, machine=machine)))
    result = read_result(path)
    assert result.machine == machine and "mode 25W" in to_markdown(page_of([result]))
