"""The clip that travels with the package: `mma-edge run sample` works on any machine."""

from __future__ import annotations

from pathlib import Path

from mma_edge.errors import SourceError

_SAMPLE = Path(__file__).resolve().parents[1] / "assets" / "sample" / "sample.mp4"


def sample_path() -> Path:
    """Where the sample clip lies; its provenance is in the LICENSE beside it."""
    if not _SAMPLE.is_file():
        raise SourceError("the sample clip is missing from this installation", str(_SAMPLE), "reinstall mma-edge")
    return _SAMPLE
