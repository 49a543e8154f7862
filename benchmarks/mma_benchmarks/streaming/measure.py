"""What `--streaming` saves and what it costs: real clips, every way of computing the same windows in turns.

Each window of a clip is computed by the whole graph, by exact and by rolling with several bounds on the age of a
frame's summary and of the sound's, on every engine, one right after the other and in another order each time, so that
whatever else the machine does hits all alike.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from mma_benchmarks.latency.measure import describe_model
from mma_benchmarks.machine.facts import describe_machine
from mma_benchmarks.result import Advance, Result, utc_now
from mma_benchmarks.schema import (
    Streaming,
    StreamingSettings,
    StreamingSource,
    StreamingWay,
    WindowAgreement,
    summarise,
)
from mma_edge.clip import NUM_FRAMES, GridClips, SlidingClips
from mma_edge.errors import BundleError, SourceError, UsageError
from mma_edge.pipeline import StreamOptions, collect_clips
from mma_edge.recognizer import Recognizer
from mma_edge.streaming import Roll, Streamer, StreamingGraphs, open_graphs
from mma_edge.types import Clip
from mma_export.streaming.gate import Agreement, every, full_logits

SHORTEST_HOP_S, LONGEST_HOP_S = 0.25, 2.0
HOPS_S = (0.25, 0.5, 1.0)
FRAME_COUNTS = (1, 2, 4, 8, NUM_FRAMES)
INF = float("inf")
MAX_AGES_S = (0.0, 1.0, 2.0, INF)
"""0: no summary is used twice, so all layers run on every frame."""
SOUND_AGES_S = (0.25, 0.5, 1.0)
"""Of the sound, beside 0: each window hears its own. A bundle runs with the one in its manifest."""


@dataclass(frozen=True)
class StreamingOptions:
    """What to measure."""

    sources: tuple[str, ...] = ("sample",)  # or media files
    repeat: int = 3  # passes over each clip
    engines: tuple[tuple[str, str | None], ...] = (
        ("auto", None),
    )  # backend and precision, as `mma_edge.load` has them
    hops_s: tuple[float, ...] = HOPS_S  # multiples of SHORTEST_HOP_S

    def __post_init__(self) -> None:
        for hop_s in self.hops_s:
            if not (SHORTEST_HOP_S <= hop_s <= LONGEST_HOP_S and hop_s % SHORTEST_HOP_S == 0):
                raise UsageError(f"--hop {hop_s:g}", f"a multiple of {SHORTEST_HOP_S:g}, at most {LONGEST_HOP_S:g} s")
        if self.repeat < 1:
            raise UsageError(f"--repeat {self.repeat}", "at least 1")


@dataclass
class Way:
    """One way of computing the windows of one hop, and what was seen of it."""

    engine: tuple[str, str]  # backend and precision
    mode: str
    hop_s: float
    max_age_s: float | None
    sound_age_s: float
    make: Callable[[], Callable[[Clip], np.ndarray]]  # of a computer: a clip -> logits (1, C)
    update_ms: list[float] = field(default_factory=list)
    stem_frames: list[int] = field(default_factory=list)
    layer_frames: list[int] = field(default_factory=list)
    sounds: list[int] = field(default_factory=list)
    agreement: Agreement = field(default_factory=Agreement)
    max_logit_difference: float = 0.0

    def figures(self, full_ms: float) -> StreamingWay:
        """Its entry in the result; `full_ms` is the mean of the whole graph at this hop."""
        mean_ms = float(np.mean(self.update_ms))
        return StreamingWay(
            **self.agreement.figures(),
            mode=self.mode,
            hop_s=self.hop_s,
            max_age_s=self.max_age_s,
            update_ms=summarise(self.update_ms),
            updates_per_s=1000 / mean_ms,
            speedup=full_ms / mean_ms,
            stem_frames=float(np.mean(self.stem_frames)),
            layer_frames=float(np.mean(self.layer_frames)),
            max_abs_logit_difference=self.max_logit_difference,
            backend=self.engine[0],
            precision=self.engine[1],
            sound_age_s=self.sound_age_s,
            sounds=float(np.mean(self.sounds)),
        )


def measure_streaming(
    bundle: str | os.PathLike | None, options: StreamingOptions, command: str, advance: Advance = lambda step: None
) -> Result:
    """Run the benchmark on the folder of a bundle with streaming graphs, None for the embedded default model.

    Raises:
        MMAEdgeError: as `mma_edge.load`, `open_graphs` and the pipeline raise it; SourceError where no face was seen
            for longer than a window.
    """
    machine = describe_machine()
    recognizers = [Recognizer.open(bundle, *engine, "exact") for engine in options.engines]
    parts = [open_parts(recognizer) for recognizer in recognizers]
    recognizer = recognizers[0]
    refused = "; ".join(dict.fromkeys(why for *_, why in parts if why)) or None
    ways = [
        way
        for hop_s in options.hops_s
        for one, (exact, rolling, _) in zip(recognizers, parts, strict=True)
        for way in ways_of(one, exact, rolling, hop_s)
    ]
    sampling, sources = Agreement(), []
    for source in options.sources:
        advance(f"finding the faces of {os.path.basename(source)}")
        clips = with_face(collect_clips(source, recognizer.image_size, SHORTEST_HOP_S, GridClips))
        sources.append(StreamingSource(os.path.basename(source), len(clips)))
        plain = with_face(collect_clips(source, recognizer.image_size, SHORTEST_HOP_S, SlidingClips))
        compare_sampling(recognizer, every(clips, 2), every(plain, 2), sampling)
        for number in range(options.repeat):
            advance(f"run {number + 1} of {options.repeat}")
            for hop_s in options.hops_s:
                group = [way for way in ways if way.hop_s == hop_s]
                run_in_turns(group, every(clips, round(hop_s / SHORTEST_HOP_S)), first_run=number == 0)
    if not all(way.update_ms for way in ways):
        what = "no face was seen for longer than a window and a hop"
        raise SourceError(what, "clips of some seconds", "try --source sample")
    full_ms = {(way.engine, way.hop_s): float(np.mean(way.update_ms)) for way in ways if way.mode == "full"}
    max_ages_s = list(map(bound_of, MAX_AGES_S))
    hops_s = sorted({way.hop_s for way in ways})
    results = Streaming(
        StreamingSettings(StreamOptions().window_s, options.repeat, hops_s, max_ages_s),
        sources,
        [way.figures(full_ms[way.engine, way.hop_s]) for way in ways],
        WindowAgreement(**sampling.figures()),
        refused,
    )
    return Result("streaming", utc_now(), command, machine, describe_model(recognizer), results)


def open_parts(recognizer: Recognizer) -> tuple[StreamingGraphs, StreamingGraphs | None, str | None]:
    """Exact, rolling or None, and why the bundle does not offer rolling on this engine."""
    engine = recognizer.backend, recognizer.precision
    exact, _ = open_graphs(recognizer.bundle, "exact", *engine)
    try:
        rolling, _ = open_graphs(recognizer.bundle, "rolling", *engine)
    except BundleError as error:
        warm_up(recognizer, exact)
        return exact, None, error.what
    warm_up(recognizer, exact, rolling)
    return exact, rolling, None


def warm_up(recognizer: Recognizer, exact: StreamingGraphs, rolling: StreamingGraphs | None = None) -> None:
    """Compute once with every number of frames: some engines compile a graph when a number first comes."""
    frames, mel, *_ = recognizer.bundle.golden
    for count in FRAME_COUNTS:
        exact.stem(frames[0, :count])
        if rolling is not None:
            tokens = rolling.stem(frames[0, :count])
            past = np.zeros((NUM_FRAMES, rolling.summary_width), np.float32)
            for heard in (None, past[0]) if rolling.keeps_sound else (None,):
                rolling.roll([Roll(tokens, past, np.arange(NUM_FRAMES), mel[0], heard, frames[0, :count])])
    exact.window(exact.stem(frames[0])[None], mel)


def ways_of(recognizer: Recognizer, exact: StreamingGraphs, rolling: StreamingGraphs | None, hop_s: float) -> list[Way]:
    """The whole graph, exact, and, where the bundle has rolling, that at each of MAX_AGES_S and of SOUND_AGES_S."""
    engine = recognizer.backend, recognizer.precision
    ways = [
        Way(engine, "full", hop_s, None, 0.0, lambda: partial(full_logits, recognizer.engine)),
        Way(engine, "exact", hop_s, None, 0.0, partial(OneFace, exact, "exact")),
    ]
    ages = [(age_s, 0.0) for age_s in MAX_AGES_S] if rolling else []
    if rolling and rolling.keeps_sound:
        ages += [(INF, age_s) for age_s in SOUND_AGES_S]
    for age_s, sound_age_s in ages:
        make = partial(OneFace, rolling, "rolling", age_s, sound_age_s)
        ways.append(Way(engine, "rolling", hop_s, bound_of(age_s), sound_age_s, make))
    return ways


class OneFace(Streamer):
    """A Streamer that gets its clips one by one."""

    def __call__(self, clip: Clip) -> np.ndarray:
        return super().__call__([clip])


def run_in_turns(ways: Sequence[Way], clips: Sequence[Clip], first_run: bool) -> None:
    """One pass over the clips of one source and hop, every way on every clip, the whole graph of each engine too."""
    window_s = StreamOptions().window_s
    computers = [way.make() for way in ways]
    began_s: dict[int | None, float] = {}
    for number, clip in enumerate(clips):
        began_s.setdefault(clip.track_id, clip.start_s)
        steady = clip.end_s - began_s[clip.track_id] >= window_s + ways[0].hop_s - 1e-6
        logits: dict[int, np.ndarray] = {}
        for turn in range(len(ways)):
            place = (number + turn) % len(ways)
            way, computer = ways[place], computers[place]
            before = _work(computer)
            start = time.perf_counter()
            logits[place] = computer(clip)
            duration_ms = 1000 * (time.perf_counter() - start)
            if steady:
                work = (after - earlier for after, earlier in zip(_work(computer), before, strict=True))
                stem, layers, sounds = work
                way.update_ms.append(duration_ms)
                way.stem_frames.append(stem or (NUM_FRAMES if way.mode == "full" else 0))
                way.layer_frames.append(layers or NUM_FRAMES)
                way.sounds.append(1 if way.mode == "full" else sounds)
        if first_run:  # the numbers are the same in every run
            full = {way.engine: logits[place] for place, way in enumerate(ways) if way.mode == "full"}
            for place, way in enumerate(ways):
                expected = full[way.engine]
                way.agreement.add(logits[place], expected)
                difference = float(np.abs(logits[place] - expected).max())
                way.max_logit_difference = max(way.max_logit_difference, difference)


def compare_sampling(recognizer: Recognizer, grid: Sequence[Clip], plain: Sequence[Clip], into: Agreement) -> None:
    """The whole graph on the grid's frames beside those of frame_indices, window by window."""
    others = {(clip.track_id, clip.end_s): clip for clip in plain}
    for clip in grid:
        if (other := others.get((clip.track_id, clip.end_s))) is not None:
            into.add(full_logits(recognizer.engine, clip), full_logits(recognizer.engine, other))


def with_face(clips: Sequence[Clip]) -> list[Clip]:
    return [clip for clip in clips if clip.frames is not None]


def bound_of(age_s: float) -> float | None:
    """JSON has no infinity."""
    return None if age_s == INF else age_s


def _work(computer: object) -> tuple[int, int, int]:
    stats = getattr(computer, "stats", None)
    return (0, 0, 0) if stats is None else (stats.stem_frames, stats.layer_frames, stats.sounds)
