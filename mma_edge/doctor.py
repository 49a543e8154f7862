"""What `mma-edge doctor` finds: each part of the machine, whether it can be used, and what to do."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mma_edge import __version__
from mma_edge.errors import MMAEdgeError

OK, OPTIONAL, BROKEN = "ok", "none", "broken"
STYLES = {OK: "green", OPTIONAL: "yellow", BROKEN: "bold red"}
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "amx_bf16", "amx_int8", "asimd", "asimddp", "bf16", "i8mm")


@dataclass(frozen=True)
class Finding:
    """One row: state is OK, OPTIONAL (absent, not needed for files on the CPU) or BROKEN."""

    name: str
    state: str
    found: str
    todo: str = ""


def examine(console: Console) -> int:
    """Print all findings; exit code 1 when something is broken that every run needs."""
    table = Table(box=None, pad_edge=False)
    for heading in ("part", "state", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    broken = 0
    with console.status("looking around"):
        for finding in findings():
            style = STYLES[finding.state]
            broken += finding.state == BROKEN
            table.add_row(
                finding.name, f"[{style}]{finding.state}[/{style}]", escape(finding.found), escape(finding.todo)
            )
    console.print(table, highlight=False)
    return 1 if broken else 0


def findings() -> Iterator[Finding]:
    """Every check in order; a check that fails unexpectedly is itself a finding."""
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("mma-edge", _package),
        ("processor", _processor),
        ("onnxruntime", _onnxruntime),
        ("default model", _default_model),
        ("face detector", _face_detector),
        ("NVIDIA GPU", _gpu),
        ("TensorRT", _tensorrt),
        ("OpenVINO", _openvino),
        ("camera", _cameras),
        ("microphone", _microphones),
        ("torch", _torch),
    ]
    for name, check in checks:
        try:
            yield check()
        except MMAEdgeError as error:
            yield Finding(name, BROKEN, error.what, error.hint)
        except Exception as error:  # a doctor that faints helps nobody
            yield Finding(name, BROKEN, f"{type(error).__name__}: {error}", "report this")


def _package() -> Finding:
    return Finding("mma-edge", OK, f"{__version__}, Python {platform.python_version()}, {platform.platform()}")


def _processor() -> Finding:
    name, flags = platform.processor() or platform.machine(), set()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = set(value.split())
    useful = " ".join(flag for flag in CPU_FLAGS if flag in flags)
    return Finding("processor", OK, f"{name}, {os.cpu_count()} cores" + (f", {useful}" if useful else ""))


def _onnxruntime() -> Finding:
    try:
        import onnxruntime
    except ImportError:
        return Finding("onnxruntime", BROKEN, "not installed", 'pip install "mma-edge[cpu]"')
    both = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    names = ", ".join(name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers())
    # What it lists is compiled in, not what works: CUDA is listed on machines without a GPU.
    found = f"{onnxruntime.__version__}, providers compiled in: {names}"
    if len(both) > 1:
        todo = "two builds overwrite each other: pip uninstall onnxruntime onnxruntime-gpu, then install one"
        return Finding("onnxruntime", BROKEN, found, todo)
    return Finding("onnxruntime", OK, found)


def _default_model() -> Finding:
    import mma_edge

    start = time.perf_counter()
    recognizer = mma_edge.load()
    took_ms = 1000 * (time.perf_counter() - start)
    found = f"{recognizer.bundle.name} {recognizer.precision} on {recognizer.engine.details}, self-test passed"
    return Finding("default model", OK, f"{found}, loaded in {took_ms:.0f} ms")


def _face_detector() -> Finding:
    from mma_edge.faces import MTCNNDetector

    MTCNNDetector()
    return Finding("face detector", OK, "MTCNN")


def _gpu() -> Finding:
    names = cuda_devices()
    if names:
        return Finding("NVIDIA GPU", OK, ", ".join(names), "engines for it come with a later version; runs use the CPU")
    if Path("/etc/nv_tegra_release").is_file():
        return Finding(
            "NVIDIA GPU", BROKEN, "a Jetson whose CUDA driver does not answer", "reinstall JetPack's nvidia-l4t-cuda"
        )
    if shutil.which("nvidia-smi"):
        return Finding(
            "NVIDIA GPU", OPTIONAL, "nvidia-smi is here, but no CUDA device", "check nvidia-smi and the driver"
        )
    return Finding("NVIDIA GPU", OPTIONAL, "no CUDA device", "none needed: the CPU does")


def cuda_devices() -> list[str]:
    """Names of the CUDA devices that the driver itself reports; [] without a driver or a device."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return []
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    names = []
    for index in range(count.value):
        device, name = ctypes.c_int(), ctypes.create_string_buffer(128)
        if driver.cuDeviceGet(ctypes.byref(device), index) == 0:
            driver.cuDeviceGetName(name, len(name), device)
            names.append(name.value.decode(errors="replace"))
    return names


def _tensorrt() -> Finding:
    version = _version("tensorrt")
    if version is None:
        return Finding("TensorRT", OPTIONAL, "not installed", "not used by this version")
    return Finding("TensorRT", OK, f"{version} installed, not tried", "not used by this version")


def _openvino() -> Finding:
    version = _version("openvino")
    if version is None:
        return Finding("OpenVINO", OPTIONAL, "not installed", "not used by this version")
    return Finding("OpenVINO", OK, f"{version} installed, not tried", "not used by this version")


def _cameras() -> Finding:
    if not sys.platform.startswith("linux"):
        return Finding("camera", OPTIONAL, "cannot be listed on this system", "try: mma-edge run camera:0")
    found, locked = [], []
    for device in sorted(Path("/dev").glob("video[0-9]*"), key=lambda path: int(path.name[5:])):
        label = Path("/sys/class/video4linux") / device.name / "name"
        number = device.name[5:]
        found.append(f"camera:{number}" + (f" {label.read_text().strip()}" if label.is_file() else ""))
        if not os.access(device, os.R_OK | os.W_OK):
            locked.append(str(device))
    if not found:
        return Finding("camera", OPTIONAL, "no /dev/video*", "plug one in; in a container: --device /dev/video0")
    if locked:
        todo = "allow access: sudo usermod -aG video $USER, then log in again"
        return Finding("camera", BROKEN, f"{', '.join(found)}; no access to {', '.join(locked)}", todo)
    # One device may show up as several numbers; only some of them deliver pictures.
    return Finding("camera", OK, ", ".join(found), "try: mma-edge run camera:" + found[0].split()[0].partition(":")[2])


def _microphones() -> Finding:
    try:
        import sounddevice
    except ImportError:
        return Finding("microphone", OPTIONAL, "sounddevice is not installed", 'pip install "mma-edge[live]"')
    except OSError:
        todo = "sudo apt-get install libportaudio2 (Debian, Ubuntu, JetPack)"
        return Finding("microphone", OPTIONAL, "the PortAudio library is missing", todo)
    names = [device["name"] for device in sounddevice.query_devices() if device["max_input_channels"] > 0]
    if not names:
        return Finding("microphone", OPTIONAL, "no input device", "plug one in; without it vision goes on alone")
    return Finding("microphone", OK, ", ".join(names))


def _torch() -> Finding:
    version = _version("torch")
    if version is None:
        return Finding("torch", OPTIONAL, "not installed", "only mma-train, mma-eval and mma-export need it")
    return Finding("torch", OK, f"{version} (never imported at run time)")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
