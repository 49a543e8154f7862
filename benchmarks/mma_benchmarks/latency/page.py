"""What a latency result looks like to people."""

from __future__ import annotations

from mma_benchmarks.result import Result
from mma_trainer.report.page import Block, Figure, Heading, Table, Text

STAGE_NOTES = {
    "decode": "reading and decoding the file until its next event, a video frame turned into upright RGB or a block of "
    "sound; one call each, both in this row",
    "detect": "finding and following the faces of one frame: a full MTCNN detection now and then, in between a cheap "
    "refinement of the known faces (hence two kinds of durations)",
    "crop": "cutting the square around each face of one frame and resizing it, antialiased, to the model's input size",
    "log-mel": "the log-mel rows of one block of sound, added to the ring buffer",
    "engine": "the graph on all clips due at one time (one per face), batch assembly and softmax included",
    "other": "all between the stages: the order of frames and sound, the choice of 16 frames, window bookkeeping",
}
PREDICT_NOTE = (
    "predict alone: Recognizer.predict on one clip of real content at a time (batch 1), with nothing of the pipeline "
    "running in between."
)
AGE_NOTE = (
    "age: the time from decoding the newest datum of a window to the answer about it; for a file that is computing "
    "time alone, a camera or a network would add its own."
)
FEW_CALLS = 100


def key_table(results: list[Result]) -> Table:
    """One row per result: what people compare."""
    rows = []
    for result in results:
        found = result.results
        runs = found["runs"]
        rows.append(
            (
                result.bundle["name"],
                f"{result.bundle['backend']} {result.bundle['precision']}",
                found["source"]["name"],
                f"{found['predict_ms']['p50']:.1f} / {found['predict_ms']['p95']:.1f}",
                f"{found['age_ms']['p50']:.1f} / {found['age_ms']['p95']:.1f}",
                f"{_mean(runs, 'frames_per_s'):.1f}" if found["source"]["video"] else "-",
                f"{_mean(runs, 'real_time_factor'):.2f}",
                f"{found['startup']['load_s']:.2f}",
                f"{found['peak_memory_mib']:.0f}",
            )
        )
    header = (
        "bundle", "backend", "source", "predict ms p50 / p95", "age ms p50 / p95", "frames/s", "real-time factor",
        "load s", "peak MiB",
    )  # fmt: skip
    return Table("Latency at a glance", header, rows, prose=(1, 2))


def stage_table(result: Result) -> Table:
    """Percentiles per stage, then predict alone and the age of the answers."""
    found = result.results
    rows = [
        (name, *_summary_cells(stage["per_call_ms"]), f"{stage['per_run_ms']:.0f}", f"{100 * stage['share']:.1f}")
        for name, stage in found["stages"].items()
    ]
    rows.append(("other", *[""] * 5, f"{found['other']['per_run_ms']:.0f}", f"{100 * found['other']['share']:.1f}"))
    for name, key in (("predict alone", "predict_ms"), ("age of an answer", "age_ms")):
        rows.append((name, *_summary_cells(found[key]), "", ""))
    header = ("stage", "calls", "p50 ms", "p95 ms", "p99 ms", "mean ms", "ms per run", "share %")
    return Table("Milliseconds per call, all runs together", header, rows)


def console_tables(result: Result) -> list[Table]:
    return [stage_table(result), run_table(result)]


def run_table(result: Result) -> Table:
    """End to end: each run over the whole clip."""
    rows = [
        (
            str(number),
            f"{run['wall_s']:.2f}",
            f"{run['real_time_factor']:.2f}",
            f"{run['frames_per_s']:.1f}" if run["frames"] else "-",
            str(run["frames"]),
            str(run["answers"]),
        )
        for number, run in enumerate(result.results["runs"], 1)
    ]
    header = ("run", "wall s", "real-time factor", "frames/s", "frames", "answers")
    return Table("End to end, the whole clip", header, rows)


def latency_blocks(result: Result) -> list[Block]:
    """The section of one result, without machine and bundle."""
    from mma_benchmarks.figures import latency_boxes, stage_bars

    found = result.results
    startup, settings = found["startup"], found["settings"]
    boxes = {name: stage["per_call_ms"] for name, stage in found["stages"].items()}
    boxes |= {"predict alone": found["predict_ms"], "age of an answer": found["age_ms"]}
    present = [*found["stages"], "other"]
    return [
        Text(_source_line(found["source"], settings)),
        key_table([result]),
        Text(
            "The real-time factor is seconds of media per second of computing: above 1 the machine keeps up with a "
            "live source like this one (picture size, frame rate, number of faces)."
        ),
        Heading("Where the time goes", 3),
        Figure(stage_bars(found), "Share of the wall time per stage"),
        stage_table(result),
        Text(PREDICT_NOTE),
        Text(AGE_NOTE),
        *_few_calls(boxes),
        Table("The stages", ("stage", "what it is"), [(n, STAGE_NOTES.get(n, "")) for n in present], prose=(1,)),
        Heading("How much it varies", 3),
        Text("Box: the middle half of the calls, line: median, whiskers: p5 and p95, circles: p99 and the slowest."),
        Figure(latency_boxes(boxes), "Distribution of milliseconds per call for each stage, logarithmic axis"),
        Heading("End to end", 3),
        run_table(result),
        Table(
            "Start-up and memory",
            ("what", "value"),
            [
                ("importing the libraries", f"{startup['import_s']:.2f} s"),
                ("loading the bundle: hashes, session, self-test", f"{startup['load_s']:.2f} s"),
                ("opening the source and the face detector", f"{startup['open_s']:.2f} s"),
                ("peak resident memory of the process", f"{found['peak_memory_mib']:.0f} MiB"),
            ],
        ),
    ]


def _source_line(source: dict, settings: dict) -> str:
    tracks = [f"{source['width']} x {source['height']} video"] if source["video"] else []
    tracks += ["sound"] if source["audio"] else []
    return (
        f"Source: {source['name']}, {source['media_s']:.2f} s, {' and '.join(tracks)}. A window of "
        f"{settings['window_s']:g} s every {settings['hop_s']:g} s. Counted runs: {settings['repeat']}, warm-up runs "
        f"before: {settings['warmup']}, calls of predict alone: {settings['iterations']}."
    )


def _few_calls(summaries: dict[str, dict]) -> list[Block]:
    few = [f"{name} ({row['count']})" for name, row in summaries.items() if row["count"] < FEW_CALLS]
    if not few:
        return []
    text = f"Fewer than {FEW_CALLS} calls, so p99 says little more than the slowest one: {', '.join(few)}."
    return [Text(text, note=True)]


def _summary_cells(summary: dict) -> tuple[str, ...]:
    return (str(summary["count"]), *(f"{summary[key]:.2f}" for key in ("p50", "p95", "p99", "mean")))


def _mean(runs: list[dict], key: str) -> float:
    return sum(run[key] for run in runs) / len(runs)
