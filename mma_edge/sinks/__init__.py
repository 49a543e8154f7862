"""Where emotions go: a live view, plain lines, a file. All are context managers with `write(emotion)`."""

from mma_edge.sinks.console import LineSink, LiveSink
from mma_edge.sinks.records import CsvSink, JsonlSink, record_sink_of

__all__ = ["CsvSink", "JsonlSink", "LineSink", "LiveSink", "record_sink_of"]
