"""What a training result looks like to people."""

from __future__ import annotations

from collections.abc import Sequence

from mma_benchmarks.result import Result
from mma_benchmarks.schema import Training
from mma_trainer.report.page import Block, Table, Text, percent

NOTE = (
    "Clips per second: batch size over the median duration of a step (forward, backward, optimiser). Ratios are to "
    "the plain loop, measured in the same rounds on the same machine. Peak memory: the largest resident memory of a "
    "fresh process, libraries, weights and optimiser included; on a GPU what PyTorch allocated there. CPU s: "
    "processor time of a step, all threads together, which other work on the machine changes less than its duration. "
    "Loss after: of the trained model in eval mode on one clip; settings that learn the same agree."
)


def key_table(results: Sequence[Result]) -> Table:
    """One row per setting of each result."""
    rows = []
    for result in results:
        settings = result.results.settings
        model = f"{settings.model}, {settings.image_size} px, batch {settings.batch_size}"
        for run in result.results.runs:
            speed = (f"{run.clips_per_s:.3g}", f"{run.speedup:.2f} x")
            memory = (f"{run.peak_memory_mib:.0f}", percent(run.memory_ratio, 0, " %"))
            rows.append((model, run.name, *speed, *memory, f"{run.loss:.4f}"))
    header = ("model", "setting", "clips/s", "to plain", "peak MiB", "to plain", "loss after")
    return Table("Training at a glance", header, rows, prose=(1,))


def step_table(found: Training) -> Table:
    """Durations of a step in each setting, and how to ask mma-train for it."""
    plain_s = next(run.cpu_s.p50 for run in found.runs if run.name == "plain")
    rows = []
    for run in found.runs:
        times = (f"{value:.3g}" for value in (run.step_s.min, run.step_s.p50, run.step_s.max, run.cpu_s.p50))
        ratio = f"{plain_s / run.cpu_s.p50:.2f} x"
        rows.append((run.name, *times, ratio, str(run.step_s.count), run.description))
    header = ("setting", "step s min", "p50", "max", "CPU s p50", "to plain", "steps", "as")
    return Table("Durations of a step", header, rows, prose=(7,))


def console_tables(result: Result) -> list[Table]:
    return [key_table([result]), step_table(result.results)]


def blocks(result: Result) -> list[Block]:
    """The section of one result, without machine and model."""
    s = result.results.settings
    what = (
        f"{s.trainable:,} trainable of {s.parameters:,} parameters on {s.device}, {s.threads} threads; "
        f"{s.rounds} rounds, in each {s.steps} counted steps per setting after {s.warmup} that do not count. "
        "Clips are random numbers already in memory."
    )
    return [Text(what), key_table([result]), Text(NOTE), step_table(result.results)]
