"""Where the default model's checkpoint, terms and model card lie."""

from __future__ import annotations

from pathlib import Path

import mma_trainer
from mma_export.write import WeightsLicense

ASSETS = Path(mma_trainer.__file__).parent / "assets" / "nano"
DEFAULT_NAME = "mma-dfer-nano"


def default_source() -> tuple[Path, WeightsLicense, tuple[Path, ...]]:
    """Checkpoint, terms of the weights, and the files that travel with them."""
    license_ = WeightsLicense("research only, CC-BY-NC-SA-4.0", (ASSETS / "LICENSE").read_text())
    return ASSETS / "nano.pt", license_, (ASSETS / "MODEL_CARD.md",)
