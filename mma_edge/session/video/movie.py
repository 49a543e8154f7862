"""A video file that is written: pictures and sound with times of their own, encoded, or sound copied as it is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from mma_edge.errors import DependencyError, UsageError, first_line
from mma_edge.types import AudioChunk

TIME_BASE = Fraction(1, 90000)
"""The clock of pictures, fine enough for every rate."""
KEY_S, FRAGMENT_S = 1.0, 0.25
"""Time between two key frames, and what a file that is cut off loses at its end."""
SOUND_HZ = 48000
_JITTER_S = 0.02
"""Sound that is earlier or later than where the last one ended by less is taken to follow it."""
_HYBRID_FROM = (61, 7)
"""libavformat (FFmpeg 7.1) that turns a crash-safe file into an ordinary one where it is closed well."""
_SETTINGS = {
    "libx264": {"preset": "veryfast", "crf": "23"},
    "libopenh264": {"rc_mode": "quality"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "7", "row-mt": "1", "crf": "33", "tile-columns": "2"},
    "libsvtav1": {"preset": "10", "crf": "35"},
    "libx265": {"preset": "fast", "crf": "26", "x265-params": "log-level=error"},
}
_LIVE_SETTINGS = {"libx264": {"preset": "superfast", "tune": "zerolatency"}}
_BY_RATE_BITS = 0.1
"""Bits for a pixel with an encoder that has no quality to choose."""
_H264 = ("libx264", "libopenh264", "h264_videotoolbox")
_SOUND = {"mp4": "aac", "webm": "libopus"}
_COPIED = {"mp4": ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"), "webm": ("opus", "vorbis")}
"""Sound that players take in each kind of file."""
_BT709 = 1
"""Of FFmpeg's lists of matrices, primaries and curves."""
_ONE_THREAD = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


@dataclass(frozen=True)
class MovieOptions:
    """How a video is encoded."""

    kind: str = "mp4"  # or "webm"
    codec: str | None = None  # of the picture, FFmpeg's name; None: H.264 or VP9
    crash_safe: bool = False  # a file that is cut off anywhere can be played up to there
    rate_fps: float = 25.0  # about; each picture has its own time
    settings: dict[str, str] = field(default_factory=dict)  # of the encoder, beside the usual ones


def check_codec(kind: str, codec: str | None) -> str:
    """The encoder to use; DependencyError, UsageError where there is none, or it does not work here."""
    names = [codec] if codec else ["libvpx-vp9"] if kind == "webm" else _H264
    for name in names:
        try:
            context = av.CodecContext.create(name, "w")
        except av.codec.codec.UnknownCodecError:
            continue
        if codec:
            _try(kind, context)
        return name
    hint = "choose another --video-codec" if codec else "pip install --upgrade av"
    raise DependencyError(f"this PyAV has no encoder {names[0]}", hint=hint)


def _try(kind: str, context: av.CodecContext) -> None:
    """Open an encoder that the user chose: one of a GPU is there without the GPU, too."""
    if context.type != "video":
        raise UsageError(f"--video-codec {context.name}", "an encoder of pictures, such as h264_nvenc")
    context.width, context.height, context.pix_fmt, context.time_base = 640, 480, "yuv420p", TIME_BASE
    context.framerate = Fraction(25)
    os.environ.setdefault("SVT_LOG", "1")  # else libsvtav1 tells all about itself
    try:
        with av.open(os.devnull, "w", format=kind) as container:
            container.add_stream(context.name)
        context.open()
    except (OSError, ValueError, av.FFmpegError) as error:
        hint = "leave --video-codec out, or choose one that this machine and this kind of file have"
        raise UsageError(
            f"--video-codec {context.name} cannot be used here ({first_line(error)})", hint=hint
        ) from error


def can_copy(kind: str, sound: av.AudioStream) -> bool:
    """Whether this sound goes into this kind of file as it is."""
    context = sound.codec_context
    # AAC of a transport stream says in each packet what a file says once.
    return context.codec.canonical_name in _COPIED[kind] and (context.name != "aac" or bool(context.extradata))


