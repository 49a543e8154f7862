"""Opens GPU memory with the package that is installed: cuda-python, else pycuda."""

from __future__ import annotations

from mma_edge.engines.base import why_unusable
from mma_edge.engines.gpu.interface import DeviceMemory
from mma_edge.engines.machine import driver_cuda_version
from mma_edge.errors import DependencyError


def probe() -> str | None:
    """None when one of the packages reaches a GPU, else why not, with the remedy. Never raises."""
    return why_unusable(lambda: open_device_memory().close())


def open_device_memory() -> DeviceMemory:
    """The first GPU, through the first package that is installed.

    Raises:
        DependencyError: neither is installed. BackendError: the package finds no usable GPU.
    """
    # Imported here: each module needs its package.
    try:
        from mma_edge.engines.gpu.cuda_python import CudaPythonMemory

        return CudaPythonMemory()
    except ImportError:
        pass
    try:
        from mma_edge.engines.gpu.pycuda import PycudaMemory

        return PycudaMemory()
    except ImportError as error:
        # Not an extra: on a Jetson it would bring a TensorRT that hides the board's own.
        version = driver_cuda_version()
        hint = f'pip install "cuda-bindings=={version[0]}.*"' if version else "pip install cuda-bindings"
        raise DependencyError("neither cuda-python nor pycuda is installed", hint=hint) from error
