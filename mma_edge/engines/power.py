"""The power mode and the clocks of an NVIDIA Jetson: what a plan's kernels were timed in, what a measurement ran in.

`nvpmodel` sets a mode: which cores are on and how high each clock may go. Within it the kernel moves each clock between
its lowest and its highest, and `jetson_clocks` raises the lowest to the highest. (Jetson Linux Developer Guide,
"Platform Power and Performance".) All of it is read without root; what cannot be read is left out.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mma_edge.engines.machine import read_text

SYSFS, DEBUGFS = Path("/sys"), Path("/sys/kernel/debug")
GPU_NAME = re.compile(r"(\w+\.)?(gpu|ga10b|gv11b|gp10b|gpu-gpc-0)")
"""The GPU's folder in /sys/class/devfreq: 17000000.gpu on Orin (JetPack 6), gpu-gpc-0 on Thor; the others are older."""
NVPMODEL_S = 5.0


@dataclass(frozen=True)
class Clock:
    """A clock and the bounds that the kernel keeps it in, MHz. Equal bounds: `jetson_clocks` holds it."""

    min_mhz: int
    now_mhz: int
    max_mhz: int

    def __str__(self) -> str:
        bounds = "held" if self.min_mhz == self.max_mhz else f"{self.min_mhz} to {self.max_mhz}"
        return f"{self.now_mhz} MHz ({bounds})"


@dataclass(frozen=True)
class Power:
    """The state at one moment."""

    mode: str | None  # nvpmodel's name, e.g. "15W"; None where it does not answer, as in a container
    clocks: dict[str, Clock]  # of "gpu", "cpu" (its fastest cluster) and "memory", those that can be read

    def __str__(self) -> str:
        clocks = (f"{name} {clock}" for name, clock in self.clocks.items())
        return ", ".join([f"mode {self.mode or 'unknown'}", *clocks])


def read_power(sysfs: Path = SYSFS, debugfs: Path = DEBUGFS) -> Power | None:
    """None on machines that are no Jetson: no `nvpmodel` answers and no clock of a Jetson's GPU can be read."""
    mode, clocks = power_mode(), dict(_clocks(sysfs, debugfs))
    return Power(mode, clocks) if mode or "gpu" in clocks else None


def stored_power(stored: dict[str, Any] | None) -> Power | None:
    """What `dataclasses.asdict` made of one. KeyError, TypeError or ValueError where it is something else."""
    if stored is None:
        return None
    return Power(stored["mode"], {name: Clock(**clock) for name, clock in dict(stored["clocks"]).items()})


def power_difference(then: Power | None, now: Power | None) -> str:
    """ "power mode 15W, here MAXN"; "" where nothing differs or is known. Clocks move; how high they may go counts."""
    if then is None or now is None:
        return ""
    pairs = {"power mode": (then.mode, now.mode)}
    if "gpu" in then.clocks and "gpu" in now.clocks:
        pairs["GPU clock up to"] = tuple(f"{power.clocks['gpu'].max_mhz} MHz" for power in (then, now))
    return "; ".join(f"{name} {old}, here {new}" for name, (old, new) in pairs.items() if old and new and old != new)


def power_mode() -> str | None:
    """The name of the mode that `nvpmodel -q` tells; None without an answer."""
    try:
        # Asked by another user than root it tells the mode and then fails on what it may not read.
        done = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, errors="replace", timeout=NVPMODEL_S)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"^NV Power Mode:[ \t]*(\S.*?)\s*$", done.stdout, re.MULTILINE)
    return found[1] if found else None


def _clocks(sysfs: Path, debugfs: Path) -> Iterator[tuple[str, Clock]]:
    for folder in sorted((sysfs / "class" / "devfreq").glob("*")):
        if GPU_NAME.fullmatch(folder.name):
            # devfreq counts in Hz, cpufreq in kHz.
            yield from _clock("gpu", folder, ("min_freq", "cur_freq", "max_freq"), 10**6)
    names = ("scaling_min_freq", "scaling_cur_freq", "scaling_max_freq")
    policies = sorted((sysfs / "devices" / "system" / "cpu" / "cpufreq").glob("policy*"))
    clusters = [clock for folder in policies for _, clock in _clock("cpu", folder, names, 10**3)]
    if clusters:
        yield "cpu", max(clusters, key=lambda clock: clock.max_mhz)
    yield from _clock("memory", debugfs / "bpmp" / "debug" / "clk" / "emc", ("min_rate", "rate", "max_rate"), 10**6)


def _clock(name: str, folder: Path, files: tuple[str, str, str], per_mhz: int) -> Iterator[tuple[str, Clock]]:
    """(name, clock) where all three files can be read."""
    texts = [read_text(folder / file).strip() for file in files]
    if all(text.isdecimal() for text in texts):
        yield name, Clock(*(int(text) // per_mhz for text in texts))