class Movie(AbstractContextManager):
    """Use it in one thread, in a `with` block or with `close`. Times are seconds from the beginning of the file.

    Raises:
        OSError: from every method: the disk is full, or the file cannot be written (`av.FFmpegError` is one, or a
            ValueError where a codec refuses what it is given).
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        options: MovieOptions,
        sound: bool | av.AudioStream = False,
    ) -> None:
        """`size` is the picture's width and height; `sound` is True to encode, or the stream that will be copied."""
        # Chroma has half the resolution, so sides are even.
        self.size = max(2, size[0] // 2 * 2), max(2, size[1] // 2 * 2)
        codec = check_codec(options.kind, options.codec)
        self._container = av.open(str(path), "w", format=options.kind, options=_container_options(options))
        settings = _SETTINGS.get(codec, {}) | (_LIVE_SETTINGS.get(codec, {}) if options.crash_safe else {})
        self._video = self._container.add_stream(
            codec, rate=Fraction(options.rate_fps).limit_denominator(1001), options=settings | options.settings
        )
        context = self._video.codec_context
        context.width, context.height, context.pix_fmt = *self.size, "yuv420p"
        context.time_base = TIME_BASE
        context.bit_rate = 0 if "crf" in settings else round(_BY_RATE_BITS * np.prod(self.size) * options.rate_fps)
        context.gop_size = 250  # more than KEY_S, which decides
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = int(av.video.reformatter.ColorRange.MPEG)
        self._to_yuv = VideoReformatter()
        self._pts, self._key_pts = -1, None
        self._whole_packets = not options.crash_safe
        self._last: av.Packet | None = None  # of a picture, until the time of the next one is known
        self._audio = self._copied = None
        if sound is True:
            self._audio = self._container.add_stream(_SOUND[options.kind], rate=SOUND_HZ, layout="stereo")
            self._audio.codec_context.bit_rate = 128_000
            self._resampler: tuple[object, av.AudioResampler | None] = (None, None)
            self._samples = 0  # written so far
        elif sound:
            self._copied = self._container.add_stream_from_template(sound)

    def picture(self, image: np.ndarray, time_s: float) -> bool:
        """Add a picture, uint8 (H, W, 3) RGB; False where its time is not after that of the last one.

        One of another size is fitted into the file's, with black at its sides.
        """
        pts = round(time_s / TIME_BASE)
        if pts <= self._pts:
            return False
        self._pts = pts
        frame = av.VideoFrame.from_ndarray(_fitted(image, self.size), format="rgb24")
        # Of what resolution the picture is does not matter: the file says which matrix it has.
        yuv = self._to_yuv.reformat(frame, format="yuv420p", dst_colorspace="ITU709", **_ONE_THREAD)
        yuv.pts, yuv.time_base = pts, TIME_BASE
        if self._key_pts is None or pts - self._key_pts >= KEY_S / TIME_BASE:
            self._key_pts = pts
            yuv.pict_type = av.video.frame.PictureType.I
        self._mux_pictures(self._video.encode(yuv))
        return True

    def _mux_pictures(self, packets: Sequence[av.Packet]) -> None:
        """Write packets, those of a fragmented file with the time to the next one.

        At the end of a fragment the muxer takes a packet's duration for that time; the encoder's guess, from a rate
        that a camera does not keep, would shift pictures by milliseconds.
        """
        if self._whole_packets:
            self._container.mux(packets)
            return
        for packet in packets:
            if self._last is not None:
                self._last.duration = packet.pts - self._last.pts
                self._container.mux(self._last)
            self._last = packet

    def sound(self, chunk: AudioChunk, time_s: float) -> None:
        """Add sound that begins at `time_s`: after silence where there was none, without what overlaps the last."""
        frame = self._resampled(chunk)
        if frame is None:
            return
        samples = frame.to_ndarray()
        ahead = round(time_s * SOUND_HZ) - self._samples
        if ahead > _JITTER_S * SOUND_HZ:
            self._encode(np.zeros((2, ahead), np.float32))
        elif ahead < -_JITTER_S * SOUND_HZ:
            samples = samples[:, -ahead:]
        self._encode(samples)

    def silence(self, until_s: float) -> None:
        """Add silence up to a time, if there is no sound yet."""
        missing = round(until_s * SOUND_HZ) - self._samples
        if missing > 0:
            self._encode(np.zeros((2, missing), np.float32))

    @property
    def sound_s(self) -> float:
        """Where the encoded sound ends."""
        return self._samples / SOUND_HZ

    def packet(self, packet: av.Packet) -> None:
        """Copy a packet of the stream that was given; its times are moved already."""
        packet.stream = self._copied
        self._container.mux(packet)

    def close(self) -> None:
        """Write what the encoders still hold, and the end of the file."""
        try:
            self._mux_pictures(self._video.encode(None))
            if self._last is not None:
                self._container.mux(self._last)
            if self._audio is not None:
                self._mux_sound(self._audio.encode(None))
        finally:
            self._container.close()

    def __exit__(self, error: type | None, *exc_info: object) -> None:
        with contextlib.suppress(OSError, ValueError) if error else contextlib.nullcontext():
            self.close()

    def _resampled(self, chunk: AudioChunk) -> av.AudioFrame | None:
        """Stereo at SOUND_HZ."""
        samples = chunk.samples
        if len(samples) > 2:  # a microphone array: what its layout is, nobody says
            samples = samples.mean(axis=0, keepdims=True)
        layout = "mono" if len(samples) == 1 else "stereo"
        key = (chunk.sample_rate_hz, layout)
        if self._resampler[0] != key:
            self._resampler = key, av.AudioResampler(format="fltp", layout="stereo", rate=SOUND_HZ)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
        frame.sample_rate = chunk.sample_rate_hz
        return next(iter(self._resampler[1].resample(frame)), None)

    def _encode(self, samples: np.ndarray) -> None:
        """float32 (2, n), right after what was encoded last, in pieces."""
        for start in range(0, samples.shape[1], SOUND_HZ):
            part = np.ascontiguousarray(samples[:, start : start + SOUND_HZ])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = SOUND_HZ, self._samples, Fraction(1, SOUND_HZ)
            self._samples += part.shape[1]
            self._mux_sound(self._audio.encode(frame))

    def _mux_sound(self, packets: Sequence[av.Packet]) -> None:
        """Write packets; not the one of silence that an AAC encoder puts before time 0: in a fragmented file the muxer
        would move all others by its length."""
        self._container.mux([packet for packet in packets if self._whole_packets or packet.pts >= 0])


def _container_options(options: MovieOptions) -> dict[str, str]:
    if not options.crash_safe:
        return {"movflags": "faststart"} if options.kind == "mp4" else {}
    hybrid = tuple(av.library_versions["libavformat"][:2]) >= _HYBRID_FROM
    flags = "hybrid_fragmented" if hybrid else "frag_keyframe+empty_moov+default_base_moof"
    return {
        "movflags": flags,
        "frag_duration": str(round(FRAGMENT_S * 1e6)),
        "flush_packets": "1",
        # Pictures do not wait for sound that does not come, nor sound for pictures.
        "max_interleave_delta": str(round(FRAGMENT_S * 1e6)),
    }


def _fitted(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture of this width and height."""
    width, height = size
    if image.shape[0] - height in (0, 1) and image.shape[1] - width in (0, 1):
        return np.ascontiguousarray(image[:height, :width])
    scale = min(width / image.shape[1], height / image.shape[0])
    inner = max(1, round(scale * image.shape[1])), max(1, round(scale * image.shape[0]))
    fitted = np.zeros((height, width, 3), np.uint8)
    x, y = (width - inner[0]) // 2, (height - inner[1]) // 2
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    fitted[y : y + inner[1], x : x + inner[0]] = cv2.resize(image, inner, interpolation=method)
    return fitted
