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
class Faces:
    settings: FacesSettings
    sources: list[FaceClips]
