"""What a grid of latencies looks like to people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from mma_benchmarks.figures import speed_bars
from mma_benchmarks.result import Result
from mma_benchmarks.schema import AccuracyGrid, Grid, GridCell, Refused
from mma_trainer.report.page import Block, Figure, Heading, Table, Text, number, percent

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
NAMES = ("model", "backend", "precision", "batch")
REFUSED = "What could not run here, and why"


def key_table(results: Sequence[Result]) -> Table:
    """One row per cell of each result: what people compare."""
    rows = []
    for cell in [cell for result in results for cell in result.results.cells]:
        ms = cell.call_ms
        times = (f"{ms.p50:.1f}", f"{ms.p95:.1f}", f"{ms.p99:.1f}", f"{cell.clips_per_s:.3g}")
        to_eager, of_peak = _speed(cell)
        rows.append((*_names(cell), *times, to_eager, number(cell.gflops, 0), of_peak, str(ms.count)))
    header = (*NAMES, "p50 ms", "p95 ms", "p99 ms", "clips/s", "to eager", "GFLOP/s", "of peak", "calls")
    return Table("Latency over the grid", header, rows, prose=(1, 2))


def resource_table(found: Grid) -> Table:
    """Memory, loading, energy and faithfulness of each cell."""
    rows = []
    for cell in found.cells:
        memory = (f"{cell.peak_memory_mib:.0f}", number(cell.gpu_memory_mib, 0))
        loading = (number(cell.load_cold_s, 2), f"{cell.load_warm_s:.2f}")
        rest = (_figure(cell.energy_j_per_clip, "{:.3g}"), _figure(cell.logit_difference, "{:.1e}"))
        rows.append((*_names(cell), *memory, *loading, *rest))
    header = (*NAMES, "peak MiB", "GPU MiB", "load s cold", "warm", "J/clip", "logits")
    return Table("Memory, loading, energy, faithfulness", header, rows, prose=(1, 2))


def refused_table(found: Grid | AccuracyGrid) -> Table:
    rows = [(*_names(cell), cell.why) for cell in found.refused]
    return Table(REFUSED, (*NAMES, "why"), rows, prose=(1, 2, 4))


def console_tables(result: Result) -> list[Table]:
    """One narrow table per model and batch: a terminal has 80 columns."""
    tables = []
    header = ("backend", "p50 ms", "p95 ms", "clips/s", "to eager", "of peak", "peak MiB", "load s")
    for (subject, batch), cells in groups(result.results.cells).items():
        rows = []
        for cell in cells:
            times = (f"{cell.call_ms.p50:.1f}", f"{cell.call_ms.p95:.1f}", f"{cell.clips_per_s:.3g}")
            costs = (f"{cell.peak_memory_mib:.0f}", f"{cell.load_warm_s:.2f}")
            rows.append((f"{cell.runner} {cell.precision}", *times, *_speed(cell), *costs))
        tables.append(Table(f"{subject}, batch {batch}", header, rows))
    reasons = defaultdict(list)
    for cell in result.results.refused:
        reasons[f"{cell.runner} {cell.precision}", cell.why].append(f"{cell.subject} x {cell.batch}")
    rows = [(name, f"{why} ({', '.join(where)})") for (name, why), where in reasons.items()]
    return [*tables, Table(REFUSED, ("backend", "why (model x batch)"), rows, prose=(1,))] if rows else tables


def groups(cells: Sequence[GridCell]) -> dict[tuple[str, int], list[GridCell]]:
    """The cells that computed in turns: of one model and batch."""
    found = defaultdict(list)
    for cell in cells:
        found[cell.subject, cell.batch].append(cell)
    return found


def blocks(result: Result) -> list[Block]:
    """The section of one result, without machine."""
    found: Grid = result.results
    settings = found.settings
    turns = (
        f"{settings.rounds} rounds; in each, every cell computes for about {settings.turn_s:g} s in turns "
        f"with the others of its model and batch, after {settings.uncounted_calls} call that does not count."
    )
    section: list[Block] = [Text(turns)]
    if found.cells:
        section += [key_table([result]), Text(SPEED_NOTE), *_caveats(found)]
        for (subject, batch), cells in groups(found.cells).items():
            name = f"{subject}, batch {batch}"
            section += [Heading(name, 3), Figure(speed_bars(cells), f"Milliseconds per call, {name}")]
        section += [Heading("Memory, loading, energy", 3), resource_table(found), Text(RESOURCE_NOTE), _energy(found)]
    section += [*refused_blocks(found), Heading("Models and peak", 3), _subjects(found), _peaks(found)]
    return [*section, *engine_blocks(found)]


def refused_blocks(found: Grid | AccuracyGrid) -> list[Block]:
    return [Heading("What could not run", 3), refused_table(found)] if found.refused else []


def engine_blocks(found: Grid | AccuracyGrid) -> list[Block]:
    engines = sorted({(cell.runner, cell.details) for cell in found.cells})
    return [Table("What ran", ("backend", "engine"), engines, prose=(1,))] if engines else []


def _names(cell: GridCell | Refused) -> tuple[str, str, str, str]:
    return cell.subject, cell.runner, cell.precision, str(cell.batch)


def _figure(value: float | None, form: str) -> str:
    """The value in a form such as "{:.2f} x"; "-" where there is none."""
    return "-" if value is None else form.format(value)


def _speed(cell: GridCell) -> tuple[str, str]:
    """Ratio to eager PyTorch, share of the machine's peak."""
    return _figure(cell.speedup, "{:.2f} x"), percent(cell.peak_share, 0, " %")


def _caveats(found: Grid) -> list[Block]:
    texts = []
    if few := [cell.call_ms.count for cell in found.cells if cell.call_ms.count < CALLS_FOR_P99]:
        fewest = f"{len(few)} cells have fewer than {CALLS_FOR_P99} calls (the fewest {min(few)})"
        texts.append(f"{fewest}: p99 is about the slowest.")
    if any(cell.speedup is None for cell in found.cells):
        texts.append("Where no ratio to eager stands, PyTorch could not run this model beside the cell.")
    return [Text(text, note=True) for text in texts]


def _energy(found: Grid) -> Text:
    meters = sorted({cell.energy_meter for cell in found.cells if cell.energy_meter})
    if meters:
        return Text(f"Energy by {', '.join(meters)}: all that the chip or board took meanwhile, idle share included.")
    missing = "this machine has no sensor to read (no NVML, no Jetson sensor, no readable RAPL)"
    return Text(f"Energy: not measured, {missing}.")


def _subjects(found: Grid) -> Block:
    rows = []
    for subject in found.subjects:
        gflop = "-" if subject.flops_per_clip is None else f"{1e-9 * subject.flops_per_clip:.1f}"
        sizes = (str(subject.image_size), str(len(subject.labels)))
        rows.append((subject.name, subject.origin, *sizes, gflop, subject.manifest_sha256[:12]))
    header = ("model", "weights", "px", "classes", "GFLOP per clip", "manifest SHA-256")
    return Table("The models", header, rows, prose=(1, 5))


def _peaks(found: Grid) -> Block:
    if not found.peaks:
        return Text("The machine's matrix product was not measured: torch is not installed or no cell ran.")
    rows = [(f"{p.device} {p.precision}", f"{p.gflops:.0f}", f"{p.size} x {p.size}") for p in found.peaks]
    caption = "The fastest square matrix product by torch in this run"
    return Table(caption, ("device and precision", "GFLOP/s", "size"), rows, prose=(2,))
