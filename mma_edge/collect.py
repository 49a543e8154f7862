"""The clips that the runtime makes of a source, without an answer to any: for gates, calibration and benchmarks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from mma_edge.clip import SlidingClips
from mma_edge.errors import SourceError
from mma_edge.pipeline import Pipeline, StreamOptions
from mma_edge.sources import open_source
from mma_edge.types import Clip, Emotion


@dataclass
class _Collector:
    """Stands where the pipeline wants a recognizer."""

    image_size: int
    clips: list[Clip] = field(default_factory=list)

    def predict_clips(self, clips: Sequence[Clip]) -> list[Emotion]:
        self.clips += clips
        return []


def collect_clips(
    source: str | os.PathLike, image_size: int, hop_s: float, cut: type[SlidingClips] = SlidingClips
) -> list[Clip]:
    """Every clip that `mma-edge run SOURCE --hop HOP` makes of a file, sampled by `cut`; those without a face too.

    Raises:
        SourceError: the source cannot be opened, or has neither a face nor sound.
    """
    collector, options = _Collector(image_size), StreamOptions(hop_s=hop_s)
    opened = open_source(source)
    try:
        with Pipeline(collector, opened, options, clips=cut(options.window_s, hop_s)) as pipeline:
            list(pipeline)
    except SourceError:
        # The pipeline misses answers where there is no face; here there are none anyway.
        if not collector.clips:
            raise
    return collector.clips
