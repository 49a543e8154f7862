"""Published figures that a result is put beside; percent, mean of five folds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One row: UAR and WAR in percent, and where they are printed."""

    method: str
    modalities: str
    uar: float
    war: float
    source: str


OURS = "MMA-DFER, paper's best, 224 px"
_PAPER = "Chumachenko, Iosifidis, Gabbouj, CVPRW 2024, Table 1"
_LISTED = "as listed in HumanOmni's README"
_MAE_DFER = "sunlicai/MAE-DFER, README, five folds"

PUBLISHED: dict[str, tuple[Published, ...]] = {
    "dfew": (
        Published("MAE-DFER", "video", 63.41, 74.43, _MAE_DFER),
        Published("HiCMAE", "video, audio", 63.76, 75.01, _LISTED),
        Published(OURS, "video, audio", 67.01, 77.51, _PAPER),
    ),
    "mafw": (
        Published("MAE-DFER", "video", 41.62, 54.31, _LISTED),
        Published("HiCMAE", "video, audio", 42.65, 56.17, _LISTED),
        Published(OURS, "video, audio", 44.11, 58.52, _PAPER),
    ),
}
