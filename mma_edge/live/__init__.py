"""Live sources, one or several at once: what comes is never waited for, and answers never grow old."""

from mma_edge.live.neutral import measure_neutral
from mma_edge.live.pipeline import LivePipeline
from mma_edge.live.run import FilesPipeline, check_together, open_pipeline
from mma_edge.live.stats import SourceProgress, ThreadProgress

__all__ = [
    "FilesPipeline",
    "LivePipeline",
    "SourceProgress",
    "ThreadProgress",
    "check_together",
    "measure_neutral",
    "open_pipeline",
]
