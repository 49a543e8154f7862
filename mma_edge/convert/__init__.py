"""Records as other programs read them: annotation tools, subtitles, tables. `convert` is `mma-edge convert`."""

from mma_edge.convert.conversion import FORMATS, ConvertOptions, convert
from mma_edge.convert.material import Choice
from mma_edge.convert.segments import SegmentOptions

__all__ = ["FORMATS", "Choice", "ConvertOptions", "SegmentOptions", "convert"]
