"""Puts the fakes where TensorRT, cuda-python and NVIDIA's driver would be, in this process."""

# ruff: noqa: N802 (the names are NVIDIA's)

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import fake_cudart
import fake_tensorrt
import pytest

from mma_edge.engines import machine as cuda_driver
from mma_edge.engines.tensorrt import build as tensorrt_build
from mma_edge.engines.tensorrt import engine as tensorrt

CHILD = (str(Path(__file__).with_name("fake_tensorrt_child.py")),)


class FakeDriver:
    """libcuda.so.1 as ctypes shows it.

    FAKE_DEVICE is "name major minor [integrated]" or empty, FAKE_CUDA "major minor".
    """

    def __init__(self) -> None:
        self.device = os.environ.get("FAKE_DEVICE", "Orin 8 7").split()
        self.cuda = [int(part) for part in os.environ.get("FAKE_CUDA", "12 6").split()]

    def cuInit(self, flags):
        return 0 if self.device else 100

    def cuDeviceGetCount(self, count):
        count._obj.value = 1
        return 0

    def cuDeviceGet(self, device, index):
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name, length, device):
        name.value = self.device[0].encode()
        return 0

    def cuDeviceTotalMem_v2(self, total, device):
        total._obj.value = fake_cudart.TOTAL_BYTES
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = int([*self.device, "0"][{75: 1, 76: 2, 18: 3}[attribute]])
        return 0

    def cuDriverGetVersion(self, version):
        version._obj.value = 1000 * self.cuda[0] + 10 * self.cuda[1]
        return 0


def modules() -> dict[str, types.ModuleType]:
    """What to put into sys.modules."""
    bindings = types.ModuleType("cuda.bindings")
    bindings.runtime = fake_cudart
    cuda = types.ModuleType("cuda")
    cuda.bindings = bindings
    return {
        "tensorrt": fake_tensorrt,
        "cuda": cuda,
        "cuda.bindings": bindings,
        "cuda.bindings.runtime": fake_cudart,
    }


def into(patch: pytest.MonkeyPatch) -> None:
    """This process has a GPU until the patch is undone, and builds are made by a child that has one."""
    for name, module in modules().items():
        patch.setitem(sys.modules, name, module)
    # They were imported on top of others, if at all.
    patch.delitem(sys.modules, "mma_edge.engines.gpu.cuda_python", raising=False)
    patch.setattr(cuda_driver, "_driver", FakeDriver)
    patch.setattr(tensorrt_build, "CHILD", CHILD)
    patch.setattr(tensorrt, "_cuda_major_of_package", lambda: None)
    fake_cudart.GRAPH_LAUNCHES.clear()


def install() -> None:
    """For a process of its own; tests in this one call `into`."""
    sys.modules.update(modules())
    cuda_driver._driver = FakeDriver
    tensorrt._cuda_major_of_package = lambda: None
    version = os.environ.get("FAKE_TRT_VERSION")
    fake_tensorrt.__version__ = version or fake_tensorrt.__version__
