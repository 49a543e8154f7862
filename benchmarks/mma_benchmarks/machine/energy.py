"""Joules of a turn, where the machine measures them: NVIDIA GPUs, Jetson's power sensors, Intel's and AMD's RAPL.

Each meter reads what the whole chip or board takes, idle share included. A counter is read before and after; where
there is only a power sensor, it is sampled while the turn runs and integrated.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from mma_benchmarks.machine.facts import nvidia_smi
from mma_edge.engines.machine import read_text

SAMPLE_S = 0.05
SENSOR_S = 1.0
"""How long a sensor's first reading may take."""
RAPL = Path("/sys/class/powercap")
HWMON = Path("/sys/class/hwmon")
WHOLE_BOARD = (
    ("VIN",),  # AGX Thor
    ("VDD_IN",),  # Orin NX and Nano, Xavier NX
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin: the last one alone leaves out processor and GPU
    ("VDD_TOTAL",),
    ("POM_5V_IN",),  # the first Nano
)
"""Rails that together supply a whole Jetson board; a board's are the first of these that it has all of."""


@dataclass
class CounterMeter:
    """Energy from a counter that only goes up, and starts again from 0 at `wrap_j`."""

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
    # On a Jetson processor and GPU share one chip, and its sensor measures the whole board.
    return jetson_meter() or (nvml_meter() or smi_meter() if device == "cuda" else rapl_meter())


def rapl_meter(root: Path = RAPL) -> CounterMeter | None:
    """All processor packages together; readable by root alone on most systems."""
    # "intel-rapl:0" is a package, "intel-rapl:0:1" a part of it.
    zones = [folder for folder in sorted(root.glob("*-rapl:*")) if folder.name.count(":") == 1]
    packages = [folder for folder in zones if read_text(folder / "name").startswith("package")]
    with suppress(OSError, ValueError):
        wraps = [_read(folder / "max_energy_range_uj", 1e6) for folder in packages]
        meter = CounterMeter(
            "RAPL, " + " and ".join(read_text(folder / "name").strip() for folder in packages),
            lambda: sum(_read(folder / "energy_uj", 1e6) for folder in packages),
            # With several packages the sum does not say which of them started again from 0.
            wraps[0] if len(packages) == 1 else 0.0,
        )
        return meter if packages and meter.read_j() > 0 else None
    return None


def jetson_meter(root: Path = HWMON) -> PowerMeter | None:
    """The rails of the whole board from its INA sensors, else from tegrastats; None on other boards."""
    rails: dict[str, tuple[Path, str]] = {}  # name -> folder and channel
    for folder in sorted(root.glob("hwmon*")):
        if read_text(folder / "name").startswith("ina"):
            for label in sorted(folder.glob("in*_label")):
                rails[read_text(label).strip()] = folder, label.name[len("in") : -len("_label")]

    def read_w(rail: str) -> float:
        folder, channel = rails[rail]
        return _read(folder / f"in{channel}_input", 1e3) * _read(folder / f"curr{channel}_input", 1e3)

    if board := whole_board(rails):
        with suppress(OSError, ValueError):
            meter = PowerMeter(f"INA sensor, {' + '.join(board)}", lambda: sum(map(read_w, board)))
            if meter.read_w() > 0:
                return meter
    return tegrastats_meter()


def whole_board(rails: Collection[str]) -> tuple[str, ...]:
    """Those of a board's rails that together supply all of it; () where that is not known."""
    return next((board for board in WHOLE_BOARD if all(rail in rails for rail in board)), ())


def tegrastats_meter() -> PowerMeter | None:
    """The board's rails, from the lines that a `tegrastats` of our own prints."""
    command = ["tegrastats", "--interval", "100"]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:  # no Jetson
        return None
    latest: list[tuple[str, float]] = []
    told = threading.Event()

    def follow() -> None:
        for line in process.stdout:
            if found := parse_tegrastats(line):
                latest[:] = [found]
                told.set()

    threading.Thread(target=follow, daemon=True).start()
    if not told.wait(SENSOR_S):
        process.kill()
        return None
    return PowerMeter(f"tegrastats, {latest[0][0]}", lambda: latest[0][1], close=process.kill)


def parse_tegrastats(line: str) -> tuple[str, float] | None:
    """(rails, watts) of the whole board from a line with "VDD_IN 4940mW/4940mW"; None without all of them."""
    found = {name: int(now) / 1000 for name, now in re.findall(r"(\w+) (\d+)mW/\d+mW", line)}
    board = whole_board(found)
    return (" + ".join(board), sum(found[rail] for rail in board)) if board else None


def nvml_meter() -> Meter | None:
    """The first GPU through NVML: its energy counter (Volta and later), else its power sensor."""
    try:
        import pynvml
    except ImportError:
        return None
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        with suppress(pynvml.NVMLError):
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            return CounterMeter("NVML energy, GPU 0", lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000)
        pynvml.nvmlDeviceGetPowerUsage(handle)
        return PowerMeter("NVML power, GPU 0", lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1000)
    return None


def smi_meter() -> PowerMeter | None:
    """The first GPU through nvidia-smi, sampled as often as a process can be started for it."""

    def read_w() -> float:
        return float(nvidia_smi("--query-gpu=power.draw", "noheader,nounits", "--id=0")[0][0])

    try:
        return PowerMeter("nvidia-smi power, GPU 0", read_w) if read_w() > 0 else None
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None


def _read(path: Path, per_unit: float) -> float:
    """Of a file in thousandths or millionths of a unit."""
    return int(path.read_text()) / per_unit
