"""What a released model needs no more: the batch norms of its encoders' stems, which become part of the convolutions.

An exporter would fold them anyway. Folded before the weights are rounded to float16, the weights of the graph are exact
in float16, and the bundle stores them so.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mma_trainer.weights.checkpoint import Checkpoint, build_model


def fold_stems(checkpoint: Checkpoint, name: str) -> Checkpoint:
    """The same model without batch norms; `name` is the checkpoint's in errors.

    Raises:
        CheckpointError: the tensors do not fit the config.
    """
    model = build_model(checkpoint, name)
    state = model.state_dict()
    modules = list(model.named_modules())
    convolutions = [(key, module) for key, module in modules if isinstance(module, nn.Conv2d) and ".stem." in key]
    norms = [(key, module) for key, module in modules if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return checkpoint
    for (conv, _), (norm, module) in zip(convolutions, norms, strict=True):  # a norm follows each of them
        weight, mean, variance, scale, shift = (
            state[key].double()
            for key in (
                f"{conv}.weight",
                *(f"{norm}.{part}" for part in ("running_mean", "running_var", "weight", "bias")),
            )
        )
        fused = fuse_conv_bn_weights(weight, None, mean, variance, module.eps, scale, shift)
        for part, tensor in zip(("weight", "bias"), fused, strict=True):
            state[f"{conv}.{part}"] = tensor.detach().float()
    kept = {key: value for key, value in state.items() if not any(key.startswith(f"{norm}.") for norm, _ in norms)}
    return replace(checkpoint, config=checkpoint.config.replace(stem_norm="none"), state_dict=kept)
