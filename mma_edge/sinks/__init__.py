"""Where emotions go: a live view, plain lines or a file. All sinks are context managers with `write(emotion)`."""

from mma_edge.sinks.console import LineSink, LiveSink
from mma_edge.sinks.follower import Follower, Followers
from mma_edge.sinks.records import CsvSink, JsonlSink, record_sink_of

__all__ = ["CsvSink", "Follower", "Followers", "JsonlSink", "LineSink", "LiveSink", "record_sink_of"]
