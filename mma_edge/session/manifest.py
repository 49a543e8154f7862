"""The parts of a session's manifest that say what ran, how, and what was kept of people."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mma_edge import __version__
from mma_edge.pipeline.neutral import plain_neutral
from mma_edge.session.tally import SourceTally, rounded
from mma_edge.session.video.source import SourceVideo

if TYPE_CHECKING:
    from mma_edge.pipeline import StreamOptions
    from mma_edge.recognizer import Recognizer

_OPTIONS = ("window_s", "hop_s", "voice_gate", "abstain_below", "smooth_s", "streaming")


def versions() -> dict[str, str]:
    return {
        "mma_edge": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
    }


def model_of(recognizer: Recognizer) -> dict[str, Any]:
    bundle = recognizer.bundle
    return {
        "name": bundle.name,
        "labels": list(recognizer.labels),
        "precision": recognizer.precision,
        "backend": recognizer.backend,
        "details": recognizer.engine.details,
        "temperature": bundle.manifest["temperature"],
        "licence": bundle.manifest["license"]["name"],
    }


def options_of(stream: StreamOptions) -> dict[str, Any]:
    return {name: getattr(stream, name) for name in _OPTIONS} | {"neutral": plain_neutral(stream.neutral)}


def source_of(tally: SourceTally, video: SourceVideo | None) -> dict[str, Any]:
    """A source and its video, which has begun only with its first picture."""
    parts = tuple(video.parts) if video else ()
    begun = bool(parts)
    return tally.to_dict() | {
        "video": video.path.name if begun else None,
        "video_start_s": rounded(video.start_s) if begun else None,
        "video_more": [{"file": path.name, "start_s": rounded(start_s)} for path, start_s in parts[1:]],
        "sound_in_video": begun and video.sound_wanted,
        "video_dropped": video.dropped if video else 0,
    }


def privacy_of(videos: Sequence[SourceVideo], blurred: bool) -> dict[str, Any]:
    """What was kept and what was not; `videos` are those that have begun."""
    heard = any(video.sound_wanted for video in videos)
    kept = "numbers about faces and voices (emotions, places of faces in the picture, times), and marks"
    lacking = "No picture and no sound were kept."
    if videos:
        faces = "with the faces that were found made unrecognisable" if blurred else "with faces as they are"
        kept += f", and video {faces}" + (", with sound" if heard else "")
        lacking = "" if heard else "No sound was kept."
    return {
        "video": bool(videos),
        "faces": "blurred" if blurred else "as they are",
        "sound": heard,
        "statement": f"Kept: {kept}. {lacking}".rstrip(),
    }
