"""The strip of small pictures below a ribbon, out of the video that a session keeps."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mma_edge.errors import first_line
from mma_edge.report.recording import Recording, SourceRecording
from mma_edge.report.series import Series
from mma_edge.types import Notify

MOST_TIMES = 120
"""Times of a source at which the video is looked at."""
MOST_PICTURES = 480
"""On the page: 2.2 kB each."""
HEIGHT_PX, QUALITY = 72, 70
FACE_ASPECT, INSET = 0.8, 0.04
"""Width to height of a face's picture, which is so much smaller than its box: the video has the box drawn in it."""
NEAR_S = 1.0
"""A face is cut out where it was seen so near to the picture's time."""


@dataclass(frozen=True)
class Picture:
    """A small JPEG."""

    time_s: float  # on the source's time line
    jpeg: bytes

    @property
    def address(self) -> str:
        """For an <img>."""
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode()


@dataclass(frozen=True)
class Strip:
    """Pictures of one face (or, for the voice alone, of the whole frame), in order of time."""

    pictures: tuple[Picture, ...] = ()
    aspect: float = 1.0  # width to height


Strips = Mapping[int, Mapping[int | None, Strip]]
"""By the number of the source in the recording, then by face."""


def no_pictures() -> Strips:
    """For a page without them."""
    return {}


@dataclass
class _Collected:
    pictures: list[Picture] = field(default_factory=list)
    aspect: float = 1.0


def strips_of(recording: Recording, wanted: Mapping[int, tuple[Series, ...]], notify: Notify) -> Strips:
    """Strips of the `wanted` series of each source, from key frames of its video; `notify` gets what cannot be read.

    A session whose faces were blurred shows whole frames: there is nothing to see of a blurred face.
    """
    session = recording.session
    blurred = bool(session) and session.privacy.get("faces") == "blurred"
    with_video = [number for number, source in enumerate(recording.sources) if source.videos and source.length_s]
    strips: dict[int, dict[int | None, Strip]] = {}
    many = sum(len(wanted[number]) for number in with_video)
    times = max(8, min(MOST_TIMES, MOST_PICTURES // max(many, 1)))
    for number in with_video:
        source = recording.sources[number]
        strips[number] = _strips(source, wanted[number], times, blurred, notify)
    return strips


def _strips(
    source: SourceRecording, many: tuple[Series, ...], times: int, blurred: bool, notify: Notify
) -> dict[int | None, Strip]:
    found = {series.track_id: _Collected() for series in many}
    for time_s, image in _key_frames(source, times, notify):
        for series in many:
            box = None
            if series.track_id is not None:
                box = _box(series, time_s)
                if box is None:
                    continue
            part = image if box is None or blurred else _face(image, box, source.size)
            if part is not None:
                jpeg, aspect = _small(part)
                found[series.track_id].pictures.append(Picture(time_s, jpeg))
                found[series.track_id].aspect = aspect
    return {track: Strip(tuple(each.pictures), each.aspect) for track, each in found.items()}


def _key_frames(source: SourceRecording, count: int, notify: Notify) -> Iterator[tuple[float, np.ndarray]]:
    """Time on the page and picture uint8 (H, W, 3) of about `count` key frames, evenly over the time that is shown."""
    step_s = source.length_s / count
    wanted = source.from_s + step_s * (np.arange(count) + 0.5)
    ends = [start_s for _, start_s in source.videos[1:]] + [np.inf]
    for (path, start_s), end_s in zip(source.videos, ends, strict=True):
        own = wanted[(wanted >= start_s) & (wanted < end_s)] - start_s
        for frame_s, image in _of_file(path, source.name, own, step_s, notify):
            yield start_s + frame_s, image


def _of_file(
    path: Path, source: str, wanted: np.ndarray, step_s: float, notify: Notify
) -> Iterator[tuple[float, np.ndarray]]:
    """Time in a video and picture of the key frames near the `wanted` times, which are `step_s` apart."""
    import av  # here: a report of records alone needs no video

    last, end_s = None, None
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            stream = container.streams.video[0]
            stream.codec_context.skip_frame = "NONKEY"
            for video_s in wanted:
                container.seek(int(video_s / stream.time_base), stream=stream)
                frame = next(container.decode(stream), None)
                if frame is None or frame.pts is None:
                    break
                frame_s = float(frame.pts * stream.time_base)
                # A key frame far away says nothing about this moment: the video is cut, or has a gap.
                if frame.pts != last and abs(frame_s - video_s) <= max(step_s, 2 * NEAR_S):
                    yield frame_s, frame.to_ndarray(format="rgb24")
                    end_s = frame_s
                last = frame.pts
    except (OSError, ValueError, IndexError) as error:  # PyAV's errors are these, too
        seen = "cannot be read" if end_s is None else f"cannot be read after {end_s:.0f} s"
        notify(f"{path.name}, the video of {source}, {seen}: {getattr(error, 'strerror', None) or first_line(error)}")


def _box(series: Series, time_s: float) -> np.ndarray | None:
    """Where the face was at this time, between the answers before and after it; None where it was not seen then."""
    near = np.flatnonzero(np.abs(series.seen_s - time_s) <= NEAR_S)
    if not len(near):
        return None
    times, boxes = series.seen_s[near], series.boxes[near]
    return np.array([np.interp(time_s, times, boxes[:, corner]) for corner in range(4)])


def _face(image: np.ndarray, box: np.ndarray, size: tuple[int, int] | None) -> np.ndarray | None:
    """What is inside of the face's box, in FACE_ASPECT; None where that is outside of the picture or tiny."""
    height, width = image.shape[:2]
    scale = np.array([width / size[0], height / size[1]] * 2) if size and all(size) else np.ones(4)
    x0, y0, x1, y1 = box * scale
    high = (1 - 2 * INSET) * min(y1 - y0, (x1 - x0) / FACE_ASPECT, height, width / FACE_ASPECT)
    wide = high * FACE_ASPECT
    # Moved into the picture instead of cut, so that all have one shape.
    left = int(np.clip((x0 + x1 - wide) / 2, 0, width - wide))
    top = int(np.clip((y0 + y1 - high) / 2, 0, height - high))
    part = image[top : top + round(high), left : left + round(wide)]
    return part if high >= 8 else None


def _small(image: np.ndarray) -> tuple[bytes, float]:
    """A JPEG of HEIGHT_PX, and its width to its height."""
    from PIL import Image

    width = max(1, round(HEIGHT_PX * image.shape[1] / image.shape[0]))
    buffer = io.BytesIO()
    small = Image.fromarray(np.ascontiguousarray(image)).resize(
        (width, HEIGHT_PX), Image.Resampling.BILINEAR, reducing_gap=2
    )
    small.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue(), width / HEIGHT_PX
