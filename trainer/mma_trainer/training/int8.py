"""Linear layers with frozen weights, computed in 8 bits forward and backward.

The scheme of SwitchBack (Wortsman et al. 2023, "Stable and low-precision training for large-scale
vision-language models"): every row of the activations, and of the gradient, has its own scale; the
weights have one scale per channel that remains after the product. Its third product, the gradient of the
weights, is not needed here: they are frozen. Accumulation is exact in int32.

Products are computed in chunks of rows, so that everything between quantising and scaling stays in the
cache: the products are four times as fast as in float32, so the passes over memory take most of the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST = 127.0
LARGEST_CHUNK = 450  # rows: 5 MiB of the widest activations of ViT-B
SMALLEST_SCALE = 1e-30  # of a row of zeros: nothing is divided by zero


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (M, K) -> int8 (M, K) and the scale of each row (M, 1)."""
    # Two reductions read x; an absolute value would write a copy of it first.
    scale = torch.maximum(x.amax(1, keepdim=True), -x.amin(1, keepdim=True)).clamp_(min=SMALLEST_SCALE).div_(LARGEST)
    return (x * scale.reciprocal()).round_().to(torch.int8), scale


class _Product(torch.autograd.Function):
    """x (M, K) through a layer, and the gradient for x."""

    @staticmethod
    def forward(ctx, x: Tensor, layer: Int8Linear) -> Tensor:
        ctx.layer = layer
        y = x.new_empty(len(x), layer.out_features)
        for rows in _chunks(x):
            layer.multiply(x[rows], y[rows])
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        out = grad.new_empty(len(grad), ctx.layer.in_features)
        for rows in _chunks(grad):
            ctx.layer.multiply_back(grad[rows], out[rows])
        return out, None


class _Mlp(torch.autograd.Function):
    """x (M, K) through two layers with an erf GELU between them, whose wide middle stays in the cache."""

    @staticmethod
    def forward(ctx, x: Tensor, first: Int8Linear, second: Int8Linear) -> Tensor:
        ctx.layers = first, second
        middle, y = x.new_empty(len(x), first.out_features), x.new_empty(len(x), second.out_features)
        for rows in _chunks(x):
            first.multiply(x[rows], middle[rows])
            second.multiply(F.gelu(middle[rows]), y[rows])
        ctx.save_for_backward(middle)
        return y

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        (middle,), (first, second) = ctx.saved_tensors, ctx.layers
        out = grad.new_empty(len(grad), first.in_features)
        wide = grad.new_empty(LARGEST_CHUNK, first.out_features)
        for rows in _chunks(grad):
            part = wide[: len(grad[rows])]
            second.multiply_back(grad[rows], part)
            first.multiply_back(torch.ops.aten.gelu_backward(part, middle[rows]), out[rows])
        return out, None, None


def _chunks(x: Tensor) -> Iterator[slice]:
    """Rows in parts of equal size, as few as LARGEST_CHUNK allows."""
    size = math.ceil(len(x) / math.ceil(len(x) / LARGEST_CHUNK))
    return (slice(start, start + size) for start in range(0, len(x), size))


def _multiply(x: Tensor, weight: Tensor, scale: Tensor, out: Tensor) -> Tensor:
    """out = x @ weight of few rows, without the bias; returns the scale of the rows, not yet applied."""
    quantized, row_scale = quantize_rows(x)
    out.copy_(torch._int_mm(quantized, weight)).mul_(scale)
    return row_scale


class Int8Linear(nn.Linear):
    """Takes the place of a frozen `nn.Linear` during training: the same parameters under the same names.

    In eval mode it computes the float32 layer, so that nothing measured or stored is rounded.
    """

    def __init__(self, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.training = linear.training
        weight = linear.weight.detach()
        # One scale per output channel for the way forward (K, N), one per input channel for the way back (N, K).
        for way, matrix in (("forward", weight), ("backward", weight.t().contiguous())):
            quantized, scale = quantize_rows(matrix)
            self.register_buffer(f"{way}_weight", quantized.t().contiguous(), persistent=False)
            self.register_buffer(f"{way}_scale", scale.flatten(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        return _Product.apply(x.reshape(-1, x.shape[-1]), self).reshape(*x.shape[:-1], -1)

    def multiply(self, x: Tensor, out: Tensor) -> None:
        """out (M, N) = x (M, K) @ weight.T + bias."""
        row_scale = _multiply(x, self.forward_weight, self.forward_scale, out)
        if self.bias is None:
            out.mul_(row_scale)
        else:
            torch.addcmul(self.bias, out, row_scale, out=out)

    def multiply_back(self, grad: Tensor, out: Tensor) -> None:
        """out (M, K) = grad (M, N) @ weight."""
        out.mul_(_multiply(grad, self.backward_weight, self.backward_scale, out))


class Int8Mlp(nn.Sequential):
    """Takes the place of Sequential(Linear, GELU, Linear) with frozen weights, as `Int8Linear` of one layer."""

    def __init__(self, mlp: nn.Sequential) -> None:
        super().__init__(Int8Linear(mlp[0]), mlp[1], Int8Linear(mlp[2]))
        self.training = mlp.training

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        return _Mlp.apply(x.reshape(-1, x.shape[-1]), self[0], self[2]).reshape(x.shape)


def to_int8(model: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """Replace the frozen layers in place; returns (parent, name, the layer that was there), to undo it with."""
    replaced = []
    for name, child in list(model.named_children()):
        frozen = not any(p.requires_grad for p in child.parameters())
        kinds = [type(layer) for layer in child] if isinstance(child, nn.Sequential) else []
        is_mlp = kinds == [nn.Linear, nn.GELU, nn.Linear] and child[1].approximate == "none"
        if frozen and (is_mlp or type(child) is nn.Linear):
            setattr(model, name, Int8Mlp(child) if is_mlp else Int8Linear(child))
            replaced.append((model, name, child))
        else:
            replaced += to_int8(child)
    return replaced
