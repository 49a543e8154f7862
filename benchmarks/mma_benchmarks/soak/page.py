"""What a soak looks like to people."""

from __future__ import annotations

from collections.abc import Sequence

from mma_benchmarks.figures import soak_curves
from mma_benchmarks.result import Result
from mma_benchmarks.soak.schema import Soak
from mma_trainer.report.page import Block, Figure, Table, Text, number

NOTE = (
    "mma-edge run of an RTSP stream (the sample clip in a loop, from GStreamer's server on this machine) for "
    "{minutes:g} minutes, in a process of its own, one sample every {sample:g} s. Every {every:g} s the stream fails, "
    "in turns as the table says; its pictures have sides of {sizes} pixels in turns. The first {settle:g} s do not "
    "count for memory and thirds. Age: from the arrival of the newest frame or sound that an answer rests on to the "
    "answer; of the last minute in the figure, of each answer in the thirds. Load: runnable threads of the whole "
    "machine. Back: from the end of a failure to the next picture; the pauses between attempts to connect are in it."
)


def key_table(results: Sequence[Result]) -> Table:
    """One row per result."""
    rows = []
    for result in results:
        found: Soak = result.results
        first, last = found.thirds[0], found.thirds[-1]
        row = (f"{found.settings.minutes:g}", str(sum(third.answers for third in found.thirds)))
        row += (str(found.reconnects), number(found.memory_slope_mib_per_h, 2))
        row += tuple(f"{a} -> {b}" for a, b in ((first.threads, last.threads), (first.descriptors, last.descriptors)))
        row += tuple(number(third.age_p95_ms, 0) for third in (first, last))
        rows.append((*row, str(found.notices), str(found.exit_code)))
    header = ("minutes", "answers", "reconnects", "memory MiB/h", "threads", "descriptors")
    return Table("Soak", (*header, "age p95 ms, first third", "last third", "notices", "exit code"), rows)


def thirds_table(found: Soak) -> Table:
    rows = [
        (
            name,
            str(third.answers),
            number(third.age_p50_ms, 0),
            number(third.age_p95_ms, 0),
            number(third.memory_mib, 1),
            str(third.threads),
            str(third.descriptors),
            number(third.load_average, 1),
        )
        for name, third in zip(("first", "middle", "last"), found.thirds, strict=True)
    ]
    header = ("third", "answers", "age p50 ms", "age p95 ms", "memory MiB", "threads", "descriptors", "load")
    return Table("By thirds of the time", header, rows)


def failures_table(found: Soak) -> Table:
    """How long it took until pictures came again, by kind of failure."""
    rows = []
    for what in dict.fromkeys(each.what for each in found.disturbances):
        same = [each for each in found.disturbances if each.what == what]
        back = sorted(each.back_s for each in same if each.back_s is not None)
        middle = back[len(back) // 2] if back else None
        times = (number(middle, 1), number(back[-1] if back else None, 1))
        rows.append((what, str(len(same)), *times, str(len(same) - len(back))))
    return Table("Failures", ("what", "times", "back after s, median", "longest", "not back in time"), rows)


def console_tables(result: Result) -> list[Table]:
    return [key_table([result]), thirds_table(result.results), failures_table(result.results)]


def blocks(result: Result) -> list[Block]:
    """The section of one result, without machine and bundle."""
    found: Soak = result.results
    own = found.settings
    figures = {"minutes": own.minutes, "sample": own.sample_s, "every": own.every_s, "settle": own.settle_s}
    alone = "" if found.children_left == 0 else f" {found.children_left} processes were left behind."
    cpu = f" The run took {found.cpu_share:.0%} of one core.{alone}"
    settled = next((each for each in found.samples if each.at_s >= own.settle_s), found.samples[-1])
    grown = [f"{each.memory_mib:.0f}" for each in (found.samples[0], settled, found.samples[-1])]
    cpu += " Memory at the first answer, settled, and at the end: {}, {}, {} MiB.".format(*grown)
    return [
        Text(NOTE.format(**figures, sizes=" and ".join(map(str, own.sizes_px))) + cpu),
        key_table([result]),
        thirds_table(found),
        failures_table(found),
        Figure(soak_curves(found.samples), "Memory, and age of the answers of the last minute, over the time"),
    ]
