"""One track of a media file: it survives damaged packets and gives upright RGB pictures, or sound as float32."""

from __future__ import annotations

import time
from collections.abc import Iterator

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType

from mma_edge.errors import SourceError
from mma_edge.sources.base import SourceStats
from mma_edge.sources.picture import DecodedPicture, Orientation
from mma_edge.types import AudioChunk, Frame

_MAX_READ_ERRORS = 100
"""After so many read errors in a row the rest of a file is not read (a disk that went away)."""
_LEAST_PIXELS_FOR_THREADS = 500_000
_MAX_UNDATED_FRAMES = 100
"""A file whose first frames, so many, have no presentation time is refused and not decoded to its end."""


def decodable(streams: list) -> av.stream.Stream | None:
    """The stream that a player would show: of those with a decoder the default one, else the first."""
    streams = [s for s in streams if s.codec_context is not None]
    default = [s for s in streams if s.disposition & av.stream.Disposition.default]
    return (default or streams or [None])[0]


def _decoded(container: InputContainer, stream: av.stream.Stream, stats: SourceStats) -> Iterator:
    """PyAV frames of one stream, packet by packet, so that a damaged packet costs only itself."""
    read_errors = 0
    packets = container.demux(stream)
    while read_errors < _MAX_READ_ERRORS:
        try:
            packet = next(packets)
        except StopIteration:  # the last packet was PyAV's empty one, which drains the decoder
            return
        except av.FFmpegError:
            # The generator ends with an error; a new one goes on after the damaged place.
            read_errors += 1
            stats.damaged_packets += 1
            packets = container.demux(stream)
            continue
        read_errors = 0
        try:
            frames = packet.decode()
        except av.error.EOFError:
            continue
        except av.FFmpegError:
            stats.damaged_packets += 1
            continue
        yield from frames


def to_float(frame: av.AudioFrame) -> np.ndarray:
    """Samples of a decoded frame in any sample format as float32 (channels, n) in [-1, 1]."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:  # (1, n * channels), channels interleaved
        samples = samples.reshape(frame.samples, -1).T
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128.0) / 128.0
    elif samples.dtype.kind == "i":
        # One division in float64: int32 does not fit into float32's 24 bits before scaling.
        samples = samples / float(2 ** (8 * samples.dtype.itemsize - 1))
    return np.ascontiguousarray(samples, dtype=np.float32)


class VideoTrack:
    """The picture of a file as `Frame`s, read from its own container."""

    def __init__(self, container: InputContainer, stream: av.VideoStream, stats: SourceStats, name: str) -> None:
        # For small pictures FFmpeg's threads cost more than they save: 0.24 s of processor time for 195 pictures of
        # 480 x 480 instead of 0.15 s.
        pixels = stream.codec_context.width * stream.codec_context.height
        stream.thread_type = "AUTO" if pixels >= _LEAST_PIXELS_FOR_THREADS else "NONE"
        # Otherwise FFmpeg silently drops damaged frames; this way they can be counted.
        stream.codec_context.flags |= av.codec.context.Flags.output_corrupt
        self.container, self.stream, self.stats, self.name = container, stream, stats, name
        self.end_s = float("-inf")
        # AVI stores no presentation times. FFmpeg invents one per packet, wrongly where frames are reordered; the
        # decoding times of the frames that come out of the decoder do rise evenly.
        self._by_decoding_time = container.format.name == "avi"
        self._rotation: int | None = None
        self._matrix: np.ndarray | None = None

    def events(self) -> Iterator[Frame]:
        """Upright RGB frames with strictly rising presentation times; SourceError if none has a time."""
        undated, step_s = 0, 0.0
        for frame in _decoded(self.container, self.stream, self.stats):
            if frame.is_corrupt:
                self.stats.damaged_frames += 1
                continue
            time_s = frame.time
            if self._by_decoding_time:
                # The last frames that drain out of the decoder have none; they follow at the last distance.
                time_s = self.end_s + step_s if frame.dts is None else float(frame.dts * frame.time_base)
            if time_s is None:
                undated += 1
                self.stats.undated_frames += 1
                if self.end_s == float("-inf") and undated >= _MAX_UNDATED_FRAMES:
                    break
                continue
            if time_s <= self.end_s:
                self.stats.out_of_order += 1
                continue
            step_s, self.end_s = time_s - self.end_s, time_s
            picture = DecodedPicture(frame, Orientation.of(self._display_matrix(frame)))
            yield Frame(picture, float(time_s), time.monotonic())
        if undated and self.end_s == float("-inf"):
            hint = "put it into a container that has them: ffmpeg -fflags +genpts -i IN -c copy OUT.mkv"
            raise SourceError(f"no video frame of {self.name} has a presentation time", "a file with time stamps", hint)

    def _display_matrix(self, frame: av.VideoFrame) -> np.ndarray | None:
        """The frame's display matrix, read only when its angle changes.

        Reading `side_data` ties the frame and its side data into a reference cycle: if every frame were read, megabytes
        of pictures would wait for Python's cycle collector.
        """
        if frame.rotation != self._rotation:
            self._rotation = frame.rotation
            side_data = frame.side_data.get(SideDataType.DISPLAYMATRIX)
            self._matrix = None if side_data is None else np.frombuffer(bytes(side_data), dtype=np.int32)
        return self._matrix


class AudioTrack:
    """The sound of a file as `AudioChunk`s, read from its own container."""

    def __init__(self, container: InputContainer, stream: av.AudioStream, stats: SourceStats, name: str) -> None:
        self.container, self.stream, self.stats, self.name = container, stream, stats, name
        self.end_s = float("-inf")
        self.sample_rate_hz: int | None = None  # of the first chunk, used for all; None before it
        self.resampled_from_hz: int | None = None  # the other rate, when the file changes its rate in the middle
        self._resampler: tuple[int, str, av.AudioResampler] | None = None

    def events(self) -> Iterator[AudioChunk]:
        """Chunks at the rate of the first one; a gap in the file stays a gap in `time_s`."""
        previous_s = float("-inf")
        for decoded in _decoded(self.container, self.stream, self.stats):
            if decoded.is_corrupt:
                self.stats.damaged_frames += 1
                continue
            for frame in self._at_first_rate(decoded):
                samples = to_float(frame)
                if samples.shape[1] == 0:
                    continue
                if not np.isfinite(samples).all():  # a float file can hold any value; one NaN would spoil a window
                    self.stats.damaged_frames += 1
                    continue
                # Sound is continuous: a block without a time follows the one before.
                time_s = frame.time if frame.time is not None else max(self.end_s, 0.0)
                if time_s <= previous_s:
                    self.stats.out_of_order += 1
                    continue
                chunk = AudioChunk(samples, self.sample_rate_hz, float(time_s), time.monotonic())
                previous_s, self.end_s = chunk.time_s, chunk.end_s
                yield chunk

    def _at_first_rate(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
        """The frame itself, or resampled when the file changed its rate in the middle."""
        if self.sample_rate_hz is None:
            self.sample_rate_hz = frame.sample_rate
        if frame.sample_rate == self.sample_rate_hz:
            return [frame]
        key = (frame.sample_rate, frame.layout.name)
        if self._resampler is None or self._resampler[:2] != key:
            # A resampler is bound to the first frame it meets.
            resampler = av.AudioResampler(format="fltp", layout=frame.layout.name, rate=self.sample_rate_hz)
            self._resampler = (*key, resampler)
        self.resampled_from_hz = frame.sample_rate
        return self._resampler[2].resample(frame)
