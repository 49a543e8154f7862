"""This machine, and what every run needs of it: versions, memory, disk, model, detectors."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
import time
from pathlib import Path

from mma_edge import __version__, load
from mma_edge.doctor.features import PACKAGES, RUNTIME, described, fits, look
from mma_edge.doctor.finding import BROKEN, OK, OPTIONAL, Check, Finding, version_of
from mma_edge.engines.cache import cache_root
from mma_edge.engines.machine import available_memory, cpu_model, instruction_sets

PYTHONS = ((3, 10), (3, 13))
"""The first and the last whose wheels were checked; the tests run on 3.11."""
LITTLE_MEMORY, LITTLE_DISK = 600 << 20, 500 << 20
"""Bytes. A live run of the default model takes 400 MiB; one of the paper's ViT-B 600 to 1600 MiB (README)."""


def _program() -> Finding:
    version = platform.python_version()
    found = f"{__version__}, Python {version}, {_system()}"
    first, last = (".".join(map(str, each)) for each in PYTHONS)
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        return Finding(OPTIONAL, found, f"tested with Python {first} to {last}: take one of these if something fails")
    return Finding(OK, found)


def _system() -> str:
    with contextlib.suppress(OSError):
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {platform.machine()}"
    return platform.platform()


def _processor() -> Finding:
    parts = (cpu_model(), f"{os.cpu_count()} cores", " ".join(instruction_sets()))
    return Finding(OK, ", ".join(part for part in parts if part))


def _memory() -> Finding:
    free = available_memory()
    if free is None:
        return Finding(OPTIONAL, "this system does not say")
    todo = "end other programs, or take --precision int8" if free < LITTLE_MEMORY else ""
    return Finding(BROKEN if todo else OK, f"{_gib(free)} free", todo)


def _disk() -> Finding:
    places = {"here": Path.cwd(), "compiled models": cache_root()}
    there = {name: _existing(path) for name, path in places.items() if path}
    free = {name: shutil.disk_usage(path).free for name, path in there.items()}
    found = ", ".join(f"{_gib(size)} free for {name}" for name, size in free.items())
    little = min(free.values()) < LITTLE_DISK
    todo = "make room, or set MMA_EDGE_CACHE to a folder on another disk" if little else ""
    return Finding(BROKEN if little else OK, found.replace("for here", "here"), todo)


def _existing(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(each for each in (path, *path.absolute().parents) if each.exists())


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"


def _onnxruntime() -> Finding:
    try:
        import onnxruntime
    except ImportError:
        return Finding(BROKEN, "not installed", 'pip install "mma-edge[cpu]"')
    names = ", ".join(name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers())
    # The list shows what was compiled in, not what works: CUDA is in it on machines without a GPU.
    found = f"{described('onnxruntime', onnxruntime.__version__)}, providers compiled in: {names}"
    if version_of("onnxruntime") and version_of("onnxruntime-gpu"):
        todo = "two builds overwrite each other: pip uninstall onnxruntime onnxruntime-gpu, then install one"
        return Finding(BROKEN, found, todo)
    if not fits(onnxruntime.__version__, PACKAGES["onnxruntime"][0]):
        return Finding(BROKEN, found, f'pip install "onnxruntime{PACKAGES["onnxruntime"][0]}"')
    return Finding(OK, found)


def _default_model() -> Finding:
    start = time.perf_counter()
    recognizer = load()
    took_ms = 1000 * (time.perf_counter() - start)
    found = f"{recognizer.bundle.name}: auto takes {recognizer.backend} {recognizer.precision}"
    found += f" ({recognizer.engine.details}), self-test passed, loaded in {took_ms:.0f} ms"
    return Finding(OK, found)  # why it is on no other engine is said with the engines


def _face_detector() -> Finding:
    from mma_edge.faces.detect import MTCNNDetector  # here: it needs OpenCV, which may be missing

    MTCNNDetector()
    return Finding(OK, "MTCNN")


def _voice_detector() -> Finding:
    from mma_edge.audio.voice import VoiceDetector  # here: it needs PyAV, which may be missing

    VoiceDetector()
    return Finding(OK, "Silero VAD")


def _files() -> Finding:
    """The first picture and sound of the sample, really decoded."""
    from mma_edge.sources import open_source

    kinds: dict[str, object] = {}
    with open_source("sample") as source:
        for event in source.events():
            kinds.setdefault(type(event).__name__, event)
            if len(kinds) == 2:
                break
    return Finding(OK, "the sample's picture and sound are decoded")


MACHINE: dict[str, Check] = {"mma-edge": _program, "processor": _processor, "memory": _memory, "disk": _disk}
NEEDED: dict[str, Check] = {
    "packages": lambda: look(RUNTIME),
    "onnxruntime": _onnxruntime,
    "default model": _default_model,
    "face detector": _face_detector,
    "voice detector": _voice_detector,
    "files": _files,
}
