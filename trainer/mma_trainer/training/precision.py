"""In which number format the matrix products of training are computed.

Trainable weights, their gradients and the optimiser's state are float32 in every setting, and so are
the stored files. Only the matrix products differ:

    fp32   as the paper
    bf16   autocast; frozen weights are kept in bfloat16, to which autocast would round them anyway
    fp16   the same in float16, with a scaled loss
    int8   products with frozen weights in 8 bits, forward and for the gradient that passes through them;
           everything else in float32. For CPUs with VNNI but without fast bf16.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mma_edge.engines.machine import instruction_sets
from mma_edge.errors import BackendError
from mma_trainer.training.int8 import to_int8

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
MIN_SCALE = 1.0
"""Above this loss scale, a gradient that is not finite is an overflow of float16, which a lower scale ends."""


_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""Instructions of processors; without any of them a product in bfloat16 takes ten times as long as one in float32."""


def has_bf16(device: torch.device) -> bool:
    """Whether a device multiplies in bfloat16 by itself, as far as this system tells."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(_BF16.intersection(instruction_sets()))


class Precision:
    """One of PRECISIONS on a device, applied to a model for as long as it is trained.

    Raises:
        BackendError: the device cannot compute in it.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name, self.device = name, device
        if name == "int8" and not (device.type == "cpu" and torch.cpu._is_vnni_supported()):
            raise BackendError(f"--precision int8 on {device}", "a processor with VNNI", "use bf16 or fp32")
        if name == "bf16" and device.type == "cuda" and not has_bf16(device):
            raise BackendError(f"--precision bf16 on {device}", "compute capability 8.0 or above", "use fp16")
        # Where it is not enabled, it passes losses and steps through.
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")
        self._originals: dict[str, Tensor] = {}

    def autocast(self) -> contextlib.AbstractContextManager:
        half = _HALF.get(self.name)
        return torch.autocast(self.device.type, dtype=half) if half else contextlib.nullcontext()

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Frozen weights in the format of the products inside the block; as they were after it."""
        replaced = to_int8(model) if self.name == "int8" else []
        for prefix, module in model.named_modules() if self.name in _HALF else ():
            for name, parameter in module.named_parameters(prefix, recurse=False):
                # Layers whose weights autocast rounds; norms stay float32.
                if isinstance(module, (nn.Linear, nn.Conv2d)) and not parameter.requires_grad:
                    # Kept in the host's memory: on a GPU this frees half of what the frozen encoders take.
                    self._originals[name] = parameter.data.cpu()
                    parameter.data = parameter.data.to(_HALF[self.name])
        try:
            yield
        finally:
            for parent, name, linear in replaced:
                setattr(parent, name, linear)
            for name, parameter in model.named_parameters():
                if name in self._originals:
                    parameter.data = self._originals[name].to(self.device)
            self._originals = {}

    def state_dict(self, model: nn.Module) -> dict[str, Tensor]:
        """The model's state in float32, its frozen weights not rounded."""
        return {**model.state_dict(), **self._originals}
