"""What NVIDIA's driver itself says of this machine: asked through ctypes, so that no package is needed to ask.

TensorRT is never asked before the driver has answered: without a GPU its Runtime and Builder are null inside, and
the process dies where no `except` can help.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_JETSON_FILES = (Path("/etc/nv_tegra_release"), Path("/proc/device-tree/model"))


@dataclass(frozen=True)
class CudaDevice:
    """One GPU.

    Attributes:
        name: as the driver gives it, e.g. "Orin".
        compute_capability: (major, minor).
        memory_bytes: of the whole device; a Jetson shares it with the processor.
    """

    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int


def cuda_devices() -> list[CudaDevice]:
    """The devices that the driver reports, in its order; [] without a driver or a device."""
    driver = _driver()
    count = ctypes.c_int()
    if driver is None or driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    devices = []
    for index in range(count.value):
        device, name, total = ctypes.c_int(), ctypes.create_string_buffer(128), ctypes.c_size_t()
        major, minor = ctypes.c_int(), ctypes.c_int()
        if driver.cuDeviceGet(ctypes.byref(device), index) != 0:
            continue
        driver.cuDeviceGetName(name, len(name), device)
        driver.cuDeviceTotalMem_v2(ctypes.byref(total), device)
        driver.cuDeviceGetAttribute(ctypes.byref(major), _COMPUTE_CAPABILITY_MAJOR, device)
        driver.cuDeviceGetAttribute(ctypes.byref(minor), _COMPUTE_CAPABILITY_MINOR, device)
        devices.append(CudaDevice(name.value.decode(errors="replace"), (major.value, minor.value), total.value))
    return devices


def driver_cuda_version() -> tuple[int, int] | None:
    """The newest CUDA that the driver can run, e.g. (12, 6); None without a driver."""
    driver, version = _driver(), ctypes.c_int()
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return version.value // 1000, version.value % 1000 // 10


def is_jetson() -> bool:
    """Whether this is one of NVIDIA's boards, whose GPU shares the processor's memory."""
    release, model = _JETSON_FILES
    if release.is_file():
        return True
    return model.is_file() and b"NVIDIA" in model.read_bytes()


def platform_name() -> str:
    """System and processor, e.g. "linux-aarch64"."""
    return f"{sys.platform}-{platform.machine()}"


def _driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
