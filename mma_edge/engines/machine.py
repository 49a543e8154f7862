"""What this machine computes with: its processor, from the kernel, and its GPUs, from NVIDIA's driver.

The driver is called through ctypes, so this needs no package. TensorRT is never called before the driver has reported
a GPU: without one its Runtime and Builder are null inside and crash the process, which no `except` can catch.
"""

from __future__ import annotations

import ctypes
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from mma_edge.errors import BackendError

INSTRUCTION_SETS = (
    # x86: onnxruntime and OpenVINO choose their kernels by these.
    "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_bf16", "amx_int8", "amx_fp16",
    # ARM: half precision, dot product, 8-bit matrix product, bfloat16, scalable vectors.
    "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip

VNNI = {"avx_vnni", "avx512_vnni", "amx_int8"}
"""With any of these, x86 adds 8-bit products in 32 bits (onnxruntime's guide to quantisation)."""


def instruction_sets() -> tuple[str, ...]:
    """Those of INSTRUCTION_SETS that the kernel lists; () on systems other than Linux."""
    return parse_cpuinfo(read_text(Path("/proc/cpuinfo")))[1]


def cpu_model() -> str:
    """The processor's name from the kernel, or the board's name where the kernel has none (Jetson, Raspberry Pi)."""
    stated = parse_cpuinfo(read_text(Path("/proc/cpuinfo")))[0]
    board = read_text(Path("/proc/device-tree/model")).rstrip("\0 \n")
    return stated or board or platform.processor() or platform.machine() or "unknown processor"


def is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


def may_saturate() -> bool:
    """Whether 8-bit products may be added in pairs in 16 bits, which saturate: x86 that does not list VNNI."""
    return is_x86() and not VNNI.intersection(instruction_sets())


def parse_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """Model name ("" if not stated, as on ARM) and those of INSTRUCTION_SETS that /proc/cpuinfo lists."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return fields.get("model name", ""), tuple(name for name in INSTRUCTION_SETS if name in flags)


def read_text(path: Path) -> str:
    """The text of one of the kernel's files, "" where it does not exist."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def available_memory() -> int | None:
    """Bytes that the system can give without swapping; None where the system does not say."""
    stated = re.search(r"^MemAvailable:\s+(\d+)", read_text(Path("/proc/meminfo")), re.MULTILINE)
    return 1024 * int(stated[1]) if stated else None


_INTEGRATED, _COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 18, 75, 76  # CUdevice_attribute
NO_GPU = "no CUDA device answers"


@dataclass(frozen=True)
class CudaDevice:
    """One GPU."""

    name: str  # as the driver gives it, e.g. "Orin"
    compute_capability: tuple[int, int]
    memory_bytes: int  # of the whole device
    integrated: bool = False  # whether its memory is the processor's, as on a Jetson

    @property
    def capability(self) -> str:
        """Compute capability as NVIDIA writes it, e.g. "8.7"."""
        return dotted(self.compute_capability)


def dotted(version: tuple[int, int]) -> str:
    """(8, 7) -> "8.7"."""
    return ".".join(map(str, version))


def first_gpu(devices: list[CudaDevice]) -> CudaDevice:
    """The first of the devices; BackendError where there is none."""
    if not devices:
        raise BackendError(NO_GPU, "an NVIDIA GPU and its driver", "see mma-edge doctor")
    return devices[0]


def cuda_devices() -> list[CudaDevice]:
    """The devices that the driver reports, in its order; [] without a driver or a device."""
    driver = _driver()
    count = ctypes.c_int()
    if driver is None or driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    devices = []
    for index in range(count.value):
        device, name, total = ctypes.c_int(), ctypes.create_string_buffer(128), ctypes.c_size_t()
        major, minor, integrated = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        if driver.cuDeviceGet(ctypes.byref(device), index) != 0:
            continue
        driver.cuDeviceGetName(name, len(name), device)
        driver.cuDeviceTotalMem_v2(ctypes.byref(total), device)
        driver.cuDeviceGetAttribute(ctypes.byref(major), _COMPUTE_CAPABILITY_MAJOR, device)
        driver.cuDeviceGetAttribute(ctypes.byref(minor), _COMPUTE_CAPABILITY_MINOR, device)
        driver.cuDeviceGetAttribute(ctypes.byref(integrated), _INTEGRATED, device)
        capability = (major.value, minor.value)
        devices.append(CudaDevice(name.value.decode(errors="replace"), capability, total.value, bool(integrated.value)))
    return devices


def driver_cuda_version() -> tuple[int, int] | None:
    """The newest CUDA version that the driver can run, e.g. (12, 6); None without a driver."""
    driver, version = _driver(), ctypes.c_int()
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return version.value // 1000, version.value % 1000 // 10


def install_command(extra: str) -> str:
    """Installs an extra that needs CUDA ("gpu", "tensorrt"), in its variant for the driver's CUDA version."""
    version = driver_cuda_version()
    return f'pip install "mma-edge[{extra}{"-cu12" if version and version < (13, 0) else ""}]"'


def is_jetson() -> bool:
    """Whether this is one of NVIDIA's boards, whose GPU shares the processor's memory."""
    return Path("/etc/nv_tegra_release").is_file() or "NVIDIA" in read_text(Path("/proc/device-tree/model"))


def platform_name() -> str:
    """System and processor, e.g. "linux-aarch64"."""
    return f"{sys.platform}-{platform.machine()}"


def _driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
