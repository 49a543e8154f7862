"""The named architectures: the one place where a new one is declared. Without torch, so that every command can list
them.

`mma-train --model`, `mma-bench latency --model`, `mma-bench training --model` and the exporter's tests take their
choices from here; `mma_trainer.model.config.config_of` makes the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """One named architecture.

    `training_image_size`: side of the face crops in pixels that `mma-bench training` uses unless told otherwise; None:
    the architecture's own.
    """

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)  # of `MMADFERConfig`, where not its defaults: the paper's
    training_image_size: int | None = None


_SMALL = {
    "image_size": 48,
    "color": "grey",
    "width": 128,
    "depth": 4,
    "num_heads": 4,
    "image_patch": 8,
    "bottleneck_width": 32,
    "temporal_width": 128,
    "temporal_heads": 4,
    "temporal_head_dim": 32,
    "temporal_mlp": 256,
}
"""The paper's architecture, small enough to ship (under 12 MB)."""
_ALL = (
    Architecture("vit-b", training_image_size=112),  # the paper's
    Architecture(
        "nano",  # the default model's: it takes exposure and loudness out itself
        {
            **_SMALL,
            "image_stem": (48, 96, 192),
            "image_stem_blocks": (1, 2, 2),
            "image_norm": "frame",
            "audio_patch": 32,
            "audio_stem": (16, 32, 64, 96, 128),
            "audio_stem_blocks": (0, 0, 0, 0, 1),
            "audio_norm": "clip",
        },
    ),
)
ARCHITECTURES = {architecture.name: architecture for architecture in _ALL}
PAPER, DEFAULT = "vit-b", "nano"
"""The paper's architecture, which training starts from, and the one of the model that the package ships."""
