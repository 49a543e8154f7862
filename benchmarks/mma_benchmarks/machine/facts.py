"""What the figures were measured on: processor, memory, GPUs, library versions. No host or user name."""

from __future__ import annotations

import importlib
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import psutil

from mma_benchmarks.result import Machine, slug
from mma_edge.engines.machine import cpu_model, instruction_sets, read_text
from mma_edge.engines.power import read_power

LIBRARIES = {"numpy": "numpy", "onnxruntime": "onnxruntime", "opencv": "cv2", "av": "av"}
"""Name on the page -> module whose `__version__` is asked."""

MIB = 1 << 20
GIB = 1 << 30
NVIDIA_SMI_TIMEOUT_S = 20


def describe_machine() -> Machine:
    model = cpu_model()
    return Machine(
        name=machine_name(model),
        cpu=model,
        cores_logical=os.cpu_count() or 0,
        cores_usable=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        instruction_sets=list(instruction_sets()),
        memory_gib=round(psutil.virtual_memory().total / GIB, 1),
        os=operating_system(),
        python=platform.python_version(),
        libraries={name: _version(module) for name, module in LIBRARIES.items()},
        gpus=gpus(),
        # Other work on the same cores makes every figure worse; the reader has to know.
        load_average=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0,
        power=read_power(),
    )


def machine_name(model: str) -> str:
    """The processor's name for file names: "Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz" -> "intel-core-i7-8700"."""
    model = re.sub(r"\((R|TM|C)\)|\bCPU\b|@.*$", " ", model, flags=re.IGNORECASE)
    return slug(model)


def operating_system() -> str:
    """Distribution, kernel and architecture, e.g. "Debian GNU/Linux 12, Linux 6.1.0, x86_64"."""
    kernel = f"{platform.system()} {platform.release()}, {platform.machine()}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except (OSError, KeyError):
        return kernel


def gpus() -> list[str]:
    """Name, memory and driver of each NVIDIA GPU; present does not mean used."""
    try:
        return [", ".join(row) for row in nvidia_smi("--query-gpu=name,memory.total,driver_version", "noheader")]
    except (OSError, subprocess.SubprocessError):
        return []


def nvidia_smi(query: str, form: str = "noheader,nounits", *options: str) -> list[list[str]]:
    """Rows and cells of an answer of nvidia-smi.

    Raises:
        OSError, subprocess.SubprocessError: it is not there, fails or hangs.
    """
    command = ["nvidia-smi", *options, query, f"--format=csv,{form}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S, check=True)
    return [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]


def gpu_memory_mib(pid: int) -> float | None:
    """MiB that a process holds on all GPUs, by nvidia-smi; None where it does not know the process."""
    try:
        rows = nvidia_smi("--query-compute-apps=pid,used_memory")
        held = [float(row[1]) for row in rows if int(row[0]) == pid]
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None
    return sum(held) if held else None


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far, MiB."""
    # Not getrusage on Linux: a child's ru_maxrss begins with what its parent had when it was started.
    if found := re.search(r"^VmHWM:\s+(\d+) kB", read_text(Path("/proc/self/status")), re.MULTILINE):
        return int(found[1]) / 1024
    try:
        import resource
    except ImportError:  # Windows
        return psutil.Process().memory_info().peak_wset / MIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024  # bytes on macOS, KiB on Linux


def _version(module: str) -> str:
    try:
        return str(importlib.import_module(module).__version__)
    except ImportError:
        return "not installed"
