"""8-bit grids, of integers and of E4M3 numbers: of activations, from what was seen of them on real clips, and of
weights, one step per output channel.

SmoothQuant, applied before, moves difficulty from the activations to the weights. With it a ViT-B at 112 pixels (random
weights) passed the search with all of its 152 products in 8 bits; without it 4 had to stay in float32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx

from mma_export.precision.sites import Range, Site, weights_of
from mma_export.rewrite import Rewrite

LEVELS, UNSIGNED_LEVELS = 127, 255
E4M3, LARGEST_E4M3 = ml_dtypes.float8_e4m3fn, 448.0
E4M3_ZERO = E4M3(0)
"""Eight bits with an exponent (Micikevicius et al. 2022): 3 bits of mantissa over 18 powers of two."""
CLIP_SHARES = np.linspace(0.2, 1.0, 33)
"""Shares of the seen range that are tried: a grid that clips outliers is finer for all other values."""
TINY = 1e-12


@dataclass(frozen=True)
class Grid:
    """8-bit numbers for real ones: real = (number - zero) * scale. The type of `zero` is that of the numbers."""

    scale: float
    zero: np.int8 | np.uint8

    def rounded(self, values: np.ndarray) -> np.ndarray:
        """The nearest real values on the grid."""
        lowest, highest = (-LEVELS, LEVELS) if isinstance(self.zero, np.int8) else (0, UNSIGNED_LEVELS)
        zero = int(self.zero)
        return (np.clip(np.rint(values / self.scale) + zero, lowest, highest) - zero) * self.scale


@dataclass(frozen=True)
class FloatGrid:
    """E4M3 numbers for real ones: real = number * scale."""

    scale: float
    zero: E4M3 = E4M3_ZERO

    def rounded(self, values: np.ndarray) -> np.ndarray:
        """The nearest real values on the grid."""
        return _as_e4m3(values / self.scale).astype(np.float32) * self.scale


@dataclass(frozen=True, eq=False)
class Weight8:
    """A weight on an 8-bit grid per output channel.

    Attributes:
        values: int8 or E4M3, the weight's shape.
        scales: float32 (channels,).
        axis: of the channels.
    """

    values: np.ndarray
    scales: np.ndarray
    axis: int


def symmetric_grid(seen: Range) -> Grid:
    """The signed grid, zero in its middle, with the least squared error on what was seen of a tensor."""
    steps = CLIP_SHARES * max(seen.largest, TINY) / LEVELS
    return _nearest([Grid(step, np.int8(0)) for step in steps], seen)


def float_grid(seen: Range) -> FloatGrid:
    """The grid of E4M3 numbers that just holds what was seen of a tensor: a smaller one would be hardly finer."""
    return FloatGrid(max(seen.largest, TINY) / LARGEST_E4M3)


def unsigned_grid(seen: Range) -> Grid:
    """The unsigned grid with the least squared error on what was seen of a tensor; zero is on it."""
    low, high = min(seen.lowest, 0.0), max(seen.highest, 0.0)
    grids = []
    for share in CLIP_SHARES:
        scale = float(max(share * (high - low), TINY)) / UNSIGNED_LEVELS
        grids.append(Grid(scale, np.uint8(np.clip(np.rint(-share * low / scale), 0, UNSIGNED_LEVELS))))
    return _nearest(grids, seen)


def _nearest(grids: list[Grid], seen: Range) -> Grid:
    errors = [float(np.mean((grid.rounded(seen.samples) - seen.samples) ** 2)) for grid in grids]
    return grids[int(np.argmin(errors))]


def most_suspect(
    sites: list[Site], ranges: Mapping[str, Range], grids: Mapping[str, Grid | FloatGrid], count: int
) -> list[Site]:
    """At most `count` sites, those whose activations lose most by rounding, relative to their size."""

    def loss(site: Site) -> float:
        seen = ranges[site.activation].samples
        # Not squared: one outlier would excuse the loss of all others.
        return float(np.abs(grids[site.activation].rounded(seen) - seen).sum() / max(np.abs(seen).sum(), TINY))

    return sorted(sites, key=loss, reverse=True)[:count]


def quantize_weights(proto: onnx.ModelProto, sites: list[Site], e4m3: bool = False) -> dict[str, Weight8]:
    """Weight -> the same in 8 bits, int8 or E4M3; every graph of a search has them."""
    values = weights_of(proto, sites)
    return {site.weight: quantize_weight(values[site.weight], site.channel_axis, e4m3) for site in sites}


def quantize_weight(weight: np.ndarray, channel_axis: int, e4m3: bool = False) -> Weight8:
    others = tuple(axis for axis in range(weight.ndim) if axis != channel_axis)
    largest = np.maximum(np.abs(weight).max(axis=others, keepdims=True), TINY).astype(np.float32)
    steps = largest / np.float32(LARGEST_E4M3 if e4m3 else LEVELS)
    numbers = weight / steps
    values = _as_e4m3(numbers) if e4m3 else np.clip(np.rint(numbers), -LEVELS, LEVELS).astype(np.int8)
    return Weight8(values, steps.reshape(-1), channel_axis)


def _as_e4m3(values: np.ndarray) -> np.ndarray:
    return np.clip(values, -LARGEST_E4M3, LARGEST_E4M3).astype(E4M3)  # the cast alone would make NaN of larger ones


def smooth(
    proto: onnx.ModelProto, sites: list[Site], ranges: Mapping[str, Range], strength: float = 0.5
) -> tuple[onnx.ModelProto, list[Site]]:
    """Move large channels from activations into weights where a LayerNormalization stands before the product.

    What the graph computes stays the same. SmoothQuant (Xiao et al. 2023): channel j of the norm's scale and offset
    is divided by s_j and row j of the weights multiplied by it, s_j = max|x_j|^a / max|w_j|^(1-a).

    Returns:
        The changed graph and its sites. The ranges do not hold for it: look again.
    """
    rewrite, by_node = Rewrite(proto), {site.node: site for site in sites}
    for norm in rewrite.nodes:
        readers = norm.outputs[0].consumers() if norm.op_type == "LayerNormalization" else ()
        if len(readers) != 1 or readers[0].name not in by_node or norm.outputs[0].name not in ranges:
            continue
        product, seen = readers[0], ranges[norm.outputs[0].name]
        weight = product.inputs[1].const_value.numpy()
        rows = np.maximum(np.abs(weight).max(axis=1), TINY)
        factor = np.maximum(seen.per_channel, TINY) ** strength / rows ** (1 - strength)
        # Powers of two divide and multiply without rounding.
        factor = np.exp2(np.rint(np.log2(factor / np.median(factor)))).astype(np.float32)
        for index in (1, 2):
            values = norm.inputs[index].const_value.numpy() / factor
            norm.replace_input_with(index, rewrite.constant(f"{norm.name}_smooth_{index}", values))
        smoothed = rewrite.constant(f"{product.name}_smooth", weight * factor[:, None])
        product.replace_input_with(1, smoothed)
        by_node[product.name] = dataclasses.replace(by_node[product.name], weight=smoothed.name)
    return rewrite.finish(), [by_node[site.node] for site in sites]
