"""What a streaming result looks like to people."""

from __future__ import annotations

from collections.abc import Sequence

from mma_benchmarks.result import Result
from mma_benchmarks.schema import Streaming, StreamingWay
from mma_trainer.report.page import Block, Heading, Table, Text, percent

NOTE = (
    "One update is one window of one face: {windows} windows, {repeat} times over. Times are of updates for which the "
    "face had been there for a window and a hop; they are of the model alone, without decoding and finding faces. "
    "Speedup (of the mean), agreement and errors are against the whole graph of the same engine on the same frames; "
    "agreement and errors are over all windows, the first ones included. The age of rolling is how long ago the "
    "features of a frame may have been computed; 0 s computes all anew. With a sound age the sound of an answer may be "
    "that old, and most updates leave its encoder out: sounds are how many of one update go through it."
)


def key_table(results: Sequence[Result]) -> Table:
    """One row per hop and way of each result: time and work."""
    rows = []
    for result in results:
        for way in result.results.ways:
            took = way.update_ms
            times = (*(f"{ms:.1f}" for ms in (took.mean, took.p50, took.p95)), f"{way.updates_per_s:.0f}")
            work = (f"{way.speedup:.2f}", f"{way.stem_frames:.1f}", f"{way.layer_frames:.1f}", f"{way.sounds:.2f}")
            engine = engine_of(way, result)
            rows.append((result.bundle.name, engine, f"{way.hop_s:g}", name_of(way), *times, *work))
    header = (
        "bundle",
        "engine",
        "hop s",
        "way",
        "mean ms",
        "p50 ms",
        "p95 ms",
        "updates/s",
        "speedup",
        "stem frames",
        "layer frames",
        "sounds",
    )
    return Table("Work per update", header, rows)


def agreement_table(result: Result) -> Table:
    """One row per hop and way: how near to full recomputation."""
    rows = []
    for way in result.results.ways:
        if way.mode != "full":
            errors = (way.mean_abs_probability_error, way.max_abs_probability_error, way.max_abs_logit_difference)
            agreement = (str(way.windows), percent(way.top1_agreement), *(f"{error:.1e}" for error in errors))
            rows.append((engine_of(way, result), f"{way.hop_s:g}", name_of(way), *agreement))
    header = ("engine", "hop s", "way", "windows", "same class %", "mean error", "max error", "max logit difference")
    return Table(
        "Beside full recomputation by the same engine on the same frames, errors of probabilities", header, rows
    )


def console_tables(result: Result) -> list[Table]:
    return [key_table([result]), agreement_table(result)]


def blocks(result: Result) -> list[Block]:
    """The section of one result, without machine and bundle."""
    found: Streaming = result.results
    windows = sum(source.windows for source in found.sources)
    names = ", ".join(f"{source.name} ({source.windows} windows)" for source in found.sources)
    refused = f"This bundle does not offer rolling: {found.refused}."
    return [
        Text(NOTE.format(repeat=found.settings.repeat, windows=windows)),
        *([Text(refused, note=True)] if found.refused else []),
        key_table([result]),
        Heading("Faithfulness", 3),
        agreement_table(result),
        Text(
            "The frames of the fixed grid instead of those that each window would choose for itself: the same class in "
            f"{found.sampling.top1_agreement:.1%} of {found.sampling.windows} windows at a hop of 0.5 s, mean error of "
            f"a probability {found.sampling.mean_abs_probability_error:.1e}, largest "
            f"{found.sampling.max_abs_probability_error:.1e}."
        ),
        Text(f"Clips: {names}."),
    ]


def engine_of(way: StreamingWay, result: Result) -> str:
    """openvino int8 ..."""
    return f"{way.backend or result.bundle.backend} {way.precision or result.bundle.precision}"


def name_of(way: StreamingWay) -> str:
    """exact, rolling, rolling, age 2 s, rolling, sound 0.5 s ..."""
    sound = f", sound {way.sound_age_s:g} s" if way.sound_age_s else ""
    return (way.mode if way.max_age_s is None else f"{way.mode}, age {way.max_age_s:g} s") + sound
