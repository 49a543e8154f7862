"""Which package serves GPU memory here: cuda-python, else pycuda."""

from __future__ import annotations

from mma_edge.engines.gpu.interface import DeviceMemory
from mma_edge.errors import BackendError, DependencyError

INSTALL = 'pip install "mma-edge[tensorrt]", or: pip install cuda-python'


def probe() -> str | None:
    """None when one of the packages reaches a GPU, else why not, with the remedy. Never raises."""
    try:
        open_device_memory().close()
    except (BackendError, DependencyError) as error:
        return f"{error.what}: {error.hint}"
    return None


def open_device_memory() -> DeviceMemory:
    """The first GPU, through the first package that is installed.

    Raises:
        DependencyError: none is. BackendError: the package finds no usable GPU.
    """
    try:
        from mma_edge.engines.gpu.cuda_python import CudaPythonMemory

        return CudaPythonMemory()
    except ImportError:
        pass
    try:
        from mma_edge.engines.gpu.pycuda import PycudaMemory

        return PycudaMemory()
    except ImportError as error:
        raise DependencyError("neither cuda-python nor pycuda is installed", hint=INSTALL) from error
