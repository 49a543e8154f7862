"""Results become pages: one beside each JSON file, or several joined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from mma_benchmarks.accuracy import page as accuracy_page
from mma_benchmarks.batch import page as batch_page
from mma_benchmarks.dashboard import page as dashboard_page
from mma_benchmarks.faces import page as faces_page
from mma_benchmarks.grid import page as grid_page
from mma_benchmarks.joined import joined_blocks
from mma_benchmarks.latency import page as latency_page
from mma_benchmarks.result import Result, free_paths, to_json, write_texts
from mma_benchmarks.schema import AccuracyGrid, Grid, Speaking, Training, Voice
from mma_benchmarks.soak import page as soak_page
from mma_benchmarks.speaking import page as speaking_page
from mma_benchmarks.streaming import page as streaming_page
from mma_benchmarks.training import page as training_page
from mma_benchmarks.voice import page as voice_page
from mma_edge.errors import OutputError, UsageError
from mma_trainer.report.page import Block, Code, Heading, Page, Table, Text, to_html, to_markdown

PAGE_SUFFIXES = (".md", ".html")
SUFFIXES = (".json", *PAGE_SUFFIXES)
BUSY = 0.5
"""Load average per usable core from which the page warns."""


@dataclass(frozen=True)
class Kind:
    """One kind of result.

    Its page is a module: `key_table(results)` is what people compare, `console_tables(result)` what they see at once,
    `blocks(result)` the section of its own.
    """

    name: str  # in headings
    page: ModuleType
    is_timed: bool = True  # other work on the machine changes the figures


KINDS = {
    "latency": Kind("latency", latency_page),
    "accuracy": Kind("accuracy", accuracy_page, is_timed=False),
    "training": Kind("training", training_page),
    "grid": Kind("latency grid", grid_page),
    "accuracy-grid": Kind("accuracy grid", accuracy_page, is_timed=False),
    "streaming": Kind("streaming", streaming_page),
    "voice": Kind("voice gate", voice_page, is_timed=False),
    "faces": Kind("faces", faces_page),
    "speaking": Kind("speaking", speaking_page, is_timed=False),
    "soak": Kind("soak", soak_page),
    "batch": Kind("batch", batch_page),
    "dashboard": Kind("page of a run", dashboard_page),
}


def key_tables(results: Sequence[Result]) -> Iterator[tuple[str, list[Result], Table]]:
    """(kind, its results, their table) of every kind that occurs."""
    for name, kind in KINDS.items():
        if group := [result for result in results if result.kind == name]:
            yield name, group, kind.page.key_table(group)


def save(result: Result, folder: Path) -> list[Path]:
    """Write JSON, Markdown and HTML under one new name; nothing that exists is touched."""
    page = page_of([result])
    return write_texts(free_paths(folder, result, SUFFIXES), (to_json(result), to_markdown(page), to_html(page)))


def save_page(results: Sequence[Result], output: Path, overwrite: bool) -> list[Path]:
    """Write the joined page as Markdown and HTML; a suffix .md or .html of `output` makes no difference."""
    if output.is_dir():
        raise UsageError(f"--output {output} is a folder", "the name of a page", f"try {output / 'report.html'}")
    stem = output.with_suffix("") if output.suffix in PAGE_SUFFIXES else output
    paths = [Path(f"{stem}{suffix}") for suffix in PAGE_SUFFIXES]
    if not overwrite and (there := [path for path in paths if path.exists()]):
        raise OutputError(f"{there[0]} exists", "a new name", "choose another --output or add --overwrite")
    page = page_of(results)
    return write_texts(paths, (to_markdown(page), to_html(page)))


def page_of(results: Sequence[Result]) -> Page:
    """One result in full, or an overview and then each in full."""
    if len(results) == 1:
        result = results[0]
        return Page(f"{_title(result)} on {result.machine.cpu}", section(result))
    blocks = joined_blocks(results)
    for kind, group, table in key_tables(results):
        blocks += [Heading(KINDS[kind].name.capitalize()), table, _origins(group)]
        if len({result.machine.name for result in group}) > 1:
            blocks.append(Text("These were measured on different machines; see below.", note=True))
    for number, result in enumerate(results, 1):
        blocks += [Heading(f"{number}. {_title(result)}, {result.created}"), *section(result)]
    return Page("Benchmarks of mma-edge", blocks)


def section(result: Result) -> list[Block]:
    """One result in full: its figures, then under which conditions: command, bundle, machine."""
    machine, kind = result.machine, KINDS[result.kind]
    libraries = ", ".join(f"{name} {version}" for name, version in machine.libraries.items())
    rows = [
        *_subject(result),
        ("processor", f"{machine.cpu}, {machine.cores_usable} of {machine.cores_logical} logical cores usable"),
        ("instruction sets", ", ".join(machine.instruction_sets) or "none of those looked for"),
        ("memory", f"{machine.memory_gib:g} GiB"),
        ("GPU", "; ".join(machine.gpus) or "none found"),
        *([("power", str(machine.power))] if machine.power else []),
        ("system", f"{machine.os}, Python {machine.python}"),
        ("libraries", libraries),
        ("load before the start", f"{machine.load_average:g} (1 minute average)"),
        ("measured", _utc(result)),
    ]
    blocks = [*kind.page.blocks(result), Heading("Conditions", 3), Code(result.command)]
    if kind.is_timed and machine.load_average > BUSY * max(1, machine.cores_usable):
        busy = "Other work was running on this machine before the measurement; on an idle one expect better figures."
        blocks.append(Text(busy, note=True))
    return [*blocks, Table("Machine and bundle", ("what", "value"), rows, prose=(1,))]


def _subject(result: Result) -> list[tuple[str, str]]:
    bundle = result.bundle
    if isinstance(result.results, (Grid, AccuracyGrid)):  # each cell says it of itself
        return [("models", bundle.name)]
    backend = ("backend", f"{bundle.backend} ({bundle.engine})")
    if isinstance(result.results, Training):
        return [("model", f"{bundle.name}, random weights"), backend]
    if isinstance(result.results, (Speaking, Voice)):
        return [("detector", bundle.name), ("SHA-256", bundle.manifest_sha256), backend]
    name = f"{bundle.name}, {bundle.precision}, {bundle.image_size} px"
    return [("bundle", name), ("manifest SHA-256", bundle.manifest_sha256), backend]


def _title(result: Result) -> str:
    return f"{KINDS[result.kind].name.capitalize()} of {result.bundle.name}"


def _utc(result: Result) -> str:
    return result.created.replace("T", " ").replace("Z", " UTC")


def _origins(results: Sequence[Result]) -> Table:
    rows = [(result.bundle.name, result.machine.cpu, _utc(result), result.command) for result in results]
    return Table("Where these come from", ("bundle", "processor", "measured", "command"), rows, prose=(1, 2, 3))
