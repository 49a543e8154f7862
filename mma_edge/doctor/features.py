"""Which packages each feature needs, and what installs them: the one table of it.

tests/test_doctor.py holds it against pyproject.toml and constraints.txt.
"""

from __future__ import annotations

import importlib
import re
import shutil
from dataclasses import dataclass

from mma_edge.doctor.finding import BROKEN, OK, OPTIONAL, Finding, version_of
from mma_edge.errors import first_line

PACKAGES = {
    "numpy": (">=1.26", "2.4.6"),
    "opencv-python-headless": (">=4.9", "5.0.0.93"),
    "av": (">=14.2", "18.1.0"),
    "pillow": (">=10.1", "13.0.0"),
    "rich": (">=13.0", "15.0.0"),
    "onnxruntime": (">=1.19", "1.31.1"),
    "openvino": (">=2025.0", "2026.4.1"),
    "sounddevice": (">=0.4.6", "0.5.6"),
    "aiohttp": (">=3.13", "3.14.5"),
    "aiortc": (">=1.15", "1.16.0"),
    "cryptography": (">=44", "50.0.2"),
    "paho-mqtt": (">=2.1", "2.2.0"),
    "pylsl": (">=1.17", "1.18.6"),
    "pyarrow": (">=16", "26.0.1"),
    "ray": (">=2.40", "2.60.0"),
    "shtab": (">=1.8", "1.13.0"),
    "torch": (">=2.6", "2.13.0"),
    "soundfile": (">=0.12", "0.14.0"),
    "matplotlib": (">=3.8", "3.11.2"),
    "onnx": (">=1.17", "1.23.2"),
    "onnxscript": (">=0.7", "0.7.2"),
    "onnx-ir": (">=0.1.16", "1.1.0"),
    "ml-dtypes": (">=0.5", "0.5.4"),
    "psutil": (">=5.9", "7.2.2"),
}
"""Distribution -> versions that it may have, as pyproject.toml says; the newest that was tested, as constraints.txt."""


@dataclass(frozen=True)
class Feature:
    """Something that mma-edge can do where some packages, or a program of the system, are installed."""

    packages: tuple[str, ...]
    extra: str | None = None  # of pyproject.toml; None: every installation has them
    program: str | None = None  # a program of the system
    apt: str = ""  # what installs that on Debian, Ubuntu and JetPack
    module: str | None = None  # imported, because a library of the system may be missing behind it


RUNTIME = Feature(("numpy", "opencv-python-headless", "av", "pillow", "rich"))
FEATURES = {
    "page": Feature(("aiohttp", "cryptography"), "web"),
    "browser's camera": Feature(("aiortc",), "browser"),
    "GStreamer, CSI": Feature(
        (), program="gst-launch-1.0", apt="gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
    ),
    "MQTT": Feature(("paho-mqtt",), "mqtt"),
    "LSL": Feature(("pylsl",), "lsl", module="pylsl"),
    "Parquet tables": Feature(("pyarrow",), "table"),
    "Ray cluster": Feature(("ray",), "ray"),
    "shell completion": Feature(("shtab",), "completion"),
    "training": Feature(("torch", "soundfile", "matplotlib"), "train"),
    "export": Feature(("onnx", "onnxscript", "onnx-ir", "ml-dtypes"), "export"),
    "benchmarks": Feature(("matplotlib", "psutil", "soundfile"), "bench"),
}
"""Those whose presence is all that can be checked; what can be tried has a check of its own, and these extras:"""
TRIED = {"cpu": ("onnxruntime",), "openvino": ("openvino",), "live": ("sounddevice",)}
GPU_EXTRAS = ("gpu", "gpu-cu12", "tensorrt", "tensorrt-cu12", "tensorrt-cu13")
"""Which of these fits is the driver's to say: `mma_edge.engines.machine.install_command`."""


def look(feature: Feature) -> Finding:
    """Whether a feature has what it needs, in versions that are known to work."""
    install = f'pip install "mma-edge[{feature.extra}]"' if feature.extra else "install mma-edge again"
    lacking = OPTIONAL if feature.extra or feature.program else BROKEN
    versions = {name: version_of(name) for name in feature.packages}
    if missing := [name for name, version in versions.items() if version is None]:
        return Finding(lacking, f"{', '.join(missing)} not installed", install)
    if feature.program and not shutil.which(feature.program):
        return Finding(lacking, f"no {feature.program}", f"sudo apt-get install {feature.apt}")
    found = ", ".join(described(name, version) for name, version in versions.items()) or str(feature.program)
    if wrong := [name for name, version in versions.items() if not fits(version, PACKAGES[name][0])]:
        needs = " ".join(f'"{name}{PACKAGES[name][0]}"' for name in wrong)
        return Finding(BROKEN, found, f"pip install {needs}")
    if feature.module:
        try:
            importlib.import_module(feature.module)
        except Exception as error:  # whatever it raises where its library is missing
            return Finding(OPTIONAL, f"{found}, but it cannot be imported: {first_line(error)}", "see docs/outputs.md")
    return Finding(OK, found)


def described(name: str, version: str) -> str:
    """Name and version, with what was tested where this one is newer by more than a correction."""
    newest = PACKAGES[name][1]
    newer = _numbers(version)[:2] > _numbers(newest)[:2]
    return f"{name} {version} (newer than the tested {newest})" if newer else f"{name} {version}"


def fits(version: str, allowed: str) -> bool:
    """Whether a version is in a range such as ">=1.26,<3"."""
    limits = re.findall(r"(>=|<)([\d.]+)", allowed)
    return all((_numbers(version) >= _numbers(limit)) == (sign == ">=") for sign, limit in limits)


def _numbers(version: str) -> tuple[int, ...]:
    """(1, 26, 0) of "1.26.0.post1+cu12"."""
    return tuple(int(number) for number in re.match(r"[\d.]*", version)[0].split(".") if number)
