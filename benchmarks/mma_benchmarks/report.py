"""Results become pages: one beside each JSON file, or several joined."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mma_benchmarks.accuracy import grid_page as accuracy_grid_page
from mma_benchmarks.accuracy import page as accuracy_page
from mma_benchmarks.grid import page as grid_page
from mma_benchmarks.joined import joined_blocks
from mma_benchmarks.latency import page as latency_page
from mma_benchmarks.result import Result, free_stem, to_json, write_atomically
from mma_benchmarks.streaming import page as streaming_page
from mma_benchmarks.training import page as training_page
from mma_edge.errors import OutputError, UsageError
from mma_trainer.report.page import Block, Code, Heading, Page, Table, Text, to_html, to_markdown

SUFFIXES = (".json", ".md", ".html")
PAGE_SUFFIXES = (".md", ".html")
BUSY = 0.5
"""Load average per usable core from which the page warns."""

SECTION = {
    "latency": latency_page.latency_blocks,
    "accuracy": accuracy_page.accuracy_blocks,
    "training": training_page.training_blocks,
    "grid": grid_page.grid_blocks,
    "accuracy-grid": accuracy_grid_page.accuracy_grid_blocks,
    "streaming": streaming_page.streaming_blocks,
}
KEY_TABLE = {
    "latency": latency_page.key_table,
    "accuracy": accuracy_page.key_table,
    "training": training_page.key_table,
    "grid": grid_page.key_table,
    "accuracy-grid": accuracy_grid_page.key_table,
    "streaming": streaming_page.key_table,
}
KIND_NAME = {"grid": "latency grid", "accuracy-grid": "accuracy grid"}
GRIDS = tuple(KIND_NAME)
TIMED = ("latency", "training", "grid", "streaming")


def save(result: Result, folder: Path) -> list[Path]:
    """Write JSON, Markdown and HTML under one new name; nothing that exists is touched."""
    page = page_of([result])
    texts = (to_json(result), to_markdown(page), to_html(page))
    stem = free_stem(folder, result, SUFFIXES)
    paths = [Path(f"{stem}{suffix}") for suffix in SUFFIXES]
    for path, text in zip(paths, texts, strict=True):
        write_atomically(path, text)
    return paths


def save_page(results: Sequence[Result], output: Path, overwrite: bool) -> list[Path]:
    """Write the joined page as Markdown and HTML; a suffix .md or .html of `output` makes no difference."""
    if output.is_dir():
        raise UsageError(f"--output {output} is a folder", "the name of a page", f"try {output / 'report.html'}")
    stem = output.with_suffix("") if output.suffix in PAGE_SUFFIXES else output
    paths = [Path(f"{stem}{suffix}") for suffix in PAGE_SUFFIXES]
    if not overwrite and (there := [path for path in paths if path.exists()]):
        raise OutputError(f"{there[0]} exists", "a new name", "choose another --output or add --overwrite")
    page = page_of(results)
    for path, text in zip(paths, (to_markdown(page), to_html(page)), strict=True):
        write_atomically(path, text)
    return paths


def page_of(results: Sequence[Result]) -> Page:
    """One result in full, or an overview and then each in full."""
    if len(results) == 1:
        result = results[0]
        title = f"{_kind(result.kind)} of {result.bundle['name']} on {result.machine['cpu']}"
        return Page(title, [*SECTION[result.kind](result), *conditions(result)])
    blocks: list[Block] = joined_blocks(results)
    for kind, table in KEY_TABLE.items():
        if group := [result for result in results if result.kind == kind]:
            blocks += [Heading(_kind(kind)), table(group), _origins(group)]
            if len({result.machine["name"] for result in group}) > 1:
                blocks.append(Text("These were measured on different machines; see below.", note=True))
    for number, result in enumerate(results, 1):
        title = f"{number}. {_kind(result.kind)} of {result.bundle['name']}, {result.created}"
        blocks += [Heading(title), *SECTION[result.kind](result), *conditions(result)]
    return Page("Benchmarks of mma-edge", blocks)


def conditions(result: Result) -> list[Block]:
    """Under which conditions: command, bundle, machine."""
    machine = result.machine
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    rows = [
        *_subject(result),
        (
            "processor",
            f"{machine['cpu']}, {machine['cores_usable']} of {machine['cores_logical']} logical cores usable",
        ),
        ("instruction sets", ", ".join(machine["instruction_sets"]) or "none of those looked for"),
        ("memory", f"{machine['memory_gib']:g} GiB"),
        ("GPU", "; ".join(machine["gpus"]) or "none found"),
        ("system", f"{machine['os']}, Python {machine['python']}"),
        ("libraries", libraries),
        ("load before the start", f"{machine['load_average']:g} (1 minute average)"),
        ("measured", result.created.replace("T", " ").replace("Z", " UTC")),
    ]
    blocks: list[Block] = [Heading("Conditions", 3), Code(result.command)]
    if result.kind in TIMED and machine["load_average"] > BUSY * max(1, machine["cores_usable"]):
        busy = "Other work was running on this machine before the measurement; on an idle one expect better figures."
        blocks.append(Text(busy, note=True))
    return [*blocks, Table("Machine and bundle", ("what", "value"), rows, prose=(1,))]


def _subject(result: Result) -> list[tuple[str, str]]:
    bundle = result.bundle
    if result.kind in GRIDS:  # each cell says it of itself
        return [("models", bundle["name"])]
    backend = ("backend", f"{bundle['backend']} ({bundle['engine']})")
    if result.kind == "training":
        return [("model", f"{bundle['name']}, random weights"), backend]
    return [
        ("bundle", f"{bundle['name']}, {bundle['precision']}, {bundle['image_size']} px"),
        ("manifest SHA-256", bundle["manifest_sha256"]),
        backend,
    ]


def _kind(kind: str) -> str:
    return KIND_NAME.get(kind, kind).capitalize()


def _origins(results: Sequence[Result]) -> Table:
    rows = [
        (r.bundle["name"], r.machine["cpu"], r.created.replace("T", " ").replace("Z", " UTC"), r.command)
        for r in results
    ]
    return Table("Where these come from", ("bundle", "processor", "measured", "command"), rows, prose=(1, 2, 3))
