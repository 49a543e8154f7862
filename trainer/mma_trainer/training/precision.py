"""In which number format the products of training are computed.

Trainable weights, their gradients and the optimiser's state are float32 in every setting, and so are
the stored files. What changes is the matrix products:

    fp32   as the paper
    bf16   autocast; frozen weights are held in bfloat16, the rounding that autocast makes anyway
    fp16   the same in float16, with a scaled loss
    int8   products with frozen weights in 8 bits, forward and for the gradient that passes through them;
           all else in float32. For processors with VNNI but without fast bf16.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mma_edge.errors import BackendError
from mma_trainer.training.int8 import to_int8

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
# What autocast rounds its weights of; norms stay float32 in it.
_ROUNDED = (nn.Linear, nn.Conv2d)
MIN_SCALE = 1.0
"""Loss scale below which a gradient that is no number is no mere overflow of float16."""


class Precision:
    """One of PRECISIONS on a device, applied to a model for as long as it is trained.

    Raises:
        BackendError: this device cannot.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name, self.device = name, device
        if name == "int8" and not (device.type == "cpu" and torch.cpu._is_vnni_supported()):
            raise BackendError(f"--precision int8 on {device}", "a processor with VNNI", "use bf16 or fp32")
        if name == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise BackendError(f"--precision bf16 on {device}", "compute capability 8.0 or above", "use fp16")
        self.scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None
        self._originals: dict[str, Tensor] = {}

    def autocast(self) -> contextlib.AbstractContextManager:
        if self.name in _HALF:
            return torch.autocast(self.device.type, dtype=_HALF[self.name])
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Frozen weights in the format of the products; as they were afterwards."""
        if self.name == "int8":
            replaced = to_int8(model)
        elif self.name in _HALF:
            self._round(model)
        try:
            yield
        finally:
            if self.name == "int8":
                for parent, name, linear in replaced:
                    setattr(parent, name, linear)
            for name, parameter in model.named_parameters():
                if name in self._originals:
                    parameter.data = self._originals[name].to(self.device)
            self._originals = {}

    def state_dict(self, model: nn.Module) -> dict[str, Tensor]:
        """The model's state in float32, its frozen weights not rounded."""
        return {**model.state_dict(), **self._originals}

    def _round(self, model: nn.Module) -> None:
        for prefix, module in model.named_modules():
            for name, parameter in module.named_parameters(prefix, recurse=False):
                if isinstance(module, _ROUNDED) and not parameter.requires_grad:
                    # The host has room: on a GPU this frees half of what the frozen encoders take.
                    self._originals[name] = parameter.data.cpu()
                    parameter.data = parameter.data.to(_HALF[self.name])
