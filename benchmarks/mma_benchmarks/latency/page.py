"""What a latency result looks like to people."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from mma_benchmarks.figures import latency_boxes, stage_bars
from mma_benchmarks.result import Result
from mma_benchmarks.schema import Latency, LatencySettings, Part, Source, Summary
from mma_trainer.report.page import Block, Figure, Heading, Table, Text

STAGE_NOTES = {
    "decode": "reading and decoding the file until its next event, a video frame or a block of sound; one call each, "
    "both in this row",
    "detect": "turning what is looked at of one frame into upright RGB, and finding and following its faces: an MTCNN "
    "detection now and then, in between a cheap refinement of the known faces (hence two kinds of durations)",
    "crop": "cutting the square around each face of one frame and resizing it, antialiased, to the model's input size",
    "sound": "the log-mel rows of one block of sound and its probability of speech, added to their ring buffers",
    "engine": "the graph on all clips due at one time (one per face), batch assembly and softmax included",
    "other": "all between the stages: the order of frames and sound, the choice of 16 frames, window bookkeeping",
}
FACTOR_NOTE = (
    "The real-time factor is seconds of media per second of computing: above 1 the machine keeps up with a "
    "live source like this one (picture size, frame rate, number of faces). The stages of a file work at the same "
    "time, so it is not the sum of the stages' times below, which were taken in runs whose stages take turns."
)
PREDICT_NOTE = (
    "predict alone: Recognizer.predict on one clip of real content at a time (batch 1), with nothing of the pipeline "
    "running in between."
)
AGE_NOTE = (
    "age: the time from decoding the newest datum of a window to the answer about it, in the runs whose stages take "
    "turns: computing time alone, to which a camera or a network would add its own."
)
FEW_CALLS = 100


def key_table(results: Sequence[Result]) -> Table:
    """One row per result: what people compare."""
    rows = []
    for result in results:
        bundle, found = result.bundle, result.results
        what = (bundle.name, f"{bundle.backend} {bundle.precision}", found.source.name)
        times = (f"{ms.p50:.1f} / {ms.p95:.1f}" for ms in (found.predict_ms, found.age_ms))
        speed = f"{fmean(run.frames_per_s for run in found.runs):.1f}" if found.source.video else "-"
        factor = f"{fmean(run.real_time_factor for run in found.runs):.2f}"
        rows.append((*what, *times, speed, factor, f"{found.startup.load_s:.2f}", f"{found.peak_memory_mib:.0f}"))
    header = (
        "bundle", "backend", "source", "predict ms p50 / p95", "age ms p50 / p95", "frames/s", "real-time factor",
        "load s", "peak MiB",
    )  # fmt: skip
    return Table("Latency at a glance", header, rows, prose=(1, 2))


def stage_table(found: Latency) -> Table:
    """Percentiles per stage, then predict alone and the age of the answers."""
    rows = [(name, *_summary(stage.per_call_ms), *_part(stage)) for name, stage in found.stages.items()]
    rows.append(("other", *[""] * 5, *_part(found.other)))
    alone = {"predict alone": found.predict_ms, "age of an answer": found.age_ms}
    rows += [(name, *_summary(ms), "", "") for name, ms in alone.items()]
    header = ("stage", "calls", "p50 ms", "p95 ms", "p99 ms", "mean ms", "ms per run", "share %")
    return Table("Milliseconds per call, all runs together", header, rows)


def run_table(found: Latency) -> Table:
    """End to end: each run over the whole clip."""
    rows = []
    for number, run in enumerate(found.runs, 1):
        times = (f"{run.wall_s:.2f}", f"{run.real_time_factor:.2f}", f"{run.frames_per_s:.1f}" if run.frames else "-")
        rows.append((str(number), *times, str(run.frames), str(run.answers)))
    header = ("run", "wall s", "real-time factor", "frames/s", "frames", "answers")
    return Table("End to end, the whole clip", header, rows)


def console_tables(result: Result) -> list[Table]:
    return [stage_table(result.results), run_table(result.results)]


def blocks(result: Result) -> list[Block]:
    """The section of one result, without machine and bundle."""
    found: Latency = result.results
    boxes = {name: stage.per_call_ms for name, stage in found.stages.items()}
    boxes |= {"predict alone": found.predict_ms, "age of an answer": found.age_ms}
    notes = [(name, STAGE_NOTES.get(name, "")) for name in (*found.stages, "other")]
    costs = [
        ("importing the libraries", f"{found.startup.import_s:.2f} s"),
        ("loading the bundle: hashes, session, self-test", f"{found.startup.load_s:.2f} s"),
        ("opening the source and the face detector", f"{found.startup.open_s:.2f} s"),
        ("peak resident memory of the process", f"{found.peak_memory_mib:.0f} MiB"),
    ]
    return [
        Text(_source_line(found.source, found.settings)),
        key_table([result]),
        Text(FACTOR_NOTE),
        Heading("Where the time goes", 3),
        Figure(stage_bars({**found.stages, "other": found.other}), "Share of the wall time per stage"),
        stage_table(found),
        Text(PREDICT_NOTE),
        Text(AGE_NOTE),
        *_few_calls(boxes),
        Table("The stages", ("stage", "what it is"), notes, prose=(1,)),
        Heading("How much it varies", 3),
        Text("Box: the middle half of the calls, line: median, whiskers: p5 and p95, circles: p99 and the slowest."),
        Figure(latency_boxes(boxes), "Distribution of milliseconds per call for each stage, logarithmic axis"),
        Heading("End to end", 3),
        run_table(found),
        Table("Start-up and memory", ("what", "value"), costs),
    ]


def _source_line(source: Source, settings: LatencySettings) -> str:
    tracks = [f"{source.width} x {source.height} video"] if source.video else []
    tracks += ["sound"] if source.audio else []
    return (
        f"Source: {source.name}, {source.media_s:.2f} s, {' and '.join(tracks)}. A window of "
        f"{settings.window_s:g} s every {settings.hop_s:g} s. Counted runs: {settings.repeat}, warm-up runs "
        f"before: {settings.warmup}, calls of predict alone: {settings.iterations}."
    )


def _few_calls(summaries: dict[str, Summary]) -> list[Block]:
    few = [f"{name} ({summary.count})" for name, summary in summaries.items() if summary.count < FEW_CALLS]
    text = f"Fewer than {FEW_CALLS} calls, so p99 says little more than the slowest one: {', '.join(few)}."
    return [Text(text, note=True)] if few else []


def _summary(ms: Summary) -> tuple[str, ...]:
    return (str(ms.count), *(f"{value:.2f}" for value in (ms.p50, ms.p95, ms.p99, ms.mean)))


def _part(part: Part) -> tuple[str, str]:
    return f"{part.per_run_ms:.0f}", f"{100 * part.share:.1f}"
