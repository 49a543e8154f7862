"""What a batch result looks like to people."""

from __future__ import annotations

from collections.abc import Sequence

from mma_benchmarks.batch.schema import Batch
from mma_benchmarks.result import Result
from mma_trainer.report.page import Block, Table, Text, number

NOTE = (
    "mma-edge batch on {files} files with {media:.0f} s of video in all (copies of {sources}, each with a content of "
    "its own), {window:g} s windows every {hop:g} s. Wall time from the first file to the last: the first worker's "
    "model is open by then, the others open theirs meanwhile. The numbers of workers take turns, {repeat} of each; the "
    "figures are of the median turn. A worker is a process that keeps to one core. Processor time is of all processes "
    "in one turn, with opening the models; load: runnable threads of the whole machine before a turn."
)


def key_table(results: Sequence[Result]) -> Table:
    """One row per number of workers of each result."""
    rows = []
    for result in results:
        found: Batch = result.results
        for way in found.ways:
            walls_s = sorted(turn.wall_s for turn in way.turns)
            cpu_s = sum(turn.cpu_s for turn in way.turns) / len(way.turns)
            rates = (way.files_per_min, way.media_s_per_s, way.media_s_per_s_per_worker)
            speeds = (*(number(rate, 1) for rate in rates), f"{way.speedup:.2f} x")
            times = (f"{walls_s[0]:.1f} - {walls_s[-1]:.1f}", number(cpu_s, 1))
            load = number(max(turn.load_average for turn in way.turns), 1)
            rows.append((str(way.workers), str(found.settings.files), *speeds, *times, load))
    rates = ("files per min", "video s per s", "per worker", "speedup")
    return Table("Batch", ("workers", "files", *rates, "wall s", "processor s", "load, highest"), rows)


def console_tables(result: Result) -> list[Table]:
    return [key_table([result])]


def blocks(result: Result) -> list[Block]:
    """The section of one result, without machine and bundle."""
    own = result.results.settings
    figures = {"files": own.files, "media": own.media_s, "window": own.window_s, "hop": own.hop_s}
    text = NOTE.format(**figures, sources=", ".join(own.sources), repeat=own.repeat)
    return [Text(text), key_table([result])]
