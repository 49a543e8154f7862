"""What a grid of latencies looks like to people."""

from __future__ import annotations

from collections.abc import Sequence

from mma_benchmarks.figures import speed_bars
from mma_benchmarks.result import Result
from mma_benchmarks.schema import AccuracyGrid, Grid, GridCell, Refused
from mma_trainer.report.page import Block, Figure, Heading, Table, Text

SPEED_NOTE = (
    "Milliseconds of one call with the whole batch, arrays of the processor in and out. Clips per second: of the "
    "mean. To eager: how many times faster than the same model in eager PyTorch fp32 on the same device, in turns "
    "with it (medians). GFLOP/s: the PyTorch model's matrix products and convolutions, a multiplication and an "
    "addition counted as two, over the median; an engine that leaves work out gets the credit. Of peak: the share of "
    "the fastest plain matrix product that torch reached at this precision in the same run; above 100 % means that "
    "torch's own product is slow at it."
)
RESOURCE_NOTE = (
    "Peak memory: largest resident memory of the process that was timed, libraries and loading included. Loading: "
    "manifest, hashes, engine and self-test in a process just started; cold is the first opening in this run with "
    "empty caches of compiled models (the files may be in the system's cache), warm the one after. Logits: largest "
    "difference from eager PyTorch fp32 on the same random clips."
)
CALLS_FOR_P99 = 100


def key_table(results: Sequence[Result]) -> Table:
    """One row per cell of each result: what people compare."""
    rows = [
        (
            *_names(cell),
            *(f"{ms:.1f}" for ms in (cell.call_ms.p50, cell.call_ms.p95, cell.call_ms.p99)),
            f"{cell.clips_per_s:.3g}",
            _figure(cell.speedup, "{:.2f} x"),
            _figure(cell.gflops, "{:.0f}"),
            _figure(cell.peak_share, "{:.0f} %", scale=100),
            str(cell.call_ms.count),
        )
        for result in results
        for cell in result.results.cells
    ]
    header = (
        "model", "backend", "precision", "batch", "p50 ms", "p95 ms", "p99 ms", "clips/s", "to eager", "GFLOP/s",
        "of peak", "calls",
    )  # fmt: skip
    return Table("Latency over the grid", header, rows, prose=(1, 2))


def resource_table(found: Grid) -> Table:
    """Memory, loading, energy and faithfulness of each cell."""
    rows = [
        (
            *_names(cell),
            f"{cell.peak_memory_mib:.0f}",
            _figure(cell.gpu_memory_mib, "{:.0f}"),
            _figure(cell.load_cold_s, "{:.2f}"),
            f"{cell.load_warm_s:.2f}",
            _figure(cell.energy_j_per_clip, "{:.3g}"),
            _figure(cell.logit_difference, "{:.1e}"),
        )
        for cell in found.cells
    ]
    header = (
        "model", "backend", "precision", "batch", "peak MiB", "GPU MiB", "load s cold", "warm", "J/clip", "logits",
    )  # fmt: skip
    return Table("Memory, loading, energy, faithfulness", header, rows, prose=(1, 2))


def refused_table(found: Grid | AccuracyGrid) -> Table:
    rows = [(*_names(cell), cell.why) for cell in found.refused]
    return Table("What could not run here, and why", ("model", "backend", "precision", "batch", "why"), rows, (1, 2, 4))


def console_tables(result: Result) -> list[Table]:
    """One narrow table per model and batch: a terminal has 80 columns."""
    tables = []
    for (subject, batch), cells in groups(result.results.cells).items():
        rows = [
            (
                f"{cell.runner} {cell.precision}",
                f"{cell.call_ms.p50:.1f}",
                f"{cell.call_ms.p95:.1f}",
                f"{cell.clips_per_s:.3g}",
                _figure(cell.speedup, "{:.2f} x"),
                _figure(cell.peak_share, "{:.0f} %", scale=100),
                f"{cell.peak_memory_mib:.0f}",
                f"{cell.load_warm_s:.2f}",
            )
            for cell in cells
        ]
        header = ("backend", "p50 ms", "p95 ms", "clips/s", "to eager", "of peak", "peak MiB", "load s")
        tables.append(Table(f"{subject}, batch {batch}", header, rows))
    reasons: dict[tuple[str, str], list[str]] = {}
    for cell in result.results.refused:
        reasons.setdefault((f"{cell.runner} {cell.precision}", cell.why), []).append(f"{cell.subject} x {cell.batch}")
    rows = [(name, f"{why} ({', '.join(where)})") for (name, why), where in reasons.items()]
    refused = Table("What could not run here, and why", ("backend", "why (model x batch)"), rows, prose=(1,))
    return [*tables, refused] if rows else tables


