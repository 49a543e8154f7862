"""Joules of a turn, where the board tells them: NVIDIA GPUs, Jetson's power sensors, Intel's and AMD's RAPL.

Each meter reads what the whole chip or board takes, idle share included. A counter is read before and after; where
there is only a power sensor, it is sampled while the turn runs and integrated.

The NVML and Jetson meters are tested against made-up sensors and never ran on such a board.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

SAMPLE_S = 0.05
SENSOR_S = 1.0
"""How long a sensor's first reading may take."""
RAPL = Path("/sys/class/powercap")
HWMON = Path("/sys/class/hwmon")
WHOLE_BOARD = ("VDD_IN", "VIN_SYS_5V0", "SYS_5V", "VDD_TOTAL", "POM_5V_IN")
"""Rails of Jetson boards that carry everything, the newest boards first."""


@dataclass
class CounterMeter:
    """Energy from a counter that only goes up, and around at `wrap_j`."""

    name: str
    read_j: Callable[[], float]
    wrap_j: float = 0.0
    close: Callable[[], None] = lambda: None
    _start_j: float = field(default=0.0, init=False)

    def start(self) -> None:
        self._start_j = self.read_j()

    def stop(self) -> float:
        """Joules since `start`."""
        used_j = self.read_j() - self._start_j
        return used_j + self.wrap_j if used_j < 0 else used_j


@dataclass
class PowerMeter:
    """Energy from a power sensor in watts, by the trapezoidal rule over samples of a thread."""

    name: str
    read_w: Callable[[], float]
    sample_s: float = SAMPLE_S
    close: Callable[[], None] = lambda: None
    _samples: list[tuple[float, float]] = field(default_factory=list, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _done: threading.Event = field(default_factory=threading.Event, init=False)

    def start(self) -> None:
        self._samples.clear()
        self._done.clear()
        self._sample()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Joules since `start`."""
        self._done.set()
        self._thread.join()
        self._sample()
        pairs = zip(self._samples, self._samples[1:], strict=False)
        return sum((after[0] - before[0]) * (before[1] + after[1]) / 2 for before, after in pairs)

    def _run(self) -> None:
        while not self._done.wait(self.sample_s):
            self._sample()

    def _sample(self) -> None:
        self._samples.append((time.perf_counter(), self.read_w()))


Meter = CounterMeter | PowerMeter


def find_meter(device: str) -> Meter | None:
    """The meter for work on "cpu" or "cuda"; None where nothing can be read."""
    board = jetson_meter()
    if board is not None:  # one chip holds both, and its rails are the board's
        return board
    return nvml_meter() or smi_meter() if device == "cuda" else rapl_meter()


def rapl_meter(root: Path = RAPL) -> CounterMeter | None:
    """All processor packages together; readable by root alone on most systems."""
    packages = []
    for folder in sorted(root.glob("*-rapl:*")):
        # "intel-rapl:0" is a package, "intel-rapl:0:1" a part of it.
        if folder.name.count(":") == 1 and _read_text(folder / "name").startswith("package"):
            packages.append(folder)
    with suppress(OSError, ValueError):
        wraps = [_read_micro(folder / "max_energy_range_uj") for folder in packages]
        meter = CounterMeter(
            "RAPL, " + " and ".join(_read_text(folder / "name") for folder in packages),
            lambda: sum(_read_micro(folder / "energy_uj") for folder in packages),
            # With several packages the sum says not which of them went around.
            wraps[0] if len(packages) == 1 else 0.0,
        )
        if packages and meter.read_j() > 0:
            return meter
    return None


def jetson_meter(root: Path = HWMON) -> PowerMeter | None:
    """The rail of the whole board from its INA sensors, else from tegrastats; None on other boards."""
    rails: dict[str, Path] = {}
    for folder in sorted(root.glob("hwmon*")):
        if _read_text(folder / "name").startswith("ina"):
            for label in sorted(folder.glob("in*_label")):
                rails[_read_text(label)] = folder / label.name.removesuffix("_label")
    for rail in WHOLE_BOARD:
        if rail in rails:
            channel = rails[rail].name.removeprefix("in")
            volts, amperes = rails[rail].with_name(f"in{channel}_input"), rails[rail].with_name(f"curr{channel}_input")
            with suppress(OSError, ValueError):
                meter = PowerMeter(f"INA sensor, {rail}", lambda v=volts, a=amperes: _read_milli(v) * _read_milli(a))
                if meter.read_w() > 0:
                    return meter
    return tegrastats_meter()


def tegrastats_meter() -> PowerMeter | None:
    """The board's rail as the running `tegrastats` prints it."""
    if not shutil.which("tegrastats"):
        return None
    try:
        process = subprocess.Popen(
            ["tegrastats", "--interval", "100"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
    except OSError:
        return None
    latest: list[float] = []
    rails: list[str] = []
    told = threading.Event()

    def follow() -> None:
        for line in process.stdout:
            if found := parse_tegrastats(line):
                rails[:], latest[:] = [found[0]], [found[1]]
                told.set()

    threading.Thread(target=follow, daemon=True).start()
    if not told.wait(SENSOR_S):
        process.kill()
        return None
    return PowerMeter(f"tegrastats, {rails[0]}", lambda: latest[0], close=process.kill)


def parse_tegrastats(line: str) -> tuple[str, float] | None:
    """(rail, watts) of the whole board from a line with "VDD_IN 4940mW/4940mW"; None without such a rail."""
    found = {name: int(now) / 1000 for name, now in re.findall(r"(\w+) (\d+)mW/\d+mW", line)}
    return next(((rail, found[rail]) for rail in WHOLE_BOARD if rail in found), None)


def nvml_meter() -> Meter | None:
    """The first GPU through NVML: its energy counter (Volta and later), else its power sensor."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    except pynvml.NVMLError:
        return None
    with suppress(pynvml.NVMLError):
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        return CounterMeter("NVML energy, GPU 0", lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000)
    with suppress(pynvml.NVMLError):
        pynvml.nvmlDeviceGetPowerUsage(handle)
        return PowerMeter("NVML power, GPU 0", lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1000)
    return None


def smi_meter() -> PowerMeter | None:
    """The first GPU through nvidia-smi, sampled as often as a process can be started for it."""
    meter = PowerMeter("nvidia-smi power, GPU 0", _smi_power_w)
    try:
        return meter if meter.read_w() > 0 else None
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _smi_power_w() -> float:
    command = ["nvidia-smi", "--id=0", "--query-gpu=power.draw", "--format=csv,noheader,nounits"]
    return float(subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout)


def gpu_memory_mib(pid: int) -> float | None:
    """MiB that a process holds on all GPUs, by nvidia-smi; None where it does not know the process."""
    command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.strip()]
        held = [float(row[1]) for row in rows if int(row[0]) == pid]
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None
    return sum(held) if held else None


def _read_text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _read_milli(path: Path) -> float:
    return int(path.read_text()) / 1e3


def _read_micro(path: Path) -> float:
    return int(path.read_text()) / 1e6
