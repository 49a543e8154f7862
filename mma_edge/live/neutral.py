"""Watches one neutral person for a few seconds, or through a film."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable

from mma_edge.errors import UsageError
from mma_edge.live.run import open_pipeline
from mma_edge.pipeline import StreamOptions
from mma_edge.pipeline.neutral import NeutralMeter, NeutralReference
from mma_edge.predictor import Predictor
from mma_edge.sources import is_live, name_of
from mma_edge.sources.names import Spec

LIVE_S = 10.0
"""How long a live source is watched unless told otherwise: two or three sentences."""
SECONDS = (3.0, 600.0)


def check_seconds(seconds: float | None) -> None:
    """UsageError unless it is None or within SECONDS."""
    if seconds is not None and not SECONDS[0] <= seconds <= SECONDS[1]:  # NaN fails too
        raise UsageError(f"--seconds {seconds:g}", f"{SECONDS[0]:g} to {SECONDS[1]:g}", "10 are enough for most")


def measure_neutral(
    recognizer: Predictor,
    source: Spec,
    seconds: float | None = None,
    options: StreamOptions | None = None,
    follow: Callable[[NeutralMeter], None] = lambda meter: None,
) -> NeutralReference:
    """What a model says of the one person in a source, who is neutral.

    Args:
        seconds: of the source, from its beginning; None: all of a file, LIVE_S of a live source.
        options: how it is cut into clips; `neutral`, `smooth_s` and `abstain_below` have no effect on what is noted.
        follow: told after each answer.

    Raises:
        UsageError: `seconds` are not within SECONDS, or the model has no class neutral.
        SourceError: the source cannot be read, shows two faces at a time, or gives too few clips.
    """
    options = options or StreamOptions()
    check_seconds(seconds)
    if seconds is None:
        seconds = LIVE_S if is_live(source, options.capture) else math.inf
    meter, start_s, end_s, name = NeutralMeter(recognizer), math.inf, 0.0, name_of(source)
    with open_pipeline(meter, {name: source}, options) as pipeline:
        for emotion in pipeline:
            start_s, end_s = min(start_s, emotion.start_s), emotion.end_s
            follow(meter)
            if end_s - start_s >= seconds:
                break
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return meter.reference(source=name, created=created, seconds=round(max(0.0, end_s - start_s), 1))
