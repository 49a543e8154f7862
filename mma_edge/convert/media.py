"""What a time line must know of the video that it belongs to."""

from __future__ import annotations

import mimetypes
from pathlib import Path

from mma_edge.convert.timeline import Media
from mma_edge.errors import SourceError

_EXPECTED = "the video that the records are about"


def media_of(path: Path) -> Media:
    """A video or sound file as players see it: they count from its first picture or sound.

    Raises:
        SourceError: there is none, or FFmpeg cannot open it.
    """
    # Imported here: only annotations of a video need it.
    import av

    if not path.is_file():
        raise SourceError(f"{path} does not exist", _EXPECTED, "choose another --media FILE")
    try:
        # "file:" and the white list keep a playlist from opening anything else.
        with av.open(f"file:{path}", options={"protocol_whitelist": "file"}) as container:
            start_s = (container.start_time or 0) / av.time_base
            duration_ms = None if container.duration is None else round(1000 * container.duration / av.time_base)
            pictures = [stream for stream in container.streams.video if stream.average_rate]
            rate_fps = float(pictures[0].average_rate) if pictures else None
            kind = "video" if pictures else "audio"
    except av.FFmpegError as error:
        what = f"{path} cannot be read: {error.strerror}"
        raise SourceError(what, _EXPECTED, "choose another --media FILE") from error
    mime_type = mimetypes.guess_type(path.name)[0] or f"{kind}/{path.suffix[1:].lower() or 'mp4'}"
    return Media(path, mime_type, duration_ms, rate_fps, start_s)
