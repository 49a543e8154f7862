"""What the figures were measured on: processor, memory, accelerator, library versions. No host or user name."""

from __future__ import annotations

import importlib
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import psutil

from mma_edge.engines.machine import cpu_model, instruction_sets, read_text

LIBRARIES = {"numpy": "numpy", "onnxruntime": "onnxruntime", "opencv": "cv2", "av": "av"}
"""Name on the page -> module whose `__version__` is asked."""

MIB = 1 << 20
GIB = 1 << 30
NVIDIA_SMI_TIMEOUT_S = 20


def describe_machine() -> dict:
    """The `machine` object of a result; see `mma_benchmarks.result`."""
    model = cpu_model()
    return {
        "name": machine_name(model),
        "cpu": model,
        "cores_logical": os.cpu_count() or 0,
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        "instruction_sets": list(instruction_sets()),
        "memory_gib": round(psutil.virtual_memory().total / GIB, 1),
        "os": operating_system(),
        "python": platform.python_version(),
        "libraries": {name: _version(module) for name, module in LIBRARIES.items()},
        "gpus": gpus(),
        # Somebody else's work on the same cores makes every figure worse; the reader has to know.
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0,
    }


def machine_name(model: str) -> str:
    """A file name's worth of the processor: "Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz" -> "intel-core-i7-8700"."""
    model = re.sub(r"\((R|TM|C)\)|\bCPU\b|@.*$", " ", model, flags=re.IGNORECASE)
    return slug(model)


def slug(text: str) -> str:
    """Lower-case letters, digits and dots joined by dashes; safe in a file name."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "unknown"


def operating_system() -> str:
    """Distribution, kernel and architecture, e.g. "Debian GNU/Linux 12, Linux 6.1.0, x86_64"."""
    kernel = f"{platform.system()} {platform.release()}, {platform.machine()}"
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
    except (OSError, KeyError):
        return kernel


def gpus() -> list[str]:
    """Name, memory and driver of each NVIDIA GPU, by nvidia-smi; present does not mean used."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


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
