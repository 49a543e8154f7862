"""The figures of the paper's tables that a result is put beside; percent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One row: UAR and WAR in percent (None: not printed), and where they are printed."""

    method: str
    modalities: str
    resolution: int | None  # side of a face crop in pixels
    uar: float | None
    war: float | None
    source: str

    @property
    def name(self) -> str:
        """The method and, where the paper prints it, the resolution."""
        return f"{self.method}, {self.resolution} px" if self.resolution else self.method


OURS, TWO_CLIPS = "MMA-DFER", "MMA-DFER, mean of two clips"
PAPER = "Chumachenko, Iosifidis, Gabbouj, CVPRW 2024"
_MODALITIES = {"A": "audio", "V": "video", "AV": "video, audio"}

# Table 1, mean of five folds: method, UAR and WAR on DFEW and on MAFW, modalities, resolution.
_TABLE_1 = (
    ("Wav2Vec2.0", 36.15, 43.05, 21.59, 29.69, "A", None),
    ("HuBERT", 35.98, 43.24, 25.00, 32.60, "A", None),
    ("WavLM-Plus", 37.78, 44.64, 26.33, 34.07, "A", None),
    ("C3D+LSTM", 53.77, 65.17, 30.47, 44.15, "AV", 224),
    ("T-ESFL", None, None, 33.35, 48.70, "AV", 224),
    ("C3D", 42.74, 53.54, 31.17, 42.25, "V", 112),
    ("R(2+1)D-18", 42.79, 53.22, None, None, "V", 112),
    ("3D ResNet-18", 46.52, 58.27, None, None, "V", 112),
    ("Former-DFER", 53.69, 65.70, None, None, "V", 112),
    ("CEFLNet", 51.14, 65.35, None, None, "V", 224),
    ("T-ESFL", None, None, 33.28, 48.18, "V", 224),
    ("EST", 53.43, 65.85, None, None, "V", 224),
    ("STT", 54.58, 66.65, None, None, "V", 112),
    ("NR-DFERNet", 54.21, 68.19, None, None, "V", 112),
    ("AMH", 54.48, 66.51, 32.98, 48.83, "AV", 224),
    ("IAL", 55.71, 69.24, None, None, "V", 112),
    ("M3DFEL", 56.10, 69.25, None, None, "V", None),
    ("CLIPER", 57.56, 70.84, None, None, "V", 224),
    ("TMEP", 57.16, 68.85, 37.17, 51.15, "AV", 112),
    ("DFER-CLIP", 59.61, 71.25, 38.89, 52.55, "V", 224),
    ("SVFAP", 62.83, 74.27, 41.19, 54.28, "V", 160),
    ("MAE-DFER", 63.41, 74.43, 41.62, 54.31, "V", 160),
    ("HiCMAE", 63.76, 75.01, 42.65, 56.17, "AV", 160),
    ("S2D", 65.45, 76.03, 43.40, 57.37, "V", 224),
    (OURS, 64.24, 75.40, 43.34, 56.46, "AV", 112),
    (TWO_CLIPS, 64.35, 75.48, 43.29, 56.60, "AV", 112),
    (OURS, 66.61, 77.15, 44.19, 57.90, "AV", 160),
    (TWO_CLIPS, 66.51, 77.10, 44.07, 57.85, "AV", 160),
    (OURS, 67.01, 77.51, 44.11, 58.52, "AV", 224),
    (TWO_CLIPS, 66.85, 77.43, 44.25, 58.45, "AV", 224),
)

PUBLISHED: dict[str, tuple[Published, ...]] = {
    name: tuple(
        Published(method, _MODALITIES[kind], size, *scores[first : first + 2], f"{PAPER}, Table 1")
        for method, *scores, kind, size in _TABLE_1
    )
    for name, first in (("dfew", 0), ("mafw", 2))
}

_NO_PROMPTS, _NO_FUSION, _NO_MTT, _BEST = (64.62, 77.40), (59.27, 70.56), (61.96, 74.58), (66.52, 77.92)
ABLATIONS: dict[str, Mapping[str, tuple[float, float]]] = {
    "components": {
        "encoders alone": (56.59, 68.43),
        "+ prompts": (57.45, 69.33),
        "+ progressive prompts": (58.21, 69.34),
        "+ MTT, no fusion": _NO_FUSION,
        "fusion, no MTT": _NO_MTT,
        "fusion and MTT, no prompts": _NO_PROMPTS,
        "all": _BEST,
    },
    "prompts": {
        "none": _NO_PROMPTS,
        "progressive, 2 updates": _BEST,
        "progressive, 4 updates": (64.41, 77.62),
        "progressive, 6 updates": (65.44, 77.83),
        "progressive, 12 updates": (65.14, 77.87),
    },
    "fusion": {
        "none": _NO_FUSION,
        "add": (59.97, 71.20),
        "mult": (59.89, 71.12),
        "mult-concat": (54.96, 65.66),
        "bottleneck 64": (64.57, 77.44),
        "bottleneck 128": _BEST,
        "bottleneck 256": (66.72, 78.17),
        "bottleneck 512": (66.77, 78.13),
    },
    "temporal": {
        "mean": _NO_MTT,
        "MTT": _BEST,
        "ITA 64": (63.27, 76.59),
        "ITA 128": (64.44, 76.80),
        "ITA 256": (63.35, 76.59),
        "MTT + ITA 128": (64.66, 77.36),
    },
    "modality": {"audio only": (26.43, 33.53), "vision only": (54.34, 67.15), OURS: _BEST},
    "resolution": {str(row.resolution): (row.uar, row.war) for row in PUBLISHED["dfew"] if row.method == OURS},
}
"""UAR and WAR of the rows of mma-train ablate by table and row: Tables 2 to 7, fold 1 of DFEW at 160 px; of
"resolution" Table 1, mean of DFEW's five folds."""
