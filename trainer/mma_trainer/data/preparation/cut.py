"""One raw video to one clip on disk: face crops and sound as the runtime would see and hear them.

Detector, tracker and crop are the runtime's, and so is the clock of the sound. Of several faces the
one that is seen in the most frames is taken; of equally many the larger one.

    <output>/clips_faces/<name>/00001.jpg ...   the crops, at the size at which they were cut
    <output>/clips_wav/<name>.wav               first channel at the file's own rate, float32
    <output>/clips_done/<name>.json             written last: this clip is whole
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mma_edge.audio.logmel import frame_length_samples
from mma_edge.errors import OutputError, SourceError
from mma_edge.faces import centre_crop, crop_face, resize
from mma_edge.faces.detect import MTCNNDetector
from mma_edge.faces.track import FaceTracker
from mma_edge.files import replaced
from mma_edge.sources import FileSource
from mma_edge.types import Frame
from mma_trainer.data.preparation.layouts import Video
from mma_trainer.data.preparation.sound import Sound

FACES, WAVS, DONE, WORK = "clips_faces", "clips_wav", "clips_done", "clips_work"
CENTRE_TRACK = 0  # as in the runtime's pipeline; real tracks count from 1
CRASHED = "decoder crashed"


@dataclass(frozen=True)
class CropOptions:
    """How clips are written."""

    format: str = "jpg"  # of quality 95, or "png": what the runtime sees, to the bit; about five times as large
    size: int = 0  # side in pixels to resize crops to as the runtime does; 0 leaves them as cut
    centre_fallback: bool = False  # the centre of the picture where no face is found in the whole video


@dataclass(frozen=True)
class Outcome:
    """What became of a video; the marker of a finished clip, which is redone when source or options change."""

    name: str
    frames: int  # crops written, 0 for a failure
    sound_s: float
    faces: int
    failure: tuple[str, str] | None  # (kind as failures.csv names it, details) of a video that gave no clip
    note: tuple[str, str] | None  # (kind, details) of a clip without usable sound, kept all the same: heard as silence
    source: tuple[str, int, int]
    options: dict

    @classmethod
    def failed(cls, name: str, kind: str, details: str, options: CropOptions) -> Outcome:
        """Of a video that could not be opened at all."""
        return cls(name, 0, 0.0, 0, (kind, details), None, ("", 0, 0), asdict(options))


def finished(output: Path, video: Video, options: CropOptions) -> Outcome | None:
    """The outcome of an earlier run, where source and options are the same and the files are there."""
    faces, _, marker = _places(output, video.name)
    try:
        found = json.loads(marker.read_text())
        found |= {part: tuple(found[part]) for part in ("failure", "note", "source") if found[part] is not None}
        outcome = Outcome(**found)
        same = outcome.source == _source(video.path) and outcome.options == asdict(options)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return outcome if same and (outcome.failure or faces.is_dir()) else None


def prepare_video(video: Video, output: Path, options: CropOptions) -> Outcome:
    """Make one clip, whole or not at all; failures of the video are an outcome, those of the disk an OutputError."""
    if video.path is None or not video.path.is_file():
        details = f"{video.path} does not exist" if video.path else "no file of this name among the videos"
        return Outcome.failed(video.name, "no such video", details, options)
    work = output / WORK / video.name
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        outcome, sound = _cut(video, work, options)
        _move(outcome, sound, work, output)
        return outcome
    except OSError as error:
        what = f"{output} cannot be written ({error})"
        raise OutputError(what, "free disk space", "repeat the command to go on") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _cut(video: Video, work: Path, options: CropOptions) -> tuple[Outcome, Sound | None]:
    """The crops in `work`/frames, and the sound if the clip has any."""
    said: list[str] = []
    tracks, sound, frames = Tracks(work, options), Sound(), 0
    failure = note = None
    try:
        with FileSource(video.path, said.append) as source:
            has_video, has_audio = source.has_video, source.has_audio
            for event in source.events():
                if isinstance(event, Frame):
                    tracks.add(event)
                    frames += 1
                else:
                    sound.add(event)
    except SourceError as error:
        failure = ("unreadable video", str(error))
    else:
        notices = "; ".join(said)
        if not has_video:
            failure = ("no video track", notices)
        elif not frames:
            failure = ("no frames", notices or "nothing could be decoded")
        elif not tracks.counts:
            failure = ("no face", f"in {frames} frames; --centre-fallback takes the centre of the picture instead")
        elif not has_audio and "cannot be decoded" in notices:
            note = ("sound cannot be decoded", notices)
        elif has_audio and sound.samples < frame_length_samples(sound.rate_hz):
            note = ("sound shorter than a window of the log-mel", f"{sound.samples} samples at {sound.rate_hz} Hz")
    count = tracks.choose(work / "frames") if failure is None else 0
    heard = sound if sound.samples and note is None else None
    sound_s = round(sound.samples / sound.rate_hz, 3) if heard else 0.0
    made_of = (_source(video.path), asdict(options))
    return Outcome(video.name, count, sound_s, len(tracks.counts), failure, note, *made_of), heard


def _source(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return (os.fspath(path.absolute()), status.st_size, status.st_mtime_ns)


def _move(outcome: Outcome, sound: Sound | None, work: Path, output: Path) -> None:
    """Put the clip into its place; the marker comes last, so that an interruption leaves none behind."""
    for folder in (FACES, WAVS, DONE):
        (output / folder).mkdir(parents=True, exist_ok=True)
    faces, wav, marker = _places(output, outcome.name)
    marker.unlink(missing_ok=True)
    wav.unlink(missing_ok=True)
    if sound and outcome.failure is None:
        sound.write(wav)
    shutil.rmtree(faces, ignore_errors=True)
    if outcome.failure is None:
        os.replace(work / "frames", faces)
    with replaced(marker) as aside:
        aside.write_text(json.dumps(asdict(outcome)))


def _places(output: Path, name: str) -> tuple[Path, Path, Path]:
    """Folder of the crops, wav and marker of a clip."""
    return output / FACES / name, output / WAVS / f"{name}.wav", output / DONE / f"{name}.json"


class Tracks:
    """Crops of every face of a video, written as they come: memory does not grow with its length."""

    def __init__(self, folder: Path, options: CropOptions) -> None:
        self.folder, self.options = folder, options
        self.counts: Counter[int] = Counter()
        self._areas: Counter[int] = Counter()
        self._tracker = FaceTracker(_detector())

    def add(self, frame: Frame) -> None:
        found = [(face.track_id, crop_face(frame.image, face.box)) for face in self._tracker.update(frame)]
        if not found and self.options.centre_fallback:
            found = [(CENTRE_TRACK, centre_crop(frame.image))]
        size, suffix = self.options.size, self.options.format
        for track, crop in found:
            if crop.size:
                self.counts[track] += 1
                self._areas[track] += crop.shape[0] * crop.shape[1]
                folder = self.folder / f"track{track}"
                folder.mkdir(exist_ok=True)
                image = Image.fromarray(resize(crop, size) if size else np.ascontiguousarray(crop))
                how = {"compress_level": 1} if suffix == "png" else {"quality": 95, "subsampling": 0}
                image.save(folder / f"{self.counts[track]:05d}.{suffix}", **how)

    def choose(self, target: Path) -> int:
        """Rename the folder of the face that the clip is about to `target`; returns its number of frames."""
        faces = [track for track in self.counts if track != CENTRE_TRACK] or [CENTRE_TRACK]
        best = max(faces, key=lambda track: (self.counts[track], self._areas[track], -track))
        os.replace(self.folder / f"track{best}", target)
        return self.counts[best]


@functools.cache
def _detector() -> MTCNNDetector:
    """One per process: opening its networks takes as long as a short video."""
    return MTCNNDetector(num_threads=1)
