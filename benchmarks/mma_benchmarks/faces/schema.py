"""The `results` of `mma-bench faces`; see `mma_benchmarks.schema`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FacesSettings:
    every: int  # the reference is every n-th picture
    repeat: int
    firm: float  # least `MTCNNDetector.confirm` value of an expected face
    same_face_iou: float


@dataclass(frozen=True)
class FaceClips:
    """One clip or folder: faces against the reference, and all of a run from end to end."""

    name: str
    clips: int
    media_s: float
    pictures: int
    reported: int  # faces, in all pictures
    compared: int  # pictures with a reference; the next three are counted in them
    expected: int
    missed: int
    false: int
    mean_overlap: float | None  # of the expected faces that were found, intersection over union
    find_ms: float  # of one thread per picture, as reference_ms
    reference_ms: float
    wall_s: float
    real_time_factor: float
    stages_ms: dict[str, float]  # of all clips, in a pass whose stages take turns


@dataclass(frozen=True)
class Crossings:
    """One kind of scene with two people, all runs of it together."""

    name: str
    scenes: int
    visible: int  # faces, in all pictures
    missed: int
    hidden: int  # faces that another one covers by more than a quarter
    switches: int  # how often a person's number changed


@dataclass(frozen=True)
class CrowdTimes:
    """Many faces in a picture of 1280 x 720, 25 per second; without decoding."""

    faces: int
    reported: float  # mean per picture
    answers: int
    stages_ms: dict[str, float]  # processor time, all faces together: of a picture; "engine": of a window
    cores: float  # seconds of processor time per second of media, of the whole run
    real_time_factor: float  # by the clock, with all threads of a file


@dataclass(frozen=True)
class People:
    people: int
    scenes: list[Crossings]
    crowd: CrowdTimes


@dataclass(frozen=True)
class Faces:
    settings: FacesSettings
    sources: list[FaceClips]
    people: People | None = None
