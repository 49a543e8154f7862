"""The machine's matrix product at its fastest: what the models' speed is measured against.

Square products by torch, the largest size that keeps a product short; the best of all turns counts, because what
else the machine does can only make it slower. On a GPU torch chooses the arithmetic, as it does for the eager model.
int8 is `torch._int_mm` (int32 sums), where this torch has it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
SIZES = (256, 512, 1024, 2048, 4096, 8192)
LONGEST_S = 0.05
"""A product that takes longer is large enough."""
REPEATS = 3


class MatmulPeak:
    """Measures a little on each call and keeps the best."""

    def __init__(self, device: str) -> None:
        """Finds a size for each precision that this device and torch can multiply."""
        import torch

        self._torch, self._device = torch, torch.device(device)
        self.best: dict[str, tuple[float, int]] = {}
        self._products: dict[str, tuple[Callable, int]] = {}
        for precision in PRECISIONS:
            for size in SIZES:
                try:
                    product = self._product(precision, size)
                    took_s = min(self._time(product) for _ in range(2))
                except (RuntimeError, AttributeError):  # what torch raises where a device cannot do it
                    break
                self._note(precision, size, took_s)
                self._products[precision] = (product, size)
                if took_s > LONGEST_S:
                    break

    def __call__(self) -> dict[str, tuple[float, int]]:
        """One more turn; the best so far: precision -> (GFLOP/s, size)."""
        for precision, (product, size) in self._products.items():
            for _ in range(REPEATS):
                took_s = self._time(product)
                self._note(precision, size, took_s)
                if took_s > LONGEST_S * REPEATS:
                    break
        return self.best

    def _note(self, precision: str, size: int, took_s: float) -> None:
        self.best[precision] = max(self.best.get(precision, (0.0, 0)), (2 * size**3 / took_s / 1e9, size))

    def _product(self, precision: str, size: int) -> Callable[[], object]:
        torch = self._torch
        if precision == "int8":
            values = torch.randint(-128, 128, (2, size, size), dtype=torch.int8, device=self._device)
            left, right = values[0], values[1].t()  # both contiguous along the sum, as a layer's weights are
            return lambda: torch._int_mm(left, right)
        dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
        left, right = (torch.randn(size, size, device=self._device).to(dtype) for _ in range(2))
        out = torch.empty(size, size, device=self._device, dtype=dtype)
        return lambda: torch.mm(left, right.t(), out=out)

    def _time(self, product: Callable) -> float:
        start = time.perf_counter()
        product()
        if self._device.type == "cuda":
            self._torch.cuda.synchronize()
        return time.perf_counter() - start