def groups(cells: Sequence[GridCell]) -> dict[tuple[str, int], list[GridCell]]:
    """The cells that computed in turns: of one model and batch."""
    found: dict[tuple[str, int], list[GridCell]] = {}
    for cell in cells:
        found.setdefault((cell.subject, cell.batch), []).append(cell)
    return found


def blocks(result: Result) -> list[Block]:
    """The section of one result, without machine."""
    found: Grid = result.results
    settings = found.settings
    section: list[Block] = [
        Text(
            f"{settings.rounds} rounds; in each, every cell computes for about {settings.turn_s:g} s in turns "
            f"with the others of its model and batch, after {settings.uncounted_calls} call that does not count."
        ),
    ]
    if found.cells:
        section += [key_table([result]), Text(SPEED_NOTE), *_caveats(found)]
        for (subject, batch), cells in groups(found.cells).items():
            section.append(Heading(f"{subject}, batch {batch}", 3))
            section.append(Figure(speed_bars(cells), f"Milliseconds per call, {subject}, batch {batch}"))
        section += [Heading("Memory, loading, energy", 3), resource_table(found), Text(RESOURCE_NOTE), _energy(found)]
    section += refused_blocks(found)
    return [*section, Heading("Models and peak", 3), _subjects(found), _peaks(found), *engine_blocks(found)]


def refused_blocks(found: Grid | AccuracyGrid) -> list[Block]:
    return [Heading("What could not run", 3), refused_table(found)] if found.refused else []


def engine_blocks(found: Grid | AccuracyGrid) -> list[Block]:
    engines = sorted({(cell.runner, cell.details) for cell in found.cells})
    return [Table("What ran", ("backend", "engine"), engines, prose=(1,))] if engines else []


def _names(cell: GridCell | Refused) -> tuple[str, str, str, str]:
    return cell.subject, cell.runner, cell.precision, str(cell.batch)


def _figure(value: float | None, form: str, scale: float = 1) -> str:
    """`scale` times the value in a form such as "{:.2f} x"; "-" where there is none."""
    return "-" if value is None else form.format(scale * value)


def _caveats(found: Grid) -> list[Block]:
    few = [cell.call_ms.count for cell in found.cells if cell.call_ms.count < CALLS_FOR_P99]
    blocks: list[Block] = []
    if few:
        text = (
            f"{len(few)} cells have fewer than {CALLS_FOR_P99} calls (the fewest {min(few)}): p99 is about the slowest."
        )
        blocks.append(Text(text, note=True))
    if any(cell.speedup is None for cell in found.cells):
        text = "Where no ratio to eager stands, PyTorch could not run this model beside the cell."
        blocks.append(Text(text, note=True))
    return blocks


def _energy(found: Grid) -> Text:
    meters = sorted({cell.energy_meter for cell in found.cells if cell.energy_meter})
    if not meters:
        return Text(
            "Energy: not measured, this machine has no sensor to read (no NVML, no Jetson sensor, no readable RAPL)."
        )
    return Text(f"Energy by {', '.join(meters)}: all that the chip or board took meanwhile, idle share included.")


def _subjects(found: Grid) -> Block:
    rows = [
        (
            subject.name,
            subject.origin,
            str(subject.image_size),
            str(len(subject.labels)),
            _figure(subject.flops_per_clip, "{:.1f}", scale=1e-9),
            subject.manifest_sha256[:12],
        )
        for subject in found.subjects
    ]
    header = ("model", "weights", "px", "classes", "GFLOP per clip", "manifest SHA-256")
    return Table("The models", header, rows, prose=(1, 5))


def _peaks(found: Grid) -> Block:
    if not found.peaks:
        return Text("The machine's matrix product was not measured: torch is not installed or no cell ran.")
    rows = [
        (f"{peak.device} {peak.precision}", f"{peak.gflops:.0f}", f"{peak.size} x {peak.size}") for peak in found.peaks
    ]
    header = ("device and precision", "GFLOP/s", "size")
    return Table("The fastest square matrix product by torch in this run", header, rows, prose=(2,))
