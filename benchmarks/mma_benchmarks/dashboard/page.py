"""What the cost of a page looks like to people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mma_benchmarks.dashboard.schema import Dashboard
from mma_benchmarks.result import Result
from mma_trainer.report.page import Block, Table, Text, number

NOTE = (
    "mma-edge serve of a film of {width}x{height} at {fps} frames a second, played as a camera would deliver it, in a "
    "process of its own. Shares are of one core: of the threads that are the page's own (encoder, server, disk), and "
    "of the whole run; the first table has what the first viewer adds to each. {looked} Flash: from the arrival of the "
    "first picture of a flash in a corner of the film to the page that shows it; of a camera its own delay comes "
    "before that. While viewers come and go, every second one is cut off without a farewell; the first fifth does not "
    "count for the memory's slope."
)


def key_table(results: Sequence[Result]) -> Table:
    """One row per result."""
    rows = []
    for result in results:
        found: Dashboard = result.results
        none, one = found.phases[:2]
        row = (
            number(100 * (one.page_share - none.page_share), 1),
            number(100 * (one.process_share - none.process_share), 1),
        )
        row += tuple(number(value, 0) for value in (found.flash_p50_ms, found.flash_p95_ms))
        row += (number(found.picture_p95_ms, 0), number(found.pictures_per_s, 1), str(found.visits))
        rows.append((*row, number(found.memory_slope_mib_per_h, 1), str(found.exit_code)))
    header = ("page %", "run %", "flash p50 ms", "flash p95 ms", "picture p95 ms", "pictures/s", "visits")
    return Table("Page of a run: its first viewer", (*header, "memory MiB/h", "exit code"), rows)


def phases_table(found: Dashboard) -> Table:
    rows = [
        (
            phase.name,
            number(phase.seconds, 0),
            number(phase.viewers, 1),
            number(100 * phase.page_share, 1),
            number(100 * phase.process_share, 1),
            number(phase.load_average, 1),
        )
        for phase in found.phases
    ]
    header = ("phase", "s", "viewers", "page's threads, % of a core", "whole run, % of a core", "load")
    return Table("Phases", header, rows)


def thirds_table(found: Dashboard) -> Table:
    """Memory, threads and descriptors over the time in which viewers come and go."""
    rows = []
    for name, part in zip(("first", "middle", "last"), np.array_split(np.arange(len(found.samples)), 3), strict=True):
        some = [found.samples[index] for index in part] or found.samples[-1:]
        row = [number(float(np.mean([each.memory_mib for each in some])), 1)]
        row += [str(int(np.median([getattr(each, key) for each in some]))) for key in ("threads", "descriptors")]
        rows.append((name, *row))
    return Table("Viewers come and go, by thirds", ("third", "memory MiB", "threads", "descriptors"), rows)


def console_tables(result: Result) -> list[Table]:
    return [key_table([result]), phases_table(result.results), thirds_table(result.results)]


def blocks(result: Result) -> list[Block]:
    """The section of one result, without machine and bundle."""
    found: Dashboard = result.results
    own = found.settings
    looked = f"Headless {own.browser} on the same machine was the first viewer." if own.browser else ""
    looked = looked or "There was no browser: a WebSocket client was the first viewer."
    text = NOTE.format(width=own.width, height=own.height, fps=own.fps, looked=looked)
    return [Text(text), key_table([result]), phases_table(found), thirds_table(found)]
