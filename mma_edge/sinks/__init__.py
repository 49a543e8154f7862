"""Where emotions go: a live view, plain lines or a file. All sinks are context managers with `write(emotion)`."""

from mma_edge.sinks.console import LineSink, LiveSink
from mma_edge.sinks.follower import Follower, Followers
from mma_edge.sinks.records import CsvSink, JsonlSink, open_records, record_sink_of
from mma_edge.sinks.stdout import STDOUT, StdoutSink

__all__ = [
    "STDOUT",
    "CsvSink",
    "Follower",
    "Followers",
    "JsonlSink",
    "LineSink",
    "LiveSink",
    "StdoutSink",
    "open_records",
    "record_sink_of",
]
