"""What `mma-edge doctor` finds: each part of the machine, whether it can be used, and what to do."""

from __future__ import annotations

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
from mma_edge.bundle import read_bundle
from mma_edge.engines import NO_GPU, backend_module, why_not
from mma_edge.engines.cache import cache_root
from mma_edge.engines.machine import cpu_model, cuda_devices, driver_cuda_version, instruction_sets, is_jetson
from mma_edge.errors import MMAEdgeError

OK, OPTIONAL, BROKEN = "ok", "none", "broken"
STYLES = {OK: "green", OPTIONAL: "yellow", BROKEN: "bold red"}


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
        ("onnxruntime CUDA", _cuda),
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
    parts = (cpu_model(), f"{os.cpu_count()} cores", " ".join(instruction_sets()))
    return Finding("processor", OK, ", ".join(part for part in parts if part))


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
    found = f"{recognizer.bundle.name}: auto takes {recognizer.backend} {recognizer.precision}"
    found += f" ({recognizer.engine.details}), self-test passed, loaded in {took_ms:.0f} ms"
    return Finding("default model", OK, found, "; ".join(recognizer.notes))


def _face_detector() -> Finding:
    from mma_edge.faces.detect import MTCNNDetector

    MTCNNDetector()
    return Finding("face detector", OK, "MTCNN")


def _gpu() -> Finding:
    devices = cuda_devices()
    if devices:
        names = ", ".join(
            f"{device.name} ({device.compute_capability[0]}.{device.compute_capability[1]}, "
            f"{device.memory_bytes / 1e9:.0f} GB)"
            for device in devices
        )
        cuda = driver_cuda_version()
        return Finding("NVIDIA GPU", OK, names + (f", driver for CUDA {cuda[0]}.{cuda[1]}" if cuda else ""))
    if is_jetson():
        return Finding(
            "NVIDIA GPU", BROKEN, "a Jetson whose CUDA driver does not answer", "reinstall JetPack's nvidia-l4t-cuda"
        )
    if shutil.which("nvidia-smi"):
        return Finding(
            "NVIDIA GPU", OPTIONAL, "nvidia-smi is here, but no CUDA device", "check nvidia-smi and the driver"
        )
    return Finding("NVIDIA GPU", OPTIONAL, "no CUDA device", "none needed: the CPU does")


def _backend(name: str, backend: str, distributions: tuple[str, ...]) -> Finding:
    """Whether a backend works, by trying it."""
    installed = ", ".join(f"{each} {version}" for each in distributions if (version := _version(each)))
    found = installed or "not installed"
    reason = why_not(backend)
    if reason is None:
        return Finding(name, OK, f"{found}, tried and works")
    if reason == NO_GPU:
        return Finding(name, OPTIONAL, f"{found}, {reason}", "none needed without an NVIDIA GPU")
    return Finding(name, OPTIONAL, f"{found}, does not work" if installed else found, reason)


def _cuda() -> Finding:
    return _backend("onnxruntime CUDA", "cuda", ("onnxruntime-gpu",))


def _tensorrt() -> Finding:
    finding = _backend("TensorRT", "tensorrt", ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"))
    if finding.state != OK:
        return finding
    bundle = read_bundle()
    if usable := backend_module("tensorrt").usable(bundle):
        return Finding("TensorRT", OK, f"{finding.found}, engine of the default model: {', '.join(usable)}")
    return Finding("TensorRT", OK, finding.found, f"no engine of the default model: mma-edge build {bundle.folder}")


def _openvino() -> Finding:
    finding = _backend("OpenVINO", "openvino", ("openvino",))
    if finding.state != OK:
        return finding
    native, root = ", ".join(backend_module("openvino").native_precisions()), cache_root()
    return Finding("OpenVINO", OK, f"{finding.found} ({native}), compiled models kept in {root or 'no folder'}")


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
