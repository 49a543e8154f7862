"""Which clips of a batch made a loss or gradient that is no number."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mma_trainer.objective import training_loss
from mma_trainer.precision import Precision
from mma_trainer.task import Batch

MAX_NAMED = 8


def blame(model: nn.Module, batch: Batch, device: torch.device, precision: Precision) -> list[str]:
    """Names of the clips that are not finite, each with what of it is not; each is computed alone."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()  # batch statistics would mix the clips
    try:
        found = []
        for index in range(len(batch.labels)):
            inputs = tuple(tensor[index : index + 1] for tensor in batch.inputs)
            if fault := _fault(model, inputs, batch.labels[index : index + 1], device, precision):
                name = batch.names[index] if batch.names else f"clip {index + 1} of the batch"
                found.append(f"{name} ({fault})")
    finally:
        model.train()
    more = [f"and {len(found) - MAX_NAMED} more"] if len(found) > MAX_NAMED else []
    return found[:MAX_NAMED] + more


def _fault(
    model: nn.Module, inputs: tuple[Tensor, ...], labels: Tensor, device: torch.device, precision: Precision
) -> str:
    if not all(tensor.isfinite().all() for tensor in inputs):
        return "its input has NaN or infinity"
    with precision.autocast():
        outputs = model(*(tensor.to(device) for tensor in inputs))
    loss, _ = training_loss(outputs, labels.to(device), label_smoothing=0.0)
    if not loss.isfinite():
        return f"its loss is {loss.item()}"
    trainable = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, trainable, allow_unused=True)
    finite = all(gradient.isfinite().all() for gradient in gradients if gradient is not None)
    return "" if finite else "its gradient is not finite"
