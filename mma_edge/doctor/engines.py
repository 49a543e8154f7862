"""Engines as `mma-edge doctor` finds them: by trying them."""

from __future__ import annotations

import shutil

from mma_edge.bundle import read_bundle
from mma_edge.doctor.finding import BROKEN, OK, OPTIONAL, Check, Finding, version_of
from mma_edge.engines import backend_module, why_not
from mma_edge.engines.cache import cache_root
from mma_edge.engines.machine import NO_GPU, cuda_devices, dotted, driver_cuda_version, is_jetson
from mma_edge.engines.power import read_power


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
    return Finding(OPTIONAL, "no CUDA device")


def _backend(backend: str, *distributions: str) -> Finding:
    """Whether a backend works, found by trying it."""
    installed = ", ".join(f"{each} {version}" for each in distributions if (version := version_of(each)))
    found = installed or "not installed"
    reason = why_not(backend)
    if reason is None:
        return Finding(OK, f"{found}, tried and works")
    if reason == NO_GPU:
        return Finding(OPTIONAL, f"{found}, {reason}")
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


ENGINES: dict[str, Check] = {
    "NVIDIA GPU": _gpu,
    "onnxruntime CUDA": lambda: _backend("cuda", "onnxruntime-gpu"),
    "TensorRT": _tensorrt,
    "OpenVINO": _openvino,
}
