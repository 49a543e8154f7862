"""Of two faces, which one has the voice: beside somebody still, beside another speaker, and where it is neither.

Each composed clip goes the whole way of a run, from pictures and sound to clips. It is judged once, by its last window.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mma_benchmarks.machine.facts import describe_machine
from mma_benchmarks.result import Advance, Model, Result, utc_now
from mma_benchmarks.speaking.compose import PIECE_S, Piece, SideBySide, Stretch, pieces_of, still_stretch
from mma_benchmarks.speaking.schema import Speaking, SpeakingKind, SpeakingSettings
from mma_edge.bundle import sha256
from mma_edge.clip import evenly
from mma_edge.engines.session import import_onnxruntime
from mma_edge.errors import DataError, SourceError, UsageError
from mma_edge.faces.detect import ASSETS
from mma_edge.faces.motion import MotionMeter
from mma_edge.faces.speaker import LEAST, MARGIN, speaker_of
from mma_edge.pipeline import Pipeline, StreamOptions
from mma_edge.types import Clip, Emotion, Face

MARGINS = (0.1, 0.2, MARGIN)
STILL, MUTE, NEITHER = "beside a still face", "beside a mute speaker", "voice of neither"
COST_PX, COST_CALLS = 150, 200


@dataclass(frozen=True)
class SpeakingOptions:
    """What to measure."""

    sources: tuple[Path, ...]  # clips of one person each, or folders of such clips; each gets its own rows
    limit: int | None = None  # pieces of each source, evenly spread

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit {self.limit}", "at least 1")


@dataclass
class Shares:
    """The shares of each composed clip that could be judged: of the one who speaks, and of the other."""

    clips: int = 0
    pairs: list[tuple[float, float]] = field(default_factory=list)


class _LastWindow:
    """Takes a recognizer's place in a pipeline, and keeps the newest window's clips."""

    labels, image_size = (), 16

    def __init__(self) -> None:
        self.clips: Sequence[Clip] = ()

    def predict_clips(self, clips: Sequence[Clip]) -> list[Emotion]:
        self.clips = clips or self.clips
        return []


def measure_speaking(options: SpeakingOptions, command: str, advance: Advance = lambda step: None) -> Result:
    """Run the benchmark.

    Raises:
        DataError: a source has no clips of two people. MMAEdgeError: see `Pipeline`.
    """
    sources = {source: pieces_of(source) for source in options.sources}
    for source, pieces in sources.items():
        if len({piece.person for piece in pieces}) < 2:
            expected = "at least two, each named before the first dash or underscore of the file names"
            raise DataError(f"{source} has clips of one person", expected, "see --source")
    machine, kinds = describe_machine(), []
    for source, pieces in sources.items():
        # The name alone: the folder may tell more of its owner than a result should.
        name = os.path.basename(os.path.normpath(source))
        kinds += kinds_of(name, pieces, options.limit or len(pieces), advance)
    results = Speaking(SpeakingSettings(options.limit, PIECE_S, LEAST, MARGIN, list(MARGINS)), kinds, motion_cost_ms())
    engine = f"onnxruntime {import_onnxruntime().__version__} CPU, 1 thread"
    model = Model("mouth and voice", sha256(ASSETS / "onet.onnx"), [], 0, "fp32", "cpu", engine)
    return Result("speaking", utc_now(), command, machine, model, results)


def kinds_of(name: str, pieces: Sequence[Piece], limit: int, advance: Advance) -> Iterator[SpeakingKind]:
    """The three rows of one source."""
    rng = np.random.default_rng(0)
    still: dict[Piece, Stretch] = {}
    for number, piece in enumerate(pieces, 1):
        advance(f"{name}: still stretches, {number} of {len(pieces)}")
        if stretch := still_stretch(piece):
            still[piece] = stretch
    chosen = [pieces[index] for index in evenly(len(pieces), limit)]
    for kind in (STILL, MUTE, NEITHER):
        found = Shares()
        for number, speaker in enumerate(chosen):
            advance(f"{name}: {kind}, {number + 1} of {len(chosen)}")
            strangers = [piece for piece in pieces if piece.person != speaker.person]
            others = [piece for piece in strangers if piece in still] if kind == STILL else strangers
            drawn = [others[index] for index in rng.permutation(len(others))[:2]]
            pair = drawn if kind == NEITHER else [speaker, *drawn[:1]]
            if len(pair) < 2:
                continue
            found.clips += 1
            stretches = {pair[1]: still[pair[1]]} if kind == STILL else {}
            shares = judged(*pair, speaker, stretches, mirrored=bool(number % 2))
            found.pairs += [shares] if shares else []
        yield row_of(name, kind, found)


def judged(
    first: Piece, second: Piece, voice: Piece, still: dict[Piece, Stretch], mirrored: bool
) -> tuple[float, float] | None:
    """The shares of two people beside each other; None where they were not both seen long enough, or no voice heard."""
    source = SideBySide(*((second, first) if mirrored else (first, second)), voice, still)
    window = _LastWindow()
    try:
        with Pipeline(window, source, StreamOptions(window_s=PIECE_S), threads=False) as pipeline:
            list(pipeline)
    except SourceError:  # neither a face nor a voice
        return None
    sides: dict[bool, float] = {}
    for clip in window.clips:
        if clip.speaking is not None:
            sides[(clip.box[0] + clip.box[2]) / 2 >= source.border_px] = clip.speaking
    return (sides[mirrored], sides[not mirrored]) if len(sides) == len(window.clips) == 2 else None


def row_of(source: str, kind: str, found: Shares) -> SpeakingKind:
    """The figures of one kind of composed clip."""
    winners = [[speaker_of({0: a, 1: b}, margin) for a, b in found.pairs] for margin in MARGINS]
    clear = [sum(winner is not None for winner in row) for row in winners]
    right = [0 if kind == NEITHER else sum(winner == 0 for winner in row) for row in winners]
    means = [
        None if kind == NEITHER or not found.pairs else float(mean) for mean in np.mean(found.pairs or [(0, 0)], 0)
    ]
    return SpeakingKind(source, kind, found.clips, len(found.pairs), clear, right, *means)


def motion_cost_ms() -> float:
    """Milliseconds of one thread for the motion of one face of COST_PX pixels in one picture."""
    meter, picture = MotionMeter(), np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    faces = [Face(number, (x, 100.0, x + COST_PX, 100.0 + COST_PX), 1.0) for number, x in ((1, 100.0), (2, 600.0))]
    start = time.thread_time()
    for _ in range(COST_CALLS):
        meter(picture, faces)
    return 1000 * (time.thread_time() - start) / COST_CALLS / len(faces)
