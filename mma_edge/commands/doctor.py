"""`mma-edge doctor`: checks each part of the machine, whether it works, and says what to do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mma_edge import __version__, load
from mma_edge.bundle import read_bundle
from mma_edge.engines import backend_module, why_not
from mma_edge.engines.cache import cache_root
from mma_edge.engines.machine import (
    NO_GPU,
    cpu_model,
    cuda_devices,
    dotted,
    driver_cuda_version,
    instruction_sets,
    is_jetson,
    read_text,
)
from mma_edge.engines.power import read_power
from mma_edge.errors import MMAEdgeError

OK, OPTIONAL, BROKEN = "ok", "none", "broken"
STYLES = {OK: "green", OPTIONAL: "yellow", BROKEN: "bold red"}


@dataclass(frozen=True)
class Finding:
    """The result of one check: state is OK, OPTIONAL (absent, and not needed for files on the CPU) or BROKEN."""

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
        for part, check in CHECKS.items():
            finding = _result(check)
            style = STYLES[finding.state]
            broken += finding.state == BROKEN
            table.add_row(part, f"[{style}]{finding.state}[/{style}]", escape(finding.found), escape(finding.todo))
    console.print(table, highlight=False)
    return 1 if broken else 0


def _result(check: Callable[[], Finding]) -> Finding:
    """What a check finds; a check that fails unexpectedly is itself a finding, so that the others still run."""
    try:
        return check()
    except MMAEdgeError as error:
        return Finding(BROKEN, error.what, error.hint)
    except Exception as error:
        return Finding(BROKEN, f"{type(error).__name__}: {error}", "report this")


def _processor() -> Finding:
    parts = (cpu_model(), f"{os.cpu_count()} cores", " ".join(instruction_sets()))
    return Finding(OK, ", ".join(part for part in parts if part))


def _onnxruntime() -> Finding:
    try:
        import onnxruntime
    except ImportError:
        return Finding(BROKEN, "not installed", 'pip install "mma-edge[cpu]"')
    names = ", ".join(name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers())
    # The list shows what was compiled in, not what works: CUDA is in it on machines without a GPU.
    found = f"{onnxruntime.__version__}, providers compiled in: {names}"
    if _version("onnxruntime") and _version("onnxruntime-gpu"):
        todo = "two builds overwrite each other: pip uninstall onnxruntime onnxruntime-gpu, then install one"
        return Finding(BROKEN, found, todo)
    return Finding(OK, found)


def _default_model() -> Finding:
    start = time.perf_counter()
    recognizer = load()
    took_ms = 1000 * (time.perf_counter() - start)
    found = f"{recognizer.bundle.name}: auto takes {recognizer.backend} {recognizer.precision}"
    found += f" ({recognizer.engine.details}), self-test passed, loaded in {took_ms:.0f} ms"
    return Finding(OK, found, "; ".join(recognizer.notes))


def _face_detector() -> Finding:
    from mma_edge.faces.detect import MTCNNDetector  # here: it needs OpenCV, which may be missing

    MTCNNDetector()
    return Finding(OK, "MTCNN")


def _voice_detector() -> Finding:
    from mma_edge.audio.voice import VoiceDetector  # here: it needs PyAV, which may be missing

    VoiceDetector()
    return Finding(OK, "Silero VAD")


def _gpu() -> Finding:
    if devices := cuda_devices():
        names = ", ".join(f"{gpu.name} ({gpu.capability}, {gpu.memory_bytes / 1e9:.0f} GB)" for gpu in devices)
        cuda = driver_cuda_version()
        power = read_power()
        found = [names, f"driver for CUDA {dotted(cuda)}" if cuda else "", f"power: {power}" if power else ""]
        return Finding(OK, ", ".join(filter(None, found)))
    if is_jetson():
        return Finding(BROKEN, "a Jetson whose CUDA driver does not answer", "reinstall JetPack's nvidia-l4t-cuda")
    if shutil.which("nvidia-smi"):
        return Finding(OPTIONAL, "nvidia-smi is here, but no CUDA device", "check nvidia-smi and the driver")
    return Finding(OPTIONAL, "no CUDA device", "none needed: the CPU is enough")


def _backend(backend: str, *distributions: str) -> Finding:
    """Whether a backend works, found by trying it."""
    installed = ", ".join(f"{each} {version}" for each in distributions if (version := _version(each)))
    found = installed or "not installed"
    reason = why_not(backend)
    if reason is None:
        return Finding(OK, f"{found}, tried and works")
    if reason == NO_GPU:
        return Finding(OPTIONAL, f"{found}, {reason}", "none needed without an NVIDIA GPU")
    return Finding(OPTIONAL, f"{found}, does not work" if installed else found, reason)


def _tensorrt() -> Finding:
    finding = _backend("tensorrt", "tensorrt", "tensorrt-cu13", "tensorrt-cu12")
    if finding.state != OK:
        return finding
    bundle = read_bundle()
    if usable := backend_module("tensorrt").usable(bundle):
        return Finding(OK, f"{finding.found}, engine of the default model: {', '.join(usable)}")
    return Finding(OK, finding.found, f"no engine of the default model: mma-edge build {bundle.folder}")


def _openvino() -> Finding:
    finding = _backend("openvino", "openvino")
    if finding.state != OK:
        return finding
    native, root = ", ".join(backend_module("openvino").native_precisions()), cache_root()
    return Finding(OK, f"{finding.found} ({native}), compiled models kept in {root or 'no folder'}")


def _cameras() -> Finding:
    from mma_edge.sources.devices.camera import may_use, video_devices  # here: it needs OpenCV, which may be missing

    if not sys.platform.startswith("linux"):
        return Finding(OPTIONAL, "cannot be listed on this system", "try: mma-edge run camera:0")
    devices = video_devices()
    if not devices:
        return Finding(OPTIONAL, "no /dev/video*", "plug one in; in a container: --device /dev/video0")
    labels = (Path("/sys/class/video4linux") / device.name / "name" for device in devices.values())
    found = ", ".join(
        f"camera:{number} {read_text(label).strip()}".rstrip() for number, label in zip(devices, labels, strict=True)
    )
    if locked := [str(device) for device in devices.values() if not may_use(device)]:
        todo = "allow access: sudo usermod -aG video $USER, then log in again"
        return Finding(BROKEN, f"{found}; no access to {', '.join(locked)}", todo)
    # One device may have several numbers, of which only some deliver pictures.
    return Finding(OK, found, f"try: mma-edge run camera:{next(iter(devices))}")


def _microphones() -> Finding:
    try:
        import sounddevice
    except ImportError:
        return Finding(OPTIONAL, "sounddevice is not installed", 'pip install "mma-edge[live]"')
    except OSError:
        todo = "sudo apt-get install libportaudio2 (Debian, Ubuntu, JetPack)"
        return Finding(OPTIONAL, "the PortAudio library is missing", todo)
    names = [device["name"] for device in sounddevice.query_devices() if device["max_input_channels"] > 0]
    if not names:
        return Finding(OPTIONAL, "no input device", "plug one in; without it only the camera is used")
    return Finding(OK, ", ".join(names))


def _browser() -> Finding:
    if missing := [name for name in ("aiohttp", "aiortc") if not _version(name)]:
        return Finding(OPTIONAL, f"{' and '.join(missing)} not installed", 'pip install "mma-edge[browser]"')
    return Finding(OK, f"aiortc {_version('aiortc')}", "try: mma-edge run browser")


def _torch() -> Finding:
    if version := _version("torch"):
        return Finding(OK, f"{version} (never imported at run time)")
    return Finding(OPTIONAL, "not installed", "only mma-train, mma-eval and mma-export need it")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


CHECKS: dict[str, Callable[[], Finding]] = {
    "mma-edge": lambda: Finding(OK, f"{__version__}, Python {platform.python_version()}, {platform.platform()}"),
    "processor": _processor,
    "onnxruntime": _onnxruntime,
    "default model": _default_model,
    "face detector": _face_detector,
    "voice detector": _voice_detector,
    "NVIDIA GPU": _gpu,
    "onnxruntime CUDA": lambda: _backend("cuda", "onnxruntime-gpu"),
    "TensorRT": _tensorrt,
    "OpenVINO": _openvino,
    "camera": _cameras,
    "microphone": _microphones,
    "browser": _browser,
    "torch": _torch,
}
