"""Promises of the energy meters: right joules from made-up sensors, and nothing where there are none."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mma_benchmarks.machine.energy import CounterMeter, PowerMeter, jetson_meter, parse_tegrastats, rapl_meter


def package(root: Path, number: int, energy_uj: int, name: str = "") -> Path:
    folder = root / f"intel-rapl:{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text((name or f"package-{number}") + "\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text("10000000\n")
    return folder


def test_rapl_adds_up_the_packages_alone(tmp_path: Path) -> None:
    first, second = package(tmp_path, 0, 1_000_000), package(tmp_path, 1, 2_000_000)
    package(tmp_path, 2, 5_000_000, name="psys")
    core = tmp_path / "intel-rapl:0:0"
    core.mkdir()
    (core / "name").write_text("core\n")
    meter = rapl_meter(tmp_path)
    assert meter.name == "RAPL, package-0 and package-1"
    meter.start()
    (first / "energy_uj").write_text("1500000")
    (second / "energy_uj").write_text("2250000")
    assert meter.stop() == pytest.approx(0.75)


def test_a_counter_that_went_around_is_followed(tmp_path: Path) -> None:
    folder = package(tmp_path, 0, 9_000_000)
    meter = rapl_meter(tmp_path)
    meter.start()
    (folder / "energy_uj").write_text("500000")
    assert meter.stop() == pytest.approx(1.5)


def test_where_nothing_can_be_read_there_is_no_meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert rapl_meter(tmp_path) is None and jetson_meter(tmp_path) is None
    folder = package(tmp_path, 0, 1)
    (folder / "energy_uj").unlink()  # readable by root alone
    assert rapl_meter(tmp_path) is None


def sensor(folder: Path, **rails: tuple[int, int]) -> None:
    """An INA3221 with rails in millivolts and milliamperes."""
    folder.mkdir()
    (folder / "name").write_text("ina3221\n")
    for channel, (label, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        (folder / f"in{channel}_label").write_text(label + "\n")
        (folder / f"in{channel}_input").write_text(f"{millivolts}\n")
        (folder / f"curr{channel}_input").write_text(f"{milliamperes}\n")


def test_a_jetsons_sensor_is_that_of_the_whole_board(tmp_path: Path) -> None:
    sensor(tmp_path / "hwmon3", VDD_CPU_GPU_CV=(19000, 900), VDD_IN=(20000, 500))
    meter = jetson_meter(tmp_path)
    assert meter.name == "INA sensor, VDD_IN" and meter.read_w() == pytest.approx(10.0)


def test_the_rails_of_an_agx_orin_are_added_up_and_named(tmp_path: Path) -> None:
    sensor(tmp_path / "hwmon3", VDD_GPU_SOC=(20000, 500), VDD_CPU_CV=(20000, 100), VIN_SYS_5V0=(5000, 600))
    sensor(tmp_path / "hwmon4", VDDQ_VDD2_1V8AO=(20000, 50))
    meter = jetson_meter(tmp_path)
    assert meter.name == "INA sensor, VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"
    assert meter.read_w() == pytest.approx(10.0 + 2.0 + 3.0)


def test_a_part_of_a_board_is_not_taken_for_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    sensor(tmp_path / "hwmon3", VIN_SYS_5V0=(5000, 600), VDD_GPU_SOC=(20000, 500))
    assert jetson_meter(tmp_path) is None


def test_tegrastats_is_read_for_the_whole_board() -> None:
    line = "RAM 2468/7620MB CPU [5%@729,off] GR3D_FREQ 0% VDD_CPU_GPU_CV 480mW/470mW VDD_IN 4940mW/4920mW"
    assert parse_tegrastats(line) == ("VDD_IN", pytest.approx(4.94))
    orin = "RAM 2/62GB VDD_GPU_SOC 3200mW/3100mW VDD_CPU_CV 800mW/800mW VIN_SYS_5V0 4000mW/4000mW"
    assert parse_tegrastats(orin) == ("VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0", pytest.approx(8.0))
    assert parse_tegrastats("RAM 2468/7620MB VDD_CPU 480mW/470mW VIN_SYS_5V0 4000mW/4000mW") is None


def test_power_is_integrated_over_time() -> None:
    start = time.perf_counter()
    meter = PowerMeter("ramp", lambda: 100 * (time.perf_counter() - start), sample_s=0.01)
    meter.start()
    began = time.perf_counter() - start
    time.sleep(0.2)
    joules = meter.stop()
    ended = time.perf_counter() - start
    assert joules == pytest.approx(50 * (ended**2 - began**2), rel=0.05)  # of a ramp: half of the height


def test_a_counter_meter_starts_anew_each_time() -> None:
    readings = iter([1.0, 3.0, 10.0, 10.5])
    meter = CounterMeter("counter", lambda: next(readings))
    meter.start()
    assert meter.stop() == 2.0
    meter.start()
    assert meter.stop() == 0.5
