"""Overlapping windows share frames, so the work on these is done only once. `mma-edge run SOURCE --streaming MODE`.

exact     the work on a frame before it meets the sound (patch embedding and the first image block) is done once per
          frame and kept; everything else is done for every window. The results are those of the whole graph.
rolling   new frames go through all layers; older ones take part with the values from the window in which they were
          new, that is, with the sound of that time. An approximation; a bundle offers it only if the exporter found
          that it agrees with full recomputation. What the frames see of the sound is kept too, and computed again once
          it is older than the manifest says, a second at the most: so the sound of an answer may be that old.
auto      rolling where the bundle offers it for the engine, else exact, else the whole graph for every window.

Both need frames that stay the same from window to window: see `mma_edge.clip.GridClips`. A window without a face goes
through the whole graph: it has no frames to save work on.
"""

from mma_edge.streaming.graphs import Roll, Rolled, StreamingGraphs
from mma_edge.streaming.recognizer import StreamingRecognizer, choose_mode, golden_difference, open_graphs, self_test
from mma_edge.streaming.streamer import Streamer, StreamingStats, check_mode

__all__ = [
    "Roll",
    "Rolled",
    "Streamer",
    "StreamingGraphs",
    "StreamingRecognizer",
    "StreamingStats",
    "check_mode",
    "choose_mode",
    "golden_difference",
    "open_graphs",
    "self_test",
]
