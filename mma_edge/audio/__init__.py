"""Sound as the model gets it: Kaldi log-mel at the source's own sample rate."""

from mma_edge.audio.logmel import LogMelStream, log_mel
from mma_edge.audio.ring import MelRing

__all__ = ["LogMelStream", "MelRing", "log_mel"]
